"""`confide simulate --resume`: an interrupted simulation goes on, forgets no charge, and has all its rounds."""

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support.installations import write_site
from support.sites import make_records

from confide.client.site.installation import open_site
from confide.common.errors import ConfideError
from confide.common.verify.command import verify
from confide.simulations.engines.federation import simulate
from confide.simulations.engines.grid import Answer, Faults, no_faults
from confide.simulations.sites.unfinished import Unfinished
from confide.simulations.studies import prepared, study

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
NAMES = ["institution-1", "institution-2", "institution-3"]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _steps(out: Path) -> dict[str, int]:
    privacy = json.loads((out / "privacy.json").read_text(encoding="utf-8"))
    return {row["institution"]: row["num_steps"] for row in privacy["institutions"]}


def _reserved(rows: Path) -> dict[int, int]:
    """How many charges each round has."""
    rounds = [row["round"] for row in _lines(rows) if row["kind"] == "reserve"]
    return {number: rounds.count(number) for number in sorted(set(rounds))}


def _stopping(number: int, node: int, *, kind: str = "train", after: bool = False) -> Faults:
    """Ctrl-C at an institution of a round, before or after it has trained."""

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        meta = message.metadata
        here = (meta.group_id, meta.dst_node_id, meta.message_type) == (str(number), node, kind)
        if here and not after:
            raise KeyboardInterrupt
        replied = no_faults(message, answer)
        if here:
            raise KeyboardInterrupt
        return replied

    return fault


@pytest.fixture
def interrupted(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """``interrupted(faults, "federation.num_rounds=4")``: the folder of a run that Ctrl-C ended."""

    def call(faults: Faults, *pairs: str) -> Path:
        out = tmp_path / "out"
        with monkeypatch.context() as patch:
            patch.setattr(study, "simulate", functools.partial(simulate, faults=faults))
            code, _, errors = confide("simulate", run_file, "--out", out, "--quiet", *settings(*pairs))
        assert code == 130, errors
        assert f"`confide simulate --resume {out}` goes on after its last whole round" in errors
        return out

    return call


def _ends_well(out: Path, num_rounds: int) -> None:
    assert [line["round"] for line in _lines(out / "metrics.jsonl")] == list(range(1, num_rounds + 1))
    assert all(line["accepted"] == 3 for line in _lines(out / "metrics.jsonl"))
    assert json.loads((out / "privacy.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert (out / "report.html").is_file()
    assert not (out / "resume").exists()
    verify(out)


def test_an_interrupted_run_goes_on_and_what_was_sealed_is_sent_again_uncharged(
    confide: Confide, interrupted: Callable[..., Path]
) -> None:
    """Stopped before the second of three institutions trained: nobody trains twice, and every round has all three."""
    out = interrupted(_stopping(2, 1001), "federation.num_rounds=4")
    assert _reserved(out / "resume" / "ledger.jsonl") == {1: 3, 2: 1}
    seen: list[dict[int, int]] = []
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(Unfinished, "end", lambda self: seen.append(_reserved(self.folder / "ledger.jsonl")))
        code, output, errors = confide("simulate", "--resume", out, "--json", "--quiet")
    assert code == 0, errors
    assert seen == [{1: 3, 2: 3, 3: 3, 4: 3}], "each round is charged once, in the old process or in the new"
    assert json.loads(output)["num_rounds"] == 4
    Unfinished.open(out).end()
    _ends_well(out, 4)
    assert _steps(out) == dict.fromkeys(NAMES, 4)


def test_a_round_in_training_is_tried_once_more_under_a_charge_of_its_own(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in deployment: the first attempt's coins are gone, so everything is drawn anew and counts."""
    from confide.client.answers import round as round_module

    out, calls = tmp_path / "out", list[int]()

    def train(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:  # the second institution in round 2
            raise KeyboardInterrupt
        return real(*arguments)

    real = round_module.train
    sets = settings("federation.num_rounds=4", "federation.min_clients=2")
    with monkeypatch.context() as patch:
        patch.setattr(round_module, "train", train)
        assert confide("simulate", run_file, "--out", out, "--quiet", *sets)[0] == 130
    assert _reserved(out / "resume" / "ledger.jsonl") == {1: 3, 2: 2}
    code, _, errors = confide("simulate", "--resume", out, "--quiet")
    assert code == 0, errors
    accepted = [line["accepted"] for line in _lines(out / "metrics.jsonl")]
    assert accepted == [3, 3, 3, 2], "its plan has four steps, and one of them is lost"
    assert [line["round"] for line in _lines(out / "metrics.jsonl")] == [1, 2, 3, 4]
    verify(out)


@pytest.mark.parametrize(
    "faults",
    [_stopping(1, 1000), _stopping(0, 1001, kind="query.offer"), _stopping(3, 1002, after=True)],
    ids=["in round 1", "at the offer", "in the last round, after the last answer was sealed"],
)
def test_it_goes_on_from_anywhere(confide: Confide, interrupted: Callable[..., Path], faults: Faults) -> None:
    out = interrupted(faults, "federation.num_rounds=3")
    code, _, errors = confide("simulate", "--resume", out, "--quiet")
    assert code == 0, errors
    _ends_well(out, 3)


@pytest.mark.parametrize("place", ["studies.study._finish", "studies.study.run_baselines"])
def test_after_the_last_round_only_the_results_are_made(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(f"confide.simulations.{place}", interrupt)
        code, _, errors = confide("simulate", run_file, "--out", out, "--quiet", "--baselines")
    assert (code, f"--resume {out} --baselines`" in errors) == (130, True)
    code, output, errors = confide("simulate", "--resume", out, "--quiet", "--baselines", "--json")
    assert code == 0, errors
    assert json.loads(output)["baselines"].keys() == {"no_privacy", "central", "local_only"}
    _ends_well(out, 2)
    assert _steps(out) == dict.fromkeys(NAMES, 2)


def test_counts_of_a_round_that_was_interrupted_among_them_are_given_once(
    confide: Confide, interrupted: Callable[..., Path]
) -> None:
    pairs = ("federation.num_rounds=2", "evaluation.validation_every=1", "simulation.validation_fraction=0.3")
    out = interrupted(_stopping(1, 1002, kind="evaluate"), *pairs)
    code, _, errors = confide("simulate", "--resume", out, "--quiet")
    assert code == 0, errors
    assert all(len(line["validation"]) == 3 for line in _lines(out / "metrics.jsonl"))
    _ends_well(out, 2)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.waits),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.waits),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.waits),
    ],
)
def test_a_signal_in_mid_round_and_then_the_rest(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out, sets = (
        tmp_path / "out",
        settings("federation.num_rounds=30", "evaluation.every=30", "federation.min_clients=2"),
    )
    command = [sys.executable, "-m", "confide.common.cli.main", "simulate", str(run_file), "--out", str(out), *sets]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        events = out / "events.jsonl"
        while not (events.is_file() and '"event": "round", "round": 3' in events.read_text(encoding="utf-8")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert (f"`confide simulate --resume {out}`" in errors) == (number != signal.SIGKILL)
    assert "Traceback" not in errors
    ended, errors = confide("simulate", "--resume", out, "--quiet")[::2]
    assert ended == 0, errors
    accepted = [line["accepted"] for line in _lines(out / "metrics.jsonl")]
    assert len(accepted) == 30
    assert accepted.count(3) >= 29, "but for the steps of who was training"
    verify(out)


def test_a_torn_line_at_the_end_of_the_ledgers_is_passed_over_each_time(
    confide: Confide, interrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = interrupted(_stopping(2, 1000), "federation.num_rounds=2")
    with (out / "resume" / "ledger.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "res')
    with monkeypatch.context() as patch:
        patch.setattr(study, "simulate", functools.partial(simulate, faults=_stopping(2, 1002)))
        assert confide("simulate", "--resume", out, "--quiet")[0] == 130
    code, _, errors = confide("simulate", "--resume", out, "--quiet")
    assert code == 0, errors
    _ends_well(out, 2)


def test_a_secure_sum_goes_on_from_its_statement(confide: Confide, interrupted: Callable[..., Path]) -> None:
    """Shown to a person: no round starts in this process before the sum of the open one."""
    pairs = ("federation.aggregation=secure-sum", "federation.weights=declared", "federation.min_clients=3")
    out = interrupted(_stopping(2, 1001, kind="query.sum"), *pairs, "privacy.max_colluding=1")
    code, output, errors = confide("simulate", "--resume", out)
    assert code == 0, errors
    assert "round 2/2, 3/3 institutions" in output
    _ends_well(out, 2)


@pytest.mark.parametrize(("place", "code", "status"), [("start", 130, "interrupted"), ("load_last", 1, "stopped")])
def test_a_resumption_that_asks_nobody_accounts_for_what_was_spent(
    confide: Confide,
    interrupted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    code: int,
    status: str,
) -> None:
    def end(*arguments: object) -> None:
        raise KeyboardInterrupt if place == "start" else ConfideError("state.json cannot be read")

    out = interrupted(_stopping(2, 1001), "federation.num_rounds=3")
    with monkeypatch.context() as patch:
        patch.setattr(study, place, end)
        assert confide("simulate", "--resume", out, "--quiet")[0] == code
    assert _steps(out) == dict.fromkeys(NAMES, 2)
    assert json.loads((out / "privacy.json").read_text(encoding="utf-8"))["status"] == status
    assert _lines(out / "events.jsonl")[-1]["after_round"] == 1
    verify(out)


def test_what_cannot_be_resumed_is_refused_and_why(
    confide: Confide, interrupted: Callable[..., Path], run_file: Path, tmp_path: Path
) -> None:
    out = interrupted(_stopping(2, 1000), "federation.num_rounds=2")

    def refused(*options: object) -> str:
        code, output, errors = confide("simulate", *options)
        assert (code, output, len(errors.splitlines())) == (2, "", 1)
        return errors

    assert "a run.toml and --clients is refused: the run goes on as run.lock.toml has it" in refused(
        run_file, "--clients", 3, "--resume", out
    )
    assert "begun without --site" in refused("--resume", out, "--site", tmp_path / "site.toml")
    assert "--engine ray is refused" in refused("--resume", out, "--engine", "ray")
    assert "cannot be read; there is one only in the folder of" in refused("--resume", tmp_path / "none")
    with Unfinished.open(out).alone():
        assert "another `confide simulate` carries this run out" in refused("--resume", out)
    text = (out / "run.lock.toml").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("sha256 = ")]
    (out / "run.lock.toml").write_text(text.replace(line, f'sha256 = "{"0" * 64}"'), encoding="utf-8")
    assert "install the version that the study names" in refused("--resume", out)
    (out / "run.lock.toml").write_text(text, encoding="utf-8")
    assert confide("simulate", "--resume", out, "--quiet")[0] == 0
    assert "the run is completed" in refused("--resume", out)


def test_a_run_with_real_sites_goes_on_with_their_ledgers(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", list[object]()
    for number, name in enumerate(("st-mary", "st-jude")):
        records = make_records(20)[10 * number :][:10]
        options += ["--site", write_site(tmp_path / name, records, name=name)]
    sets = settings("federation.num_rounds=3")
    with monkeypatch.context() as patch:
        patch.setattr(study, "simulate", functools.partial(simulate, faults=_stopping(2, 1001)))
        code, _, errors = confide("simulate", run_file, *options, "--out", out, "--quiet", *sets)
    assert code == 130
    assert f"`confide simulate --resume {out} --site {options[1]} --site {options[3]}`" in errors
    assert "begun with --site" in confide("simulate", "--resume", out)[2]
    code, _, errors = confide("simulate", "--resume", out, "--quiet", *options)
    assert code == 0, errors
    reserved = [open_site(path).ledger.account().studies["small"].reserved_steps for path in options[1::2]]  # type: ignore[arg-type]
    assert reserved == [3, 3]
    assert [line["accepted"] for line in _lines(out / "metrics.jsonl")] == [2, 2, 2]
    verify(out)


# Before anything is begun


def test_what_can_be_refused_at_once_is_before_the_noise_is_looked_for(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "locked", lambda run: pytest.fail("the accounting was asked first"))
    for options, words in [
        (("--out", tmp_path), "new or empty"),
        (settings("simulation.data=none.jsonl"), "none.jsonl"),
        (settings("model.base=./nowhere"), "nowhere"),
        (settings("federation.min_clients=9"), "federation.min_clients = 9"),
        (("--site", tmp_path / "site.toml"), "site.toml"),
    ]:
        code, _, errors = confide("simulate", run_file, *options)
        assert (code, words in errors) == (2, True), errors


def test_ctrl_c_before_anything_is_begun_is_told_too(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepared, "locked", interrupt)
    code, _, errors = confide("simulate", run_file, "--out", tmp_path / "out")
    assert (code, errors) == (130, "confide: interrupted; nothing had begun\n")
    assert not (tmp_path / "out").exists()
