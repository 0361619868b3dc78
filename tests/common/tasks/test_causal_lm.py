"""Texts, completions and conversations: what a model learns to write, and which records are refused."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.families import SETTINGS, save_tiny
from support.kinds import of_kind, task_of, tiny
from support.tiny_bert import tiny_tokenizer
from transformers import BertConfig, BertLMHeadModel, GraniteConfig, GraniteForCausalLM

from confide.common.config.run import RunConfig
from confide.common.config.sections import ModelSection
from confide.common.errors import InputError
from confide.common.generation.language_model import LanguageModel
from confide.common.model import evaluation
from confide.common.model.adapter import get_state
from confide.common.model.evaluation import all_metrics, answer, samples, write
from confide.common.model.warm_model import WarmModel, warm_model


@pytest.fixture
def model(make_run: Callable[..., RunConfig]) -> WarmModel:
    return warm_model(of_kind(make_run(), "causal-lm"))


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation, the user first."""
    begin = [{"role": "system", "content": system}] if system else []
    return begin + [
        {"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(contents)
    ]


def learned(model: WarmModel, kind: str, record: dict[str, Any]) -> list[str]:
    """The texts of the runs of tokens that have a loss."""
    runs: list[list[int]] = [[]]
    for example in task_of(kind, max_length=128).examples(record, model.tokenizer):
        for token in example["target"]:
            if token != -100:
                runs[-1].append(token)
            elif runs[-1]:
                runs.append([])
    return [model.tokenizer.decode(run) for run in runs if run]


def test_the_assistant_s_turns_are_learned_with_the_token_that_ends_them(model: WarmModel) -> None:
    record = {"messages": turns("the film", "was good", "very good", "not bad", system="short")}
    assert learned(model, "causal-lm", record) == ["was good [SEP]", "not bad [SEP]"]


def test_a_completion_is_learned_and_its_prompt_is_read(model: WarmModel) -> None:
    kind = "causal-lm, completion"
    assert learned(model, kind, {"prompt": "the film was", "completion": " very good"}) == ["very good [SEP]"]
    messages = {"prompt": turns("the film", "was good", "long"), "completion": turns("", "not short")[1:]}
    assert learned(model, kind, messages) == ["not short [SEP]"], "of the prompt's turns none"


def test_a_text_is_learned_whole(model: WarmModel) -> None:
    assert learned(model, "causal-lm, text", {"text": "the film was good"}) == ["the film was good [SEP]"]


def test_a_turn_that_the_template_changes_later_is_not_learned(
    model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen 3 drops the thoughts of every turn but the last."""
    template = (
        "{% for m in messages %}[{{ m.role }}] {{ 'not' if loop.last and m.role == 'assistant' }} {{ m.content }} [SEP]"
        "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    record = {"messages": turns("the film", "was good", "very good", "bad")}
    assert learned(model, "causal-lm", record) == ["not bad [SEP]"]


def test_the_template_sees_role_and_content_alone(model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other keys hold has been neither cut nor checked, and some templates print it."""
    template = "{% for m in messages %}[{{ m.role }}] {{ m.reasoning_content }}{{ m.content }} [SEP]{% endfor %}"
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    said = turns("the film", "was good")
    other = [{**message, "reasoning_content": "bad " * 10_000} for message in said]
    task = task_of("causal-lm")
    assert task.examples({"messages": other}, model.tokenizer) == task.examples({"messages": said}, model.tokenizer)


def test_a_record_on_which_the_tokenizer_fails_has_a_reason(model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`confide client doctor` names its line; a traceback would hide all others."""
    monkeypatch.setattr(type(model.tokenizer), "apply_chat_template", lambda *_, **__: 1 / 0)
    why = task_of("causal-lm").why_no_example({"messages": turns("the film", "was good")}, model.tokenizer)
    assert why == "the base's tokenizer fails on it (ZeroDivisionError); change it, or remove the record"


def test_a_window_without_a_token_to_write_is_left_out(model: WarmModel) -> None:
    record = {"prompt": "the " * 100, "completion": "film"}
    task = task_of("causal-lm, completion", max_length=16)
    [window] = task.examples(record, model.tokenizer)
    assert model.tokenizer.decode([token for token in window["target"] if token != -100]) == "film [SEP]"
    assert task.examples({"prompt": "the"}, model.tokenizer) == []
    assert len(task_of("causal-lm, text", max_length=16).examples({"text": "the " * 100}, model.tokenizer)) == 2


def test_a_long_conversation_is_cut_by_its_characters_and_its_messages() -> None:
    """A template renders a conversation once for each turn."""
    task, record = task_of("causal-lm"), {"messages": turns("the film", "was good", "very", "bad")}
    assert task.cut(record, 11) == {"messages": turns("the film", "was")}
    assert task.cut(record, 10_000) == record
    assert len(task.cut({"messages": turns(*"a" * 1000)}, 10_000)["messages"]) == 256
    odd = {"messages": [None, {"role": "user"}, {"content": 3}]}
    assert task.cut(odd, 5) == odd


@pytest.mark.parametrize(
    ("kind", "record", "problem"),
    [
        ("causal-lm", {"messages": "the film"}, "messages is 'the film', must be a list of messages"),
        ("causal-lm", {"messages": []}, "must be a list of messages"),
        ("causal-lm", {"messages": [{"role": "user"}]}, "message 1 of messages is {'role': 'user'}, must be an object"),
        ("causal-lm", {"messages": turns("a")}, "messages has no message of the assistant; add one"),
        ("causal-lm", {"messages": turns("a", "b", " ")}, "content of message 3 is empty"),
        (
            "causal-lm",
            {"messages": turns("a", "b")[::-1]},
            "message 1 of messages has role 'assistant', must be 'user'",
        ),
        ("causal-lm", {"messages": turns("a", "b") * 2 + turns("c")[:1] * 2}, "message 6 .* must be 'assistant'"),
        ("causal-lm", {"messages": [{"role": "tool", "content": "x"}]}, "has role 'tool', must be 'user'"),
        ("causal-lm, completion", {"prompt": "a", "completion": turns("b", "c")}, "must both be texts, or both lists"),
        ("causal-lm, completion", {"prompt": turns("a"), "completion": []}, "no message of the assistant"),
        ("causal-lm, completion", {"prompt": turns("a", "b"), "completion": turns("c")}, "completion has no message"),
        ("causal-lm, completion", {"prompt": "a", "completion": ""}, "completion is empty"),
        ("causal-lm, text", {"text": 3}, "text is a number, must be a string"),
        ("seq2seq", {"source": "a", "target": None}, "target is empty"),
    ],
)
def test_a_record_of_another_shape_is_named(kind: str, record: dict[str, Any], problem: str) -> None:
    found = task_of(kind).check(record)
    assert found is not None
    assert re.search(problem, found), found


def test_a_base_that_cannot_write_is_refused_before_anything_is_charged(
    make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT reads what comes after a word; another family may do more with its logits; and dialogue needs a template."""
    BertLMHeadModel(BertConfig(vocab_size=200, **SETTINGS["bert"])).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    run = of_kind(make_run(), "causal-lm, text")
    with pytest.raises(InputError, match="its tokens see those that come after them"):
        warm_model(run.model_copy(update={"model": ModelSection(base=str(tmp_path / "bert"))}))
    scaled = {**SETTINGS["llama"], "logits_scaling": 3.0, "vocab_size": 200}
    GraniteForCausalLM(GraniteConfig(**scaled)).save_pretrained(tmp_path / "granite")
    tiny_tokenizer().save_pretrained(tmp_path / "granite")
    run = run.model_copy(update={"model": ModelSection(base=str(tmp_path / "granite"))})
    assert warm_model(run)
    shorter = run.model_copy(update={"task": task_of("causal-lm, text", max_length=32)})
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "logits", lambda self, states: self.base.get_output_embeddings()(states))
        with pytest.raises(InputError, match="does something to its logits that Confide does not know"):
            warm_model(shorter)
    with pytest.raises(InputError, match="no chat template, which messages need; use a model for dialogue"):
        warm_model(run.model_copy(update={"task": task_of("causal-lm")}))


def test_loading_a_base_holds_the_logits_of_a_few_tokens_alone(
    make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of two texts of 2,048 tokens, computed twice and compared, took 6 GB."""
    seen, own = list[int](), LanguageModel.own_logits
    monkeypatch.setattr(
        LanguageModel, "own_logits", lambda self, *given: seen.append(given[0].shape[1]) or own(self, *given)
    )
    run = of_kind(make_run(), "causal-lm, text")
    warm_model(run.model_copy(update={"task": task_of("causal-lm, text", max_length=96)}))
    assert seen == [64]


def test_a_template_without_the_assistant_and_a_decoder_without_start_are_named(
    make_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    for family, kind, problem in (
        ("llama", "causal-lm", "nothing can be learned of a made-up record"),
        ("t5", "seq2seq", "cannot do task.kind = 'seq2seq'"),
    ):
        base = save_tiny(family, tmp_path / family)
        template = "{% for m in messages if m.role == 'user' %}{{ m.content }} {% endfor %}"
        (base / "chat_template.jinja").write_text(template, encoding="utf-8")
        config = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"decoder_start_token_id": None}
        (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
        run = of_kind(make_run(), kind)
        with pytest.raises(InputError, match=problem):
            warm_model(run.model_copy(update={"model": ModelSection(base=str(base))}))


def test_what_is_written_has_metrics_beside_the_perplexity(model: WarmModel) -> None:
    records = [{"messages": turns("the film", "was good")}, {"messages": turns("bad", "very bad")}]
    metrics = all_metrics(model, records)
    assert metrics.keys() >= {"perplexity", "bleu", "chrf", "rouge-l", "exact match"}
    assert metrics["perplexity"] > 1
    assert all(isinstance(text, str) for text in write(model, records))
    task = task_of("causal-lm, text")
    assert task.reference({"text": "the film"}) == "", "a text has no reference"


def test_a_prompt_and_its_answer_fit_into_the_positions_of_the_base(make_run: Callable[..., RunConfig]) -> None:
    """GPT-2 has 128 here, and an index beyond them is an error of PyTorch."""
    run = of_kind(make_run(), "causal-lm, text").model_copy(update={"model": ModelSection(base=str(tiny("gpt2")))})
    model = warm_model(run.model_copy(update={"task": task_of("causal-lm, text", max_length=128, max_new_tokens=100)}))
    assert len(write(model, [{"text": "film " * 200}])) == 1


@pytest.mark.parametrize("kind", ["causal-lm", "causal-lm, completion", "causal-lm, text", "seq2seq"])
@pytest.mark.parametrize(
    ("line", "text"),
    [
        (r'"the film\n"', "the film\n"),
        (r'"\"film\""', '"film"'),
        *(
            (line, line)
            for line in ('"film" and', '["film"]', "[]", "3", "1" * 5000, "[" * 100_000, '{"role": "user"}', "")
        ),
    ],
)
def test_a_line_is_read_as_its_json_string_or_as_it_stands(kind: str, line: str, text: str) -> None:
    """A prompt may end with a line break, which no line holds."""
    [value] = task_of(kind).from_line(line).values()
    assert value == (turns(text) if kind == "causal-lm" else text)


@pytest.mark.parametrize("prompt", [turns("the\nfilm"), turns("the film", "was good", "very good?", system="short")])
@pytest.mark.parametrize("kind", ["causal-lm", "causal-lm, completion"])
def test_a_line_of_messages_gives_the_prompt_that_was_trained(
    model: WarmModel, kind: str, prompt: list[dict[str, str]]
) -> None:
    task, answer = task_of(kind, max_length=128), {"role": "assistant", "content": "bad"}
    record = {"messages": [*prompt, answer], "prompt": prompt, "completion": [answer]}
    [trained] = task.examples(record, model.tokenizer)
    asked = task.from_line(json.dumps(prompt))
    given = task.prompt(asked, model.tokenizer)
    assert given == trained["input_ids"][: len(given)]
    assert model.tokenizer.decode(trained["input_ids"][len(given) :]) == "bad [SEP]"
    assert task.reference(asked) == ""


def test_a_prediction_answers_the_last_turn_and_a_score_the_last_known_one(
    model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record that ends with the user's turn; one that ends with the assistant's is asked the same by all."""
    asked: list[list[int]] = []

    def note(_module: Any, _tokenizer: Any, prompts: list[list[int]], *_: Any) -> list[str]:
        asked.extend(prompts)
        return ["bad"] * len(prompts)

    monkeypatch.setattr(evaluation, "write_texts", note)
    first, last = (
        model.task.prompt({"messages": turns(*texts, "")}, model.tokenizer)
        for texts in (["the film"], ["the film", "was good", "very bad"])
    )
    for record, predicted in (
        ({"messages": turns("the film", "was good", "very bad")}, last),
        ({"messages": turns("the film", "was good")}, first),
    ):
        assert answer(model, [record]) == ["bad"]
        all_metrics(model, [record])
        [sample] = samples(model, get_state(model.module), [record])
        assert asked == [predicted, first, first]
        assert sample["right"] == "was good"
        asked.clear()


@pytest.mark.parametrize(
    ("kind", "messages", "problem"),
    [
        ("causal-lm", turns("a", "b"), "last message of the prompt must have role 'user'"),
        ("causal-lm", [*turns("a"), 3], "last message of the prompt must have role 'user'"),
        (
            "causal-lm",
            [{"role": "tool", "content": "x"}, *turns("a")],
            "message 1 of the prompt has role 'tool', must be",
        ),
        ("causal-lm, completion", turns("a", "b", " "), "content of message 3 is empty"),
        ("causal-lm, completion", [{"role": "user"}], "message 1 of the prompt is {'role': 'user'}, must be an object"),
    ],
)
def test_a_line_of_messages_that_no_model_goes_on_from_is_named(kind: str, messages: list[Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        task_of(kind).from_line(json.dumps(messages))


@pytest.mark.parametrize("kind", ["causal-lm", "causal-lm, completion", "causal-lm, text", "seq2seq"])
def test_a_text_of_the_python_interface_is_no_json(kind: str) -> None:
    [value] = task_of(kind).from_text('"Save file"').values()
    assert value in ('"Save file"', turns('"Save file"'))


@pytest.mark.parametrize("kind", ["causal-lm", "causal-lm, completion", "causal-lm, text"])
def test_the_program_begins_a_prompt_as_we_do_where_texts_begin_with_a_token(model: WarmModel, kind: str) -> None:
    """As Llama's do. A chat template puts that token in itself."""
    task, tokenizer = task_of(kind), deepcopy(model.tokenizer)
    tokenizer.bos_token = tokenizer.cls_token
    asked: list[list[int]] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(input_ids[0].tolist())
        return input_ids

    lines = ["the film", json.dumps("the\nfilm"), json.dumps(turns("the\nfilm"))][
        : 2 if kind == "causal-lm, text" else 3
    ]
    for line in lines:
        names = {"text": line, "tokenizer": tokenizer, "model": SimpleNamespace(generate=generate), "torch": torch}
        exec(compile(task.program(), "predict.py", "exec"), names)  # noqa: S102 - our own card
    assert asked == [task.prompt(task.from_line(line), tokenizer) for line in lines]
    assert [ids[0] == tokenizer.bos_token_id for ids in asked] == [kind != "causal-lm"] * 2 + [False] * (len(lines) - 2)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompts_of_other_lengths_change_no_text(make_run: Callable[..., RunConfig], family: str) -> None:
    """Short prompts are filled up on the left, where attention does not look, and positions count from the text on."""
    run = of_kind(make_run(), "causal-lm, text")
    model = warm_model(run.model_copy(update={"model": ModelSection(base=str(tiny(family)))}))
    if family == "gpt2":  # Llama's positions are relative; here they are added, and so large that each one is seen
        model.module.base.transformer.wpe.weight.data *= 50
    records = [model.task.from_text(text) for text in ("film", "the film was very very long and not good", "bad")]
    assert write(model, records) == [write(model, [record])[0] for record in records]
