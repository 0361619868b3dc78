"""Texts that installed packages carry, by the name that `[simulation] data` gives them; no download of our own."""

from confide.simulations.data.dialogues import read_dialogues
from confide.simulations.data.names import read_name_parts, read_name_questions
from confide.simulations.data.questions import read_questions
from confide.simulations.data.translations import read_translations
from confide.simulations.data.tweets import read_tweets
from confide.simulations.data.vader import read_vader, read_vader_lists, read_vader_preferences, read_vader_scores

SOURCES = {
    "vader": read_vader,
    "vader-scores": read_vader_scores,
    "vader-lists": read_vader_lists,
    "vader-preferences": read_vader_preferences,
    "questions": read_questions,
    "tweets": read_tweets,
    "name-parts": read_name_parts,
    "name-questions": read_name_questions,
    "dialogues": read_dialogues,
    "translations": read_translations,
}
