import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from confide.common.config.run import RunConfig, check, load_run, lock, make_plan
from confide.common.errors import InputError
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan

TOML = '[study]\nname = "test"\n[task]\nlabels = ["negative", "positive"]\n'


def _load(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text(text)
    return load_run(path, list(overrides))


def test_a_run_needs_a_name_and_labels_only(tmp_path: Path) -> None:
    run = _load(tmp_path, TOML)
    assert (run.privacy.unit, run.adapter.train, run.local.steps) == ("record", "B", 1)
    assert run.num_steps == 40


def test_overrides_are_read_as_toml_and_a_bare_word_is_a_string(tmp_path: Path) -> None:
    run = _load(
        tmp_path, TOML, "federation.num_rounds=10", "local.steps=3", "privacy.unit=none", "adapter.targets=['q']"
    )
    assert (run.num_steps, run.privacy.unit, run.adapter.targets) == (30, "none", ("q",))


@pytest.mark.parametrize("override", ["federation", "num_rounds=10", "federation.=3", ".x=3"])
def test_an_override_of_another_form_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"section\.key=value|is not a key"):
        _load(tmp_path, TOML, override)


def test_an_override_of_a_section_that_is_not_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        _load(tmp_path, "study = 5\n", "study.name=test")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("privacy.epsilon=3", "run.toml: privacy.epsilon = 3: is not a key that exists here"),
        ("privacy.unit=token", "privacy.unit = 'token'"),
        ("local.sampling_probability=1.4", "local.sampling_probability = 1.4: must be at most 1"),
        ("study.seed=-1", "study.seed = -1"),
        ("study.name='No Name'", "study.name = 'No Name'"),
        ("task.labels=['a']", "task.labels = ['a']: must have at least 2 entries, has 1"),
        ("task.label=['a']", "task.label = ['a']: is not a key that exists here (is 'labels' meant?)"),
        ("federaton.num_rounds=3", "is not a key that exists here (is 'federation' meant?)"),
        ("federation.zzz=3", "is not a key that exists here;"),
        ("federation.num_rounds='vier'", "federation.num_rounds = 'vier': must be a whole number, without quotes"),
        ("task.labels=['a', 'a']", "must be distinct"),
        ("task.kind='poetry'", "task.kind = 'poetry': must be one of 'text-classification', "),
        ("adapter.layers='top:0'", "adapter.layers"),
        ("model.sha256='x'", "model.sha256"),
        ("simulation.partition='natural'", "simulation.data: is missing"),
    ],
)
def test_an_error_names_file_key_value_and_rule(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        _load(tmp_path, TOML, override)


@pytest.mark.parametrize("key", ["privacy.target_epsilon", "privacy.clip_norm", "privacy.noise_multiplier"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(InputError, match=key):
        _load(tmp_path, TOML, f"{key}={value}")


@pytest.mark.parametrize("text", ["[study", "\x00", '[study]\nname = "a"\nname = "b"'])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"run.toml: .* not TOML"):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# Köln".encode("latin-1"), "line 1 is not UTF-8; save the file as UTF-8"),
        (TOML.encode("utf-16"), "line 1 is not UTF-8"),
        (b"[study]\nseed = 3,0", "line 2 is not TOML: seed = 3,0 .*; a number has a point, no comma"),
        (rb'a = "C:\Users\x"', r"line 1 is not TOML: a = .* write / or single quotes"),
        (b"b = 1 # \xc2\x85 \x1b[2J", r"line 1 is not TOML: b = 1 # \\x85 \\x1b\[2J \("),
    ],
    ids=["Latin-1", "UTF-16", "a decimal comma", "a path of Windows", "signs that move a cursor or end a line"],
)
def test_a_line_that_cannot_be_read_is_shown_with_the_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_run(path)


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    """As Windows' editors write it."""
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TOML.replace("\n", "\r\n").encode())
    assert load_run(path).study.name == "test"


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: there is no such file"):
        load_run(tmp_path / "none.toml")


def test_a_natural_partition_needs_its_column() -> None:
    for simulation in ({"data": "x.csv", "partition": "natural"}, {"data": "x.csv", "by": "site"}):
        with pytest.raises(InputError, match="'by' names the column"):
            check(RunConfig, {"study": {"name": "t"}, "task": {"labels": ["a", "b"]}, "simulation": simulation}, "x")


def test_what_institutions_agree_to_is_everything_but_simulation_and_speed(make_run: Any) -> None:
    run = make_run()
    same = make_run(speed={"tokens_per_micro_batch": 64}, simulation={"data": "x.csv"})
    assert same.sha256() == run.sha256()
    for section, values in {
        "study": {"seed": 8},
        "model": {"sha256": "0" * 64},
        "adapter": {"rank": 5},
        "task": {"max_length": 63},
        "federation": {"num_rounds": 41},
        "local": {"sampling_probability": 0.2},
        "privacy": {"clip_norm": 2.0},
        "evaluation": {"every": 6},
    }.items():
        assert make_run(**{section: values}).sha256() != run.sha256()


def test_a_plan_takes_every_value_from_the_run_and_the_site(make_run: Any) -> None:
    run = make_run(
        federation={"num_rounds": 7},
        local={"steps": 3, "sampling_probability": 0.2},
        privacy={
            "unit": "group",
            "clip_norm": 0.5,
            "clipping": "abadi",
            "noise_multiplier": 1.5,
            "target_delta": 1e-6,
            "head_weight": 0.3,
        },
    )
    assert make_plan(run, 150) == PrivacyPlan("group", 0.2, 21, 150, 0.5, "abadi", 1.5, 1e-6, 0.3)


def test_without_privacy_the_plan_is_of_another_type(make_run: Any) -> None:
    run = make_run(privacy={"unit": "none"}, federation={"num_rounds": 7})
    assert make_plan(run, 150) == NoPrivacy(0.1, 7, 150)


def test_a_run_that_is_not_locked_has_no_plan(make_run: Any) -> None:
    with pytest.raises(ValueError, match="not locked"):
        make_plan(make_run(privacy={"noise_multiplier": None}), 150)


def test_a_locked_run_meets_its_target_over_all_its_steps(make_run: Any) -> None:
    run = make_run(federation={"num_rounds": 10}, local={"steps": 2}, privacy={"noise_multiplier": None})
    locked = lock(run, "0" * 64)
    plan = make_plan(locked, 150)
    assert isinstance(plan, PrivacyPlan)
    assert plan.num_steps == 20
    assert 2.9 < epsilon(plan) <= 3.0
    assert locked.model.sha256 == "0" * 64
    assert lock(locked, "0" * 64) == locked


def test_noise_that_is_given_stays(make_run: Any) -> None:
    assert lock(make_run(privacy={"noise_multiplier": 0.7}), "0" * 64).privacy.noise_multiplier == 0.7


def test_another_base_model_is_refused(make_run: Any) -> None:
    with pytest.raises(InputError, match=f"model.sha256 = {'1' * 64}, but the files"):
        lock(make_run(model={"sha256": "1" * 64}), "0" * 64)


def test_a_target_that_no_noise_reaches_is_refused(make_run: Any) -> None:
    with pytest.raises(InputError, match="target_delta"):
        lock(make_run(privacy={"noise_multiplier": None, "target_delta": 1e-30}), "0" * 64)


def test_a_run_too_large_for_a_message_is_refused_before_anything_is_sent(make_run: Any) -> None:
    labels = [f"label {number}" for number in range(20_000)]
    with pytest.raises(InputError, match="at most 65536 can be sent; shorten its labels"):
        lock(make_run(task={"labels": labels}), "0" * 64)


def test_a_noise_that_is_given_sets_the_target(make_run: Any) -> None:
    """Otherwise a report would say "epsilon at most 3" of a run that spends 8."""
    locked = lock(make_run(privacy={"noise_multiplier": 0.5, "target_epsilon": 3.0}), "0" * 64)
    assert locked.privacy.noise_multiplier == 0.5
    assert locked.privacy.target_epsilon == epsilon(make_plan(locked, 150)) > 3.0


def test_no_accountant_runs_for_noise_that_is_none(tmp_path: Path) -> None:
    """It would take minutes and gigabytes before the refusal."""
    run = _load(tmp_path, TOML, "privacy.noise_multiplier=0.1", "local.sampling_probability=0.9")
    never = SimpleNamespace(calibrate=lambda plan, target: replace(plan, noise_multiplier=9.0), epsilon=None)
    with pytest.raises(InputError, match=r"gives epsilon \d+.* at least, must be at most 100"):
        lock(run, "0" * 64, never)  # type: ignore[arg-type]


def test_a_key_that_a_stranger_chose_cannot_control_the_terminal() -> None:
    with pytest.raises(InputError) as refused:
        check(RunConfig, {"study": {"name": "s"}, "task": {"labels": ["a", "b"]}, "\x1b]0;owned\x07": 1}, "run.json")
    assert "\\x1b]0;owned\\x07 = 1: is not a key" in str(refused.value)
    assert str(refused.value).isprintable()
