"""Texts, prompts with completions, and conversations: their faults, and the parts of them that a model learns to write.

The columns and shapes are those of trl: `text`; `prompt` and `completion` (texts, or lists of messages); `messages`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from confide.common.errors import InputError
from confide.common.forms.entities import plain
from confide.common.forms.texts import text_problem

_MAX_MESSAGES = 256

Form = Literal["text", "completion", "messages"]
COLUMNS: dict[Form, tuple[str, ...]] = {
    "text": ("text",),
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
}
# Lines of a model card's program that read a line as `prompt_of` does.
READ_TEXT = """import json

try:
    given = json.loads(text)
except (ValueError, RecursionError):
    given = text
text = given if isinstance(given, str) else text
"""
READ_PROMPT = f"""{READ_TEXT}parts = given if isinstance(given, list) else []
messages = any(isinstance(part, dict) and "role" in part for part in parts)
text = given if messages else text
"""


class Rendered(NamedTuple):
    """A record as one text.

    Attributes:
        text: as the tokenizer reads it.
        answers: start and end, in characters, of the parts to write.
        by_template: True: the model's chat template made the text and has put every special token into it.
    """

    text: str
    answers: list[tuple[int, int]]
    by_template: bool


def problem_of(record: Mapping[str, Any], form: Form) -> str | None:
    """Return the fault of a record, or None."""
    if form == "text":
        return text_problem(record["text"])
    if form == "messages":
        return messages_problem(record["messages"], "messages")
    prompt, completion = plain(record["prompt"]), plain(record["completion"])
    if isinstance(prompt, list) != isinstance(completion, list):
        return "prompt and completion must both be texts, or both lists of messages"
    if not isinstance(prompt, list):
        return text_problem(prompt, "prompt") or text_problem(completion, "completion")
    return messages_problem([*prompt, *completion], "prompt and completion") or (
        None if _assistant_turns(completion) else "completion has no message of the assistant; add one"
    )


def messages_problem(messages: Any, name: str) -> str | None:
    """Return the fault of a list of messages, or None."""
    messages = plain(messages)
    if not isinstance(messages, list) or not messages:
        return f"{name} is {messages!r:.60}, must be a list of messages, each with role and content"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} of {name} is {message!r:.60}, must be an object with role and content"
        if problem := text_problem(message["content"], f"content of message {number}"):
            return problem
    roles = [message["role"] for message in messages]
    begin = int(roles[0] == "system")
    for place, role in enumerate(roles[begin:]):
        if role != (expected := ("user", "assistant")[place % 2]):
            number = place + begin + 1
            return (
                f"message {number} of {name} has role {role!r:.60}, must be {expected!r}: user and assistant alternate"
            )
    return None if "assistant" in roles else f"{name} has no message of the assistant; add one, or remove the record"


def prompt_of(line: str, form: Form) -> str | list[Any]:
    """Return the prompt that a line holds as JSON: a string, or a list of messages if the form has such.

    So a prompt may have line breaks, and a conversation so far can be given. Any other line is the prompt itself.

    Raises:
        InputError: messages that a model does not go on from.
    """
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if isinstance(given, str):
        return given
    parts: list[Any] = given if isinstance(given, list) else []
    if form == "text" or not any(isinstance(part, dict) and "role" in part for part in parts):
        return line
    if not isinstance(parts[-1], dict) or parts[-1].get("role") != "user":
        raise InputError("the last message of the prompt must have role 'user': the model writes the turn behind it")
    if problem := messages_problem([*parts, {"role": "assistant", "content": "-"}], "the prompt"):
        raise InputError(problem)
    return parts


def _assistant_turns(messages: Sequence[Any]) -> list[int]:
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def rendered(record: Mapping[str, Any], form: Form, tokenizer: Any) -> Rendered:
    """Return a record as one text with the parts to write in it; a part that is missing is not written.

    Raises:
        InputError: messages that the model's chat template cannot render.
    """
    if form == "text":
        return Rendered(record["text"], [(0, len(record["text"]))], by_template=False)
    if form == "messages":
        return _conversation(plain(record["messages"]), 0, tokenizer)
    prompt, completion = plain(record["prompt"]), plain(record.get("completion"))
    if isinstance(prompt, list):
        return _conversation([*prompt, *(completion or [])], len(prompt), tokenizer)
    text = prompt + (completion or "")
    return Rendered(text, [(len(prompt), len(text))] if completion else [], by_template=False)


def _conversation(messages: list[Any], first: int, tokenizer: Any) -> Rendered:
    """Render a conversation; the assistant's turns from number ``first`` on are written, with the token that ends each.

    A turn is left out where the template renders it in another way once others follow. Qwen 3 drops a turn's thoughts
    then; its last turn is whole.
    """
    text, answers = by_template(messages, tokenizer), []
    for turn in _assistant_turns(messages):
        before = by_template(messages[:turn], tokenizer, begin=True)
        after = by_template(messages[: turn + 1], tokenizer)
        if turn >= first and text.startswith(after) and after.startswith(before):
            answers.append((len(before), len(after)))
    return Rendered(text, answers, by_template=True)


def by_template(messages: list[Any], tokenizer: Any, *, begin: bool = False) -> str:
    """Return messages as the model's chat template renders them; with ``begin`` the assistant's turn is begun.

    The template sees role and content alone. Other keys, which some templates print, have been neither cut nor checked.

    Raises:
        InputError: the model has no chat template, or it refuses these messages, as Gemma's does a system turn.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            "the model has no chat template, which messages need; use a model for dialogue, or the columns prompt and "
            "completion with texts (task.form = 'completion')"
        )
    from jinja2 import TemplateError

    seen = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(seen, tokenize=False, add_generation_prompt=begin)
    except (TemplateError, TypeError, ValueError) as error:  # a template is a program of the base's makers
        roles = ", ".join(message["role"] for message in messages[:3])
        raise InputError(
            f"the model's chat template refuses messages with the roles {roles}: {error!s:.100}; change the messages, "
            "or use another base"
        ) from None
    return text


def opening(record: Mapping[str, Any], form: Form, tokenizer: Any) -> Rendered:
    """Return the text after which the model writes: a conversation up to the assistant's last turn, or a prompt."""
    if form == "text":
        return Rendered(record["text"], [], by_template=False)
    turns = plain(record["messages" if form == "messages" else "prompt"])
    if not isinstance(turns, list):
        return Rendered(turns, [], by_template=False)
    until = _assistant_turns(turns)[-1:] if form == "messages" else []
    return Rendered(by_template(turns[: until[0]] if until else turns, tokenizer, begin=True), [], by_template=True)


def reference_of(record: Mapping[str, Any], form: Form) -> str:
    """Return the text that the record has where the model writes; "" if it has none."""
    answer = plain(record.get("messages" if form == "messages" else "completion"))
    if form == "text" or not answer:
        return ""
    if isinstance(answer, str):
        return answer.strip()
    turns = _assistant_turns(answer)
    return str(answer[turns[-1]]["content"]).strip() if turns else ""


def shortened(value: Any, max_chars: int) -> Any:
    """Return a text cut, or messages until their texts have so many characters together, at most 256 messages.

    A template renders a conversation once for each turn, so a long one would take time for each pair of turns. A value
    of another form stays, for its fault to be named.
    """
    messages = plain(value)
    if not isinstance(messages, list):
        return value[:max_chars] if isinstance(value, str) else value
    kept, left = list[Any](), max_chars
    for message in messages[:_MAX_MESSAGES]:
        if left <= 0:
            break
        if isinstance(message, dict) and isinstance(content := message.get("content"), str):
            message = {**message, "content": content[:left]}  # noqa: PLW2901 - the message, cut
            left -= len(content)
        kept.append(message)
    return kept
