"""The statements of a run whose institutions share noise: what is whole agrees, and each lie is found."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.planting import plant
from support.sum_runs import Envelope, SumRun, canonical
from support.verifying import run_verify

from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing
from confide.common.verify import approved, command, run_directory, statements

Lie = Callable[[SumRun], object]


def _plan(run: SumRun) -> PrivacyPlan:
    fields = json.loads((run.folder / "privacy.json").read_text(encoding="utf-8"))["institutions"][0]["plan"]
    return PrivacyPlan(**{**fields, "sharing": Sharing(**fields["sharing"])})


def test_a_whole_run_agrees(sum_run: SumRun) -> None:
    code, output, _ = run_verify(sum_run.folder)
    assert code == 0, output
    assert "statements: 3, of 3 to 4 members" in output
    rows = json.loads((sum_run.folder / "privacy.json").read_text(encoding="utf-8"))["institutions"]
    assert {(row["max_colluding"], row["least_members"]) for row in rows} == {(1, 3)}
    assert "how many members of a secure sum collude, or did not add their noise" in output


def test_both_epsilons_stand_with_their_conditions(sum_run: SumRun) -> None:
    plan = _plan(sum_run)
    kept, broken = epsilon(plan), epsilon(plan.if_broken)
    assert broken > kept
    _, output, _ = run_verify(sum_run.folder)
    [line] = [line for line in output.splitlines() if line.startswith("'site-0'")]
    first, second = line.split(";")
    assert f"claimed {kept}, if at most 1 of a sum's members collude" in first
    assert f"claimed {broken}, if all others do" in second
    rows = json.loads(run_verify(sum_run.folder, as_json=True)[1])["checked"][1:]
    of_site_0 = rows[0]
    assert kept - 1e-4 <= of_site_0["epsilon"] <= kept == of_site_0["claimed"]
    assert broken - 1e-4 <= of_site_0["epsilon_if_broken"] <= broken == of_site_0["claimed_if_broken"]
    assert [row["claimed_if_broken"] for row in rows] == [broken, epsilon(plan.if_broken, 2, 0), broken, broken]


def test_what_a_crash_left_is_no_statement(sum_run: SumRun) -> None:
    sum_run.statement(1).with_name(".0004.json.7.ab.tmp").write_text("{", encoding="utf-8")
    assert run_verify(sum_run.folder)[0] == 0


# Lies about members. Unless one says otherwise all other files follow it, and its envelopes are signed anew.


def _signed(number: int, edit: Callable[[list[Envelope]], object], by: dict[int, str] | None = None) -> Lie:
    def lie(run: SumRun) -> None:
        members = run.members(number)
        edit(members)
        run.sign(number, members, by)

    return lie


def _written(edit: Callable[[Any], Any]) -> Lie:
    """The third statement, edited as JSON, without new signatures; text is written as it is."""

    def lie(run: SumRun) -> None:
        value = edit(json.loads(run.statement(3).read_text(encoding="utf-8")))
        run.write(3, value if isinstance(value, str) else canonical(value))

    return lie


def _without_site_1(run: SumRun) -> None:
    """Its events still name the other statement."""
    events = (run.folder / "events.jsonl").read_bytes()
    _signed(2, lambda members: members.pop(1))(run)
    (run.folder / "events.jsonl").write_bytes(events)


def _copied(run: SumRun) -> None:
    run.statement(4).write_bytes(run.statement(1).read_bytes())


def _copied_over(run: SumRun) -> None:
    run.write(3, run.statement(1).read_text(encoding="utf-8"))


def _deleted(number: int) -> Lie:
    return lambda run: run.statement(number).unlink()


def _deleted_with_its_start(number: int) -> Lie:
    def lie(run: SumRun) -> None:
        run.statement(number).unlink()
        run.edit_events(lambda event: event.update(event="x") if event["event"] == "sum_started" else None)

    return lie


def _without_asks(run: SumRun) -> None:
    """All that is left of an institution's steps are the statements that it signed."""

    def forget(event: Envelope) -> None:
        event.pop("what", None)
        event.pop("num_steps", None)
        event.update(event="x") if event["event"] == "accepted" else None

    run.edit_events(forget)
    run.edit_privacy(lambda content: content["institutions"][0].update(num_steps=2))


def _row(**changes: Any) -> Lie:
    return lambda run: run.edit_privacy(lambda content: content["institutions"][0].update(changes))


def _lowered(name: str) -> Lie:
    def lie(content: Envelope) -> None:
        content["institutions"][0][name] -= 2e-4

    return lambda run: run.edit_privacy(lie)


def _lock(section: str, **changes: Any) -> Lie:
    return lambda run: run.edit_run(lambda content: content[section].update(changes))


def _keys(edit: Callable[[Envelope], object]) -> Lie:
    return lambda run: run.edit_run(lambda content: edit(content["study"]["keys"]))


def _swap(keys: Envelope) -> None:
    keys["site-0"], keys["site-2"] = keys["site-2"], keys["site-0"]


def _one_key_for_two(run: SumRun) -> None:
    _keys(lambda keys: keys.update({"site-3": keys["site-0"]}))(run)
    _signed(1, lambda members: None, {3: "site-0"})(run)
    _signed(2, lambda members: None, {3: "site-0"})(run)
    _signed(3, lambda members: None, {2: "site-0"})(run)


def _unshared(run: SumRun) -> None:
    """The noise of the sum is passed off as an institution's own."""
    run.edit_privacy(lambda content: [row["plan"].pop("sharing") for row in content["institutions"]])
    _lock("federation", aggregation="fedavg")(run)


def _unshared_in_its_row(run: SumRun) -> None:
    run.edit_privacy(lambda content: content["institutions"][0]["plan"].pop("sharing"))


def _sharing(**changes: int) -> Lie:
    return lambda run: run.edit_privacy(lambda content: content["institutions"][0]["plan"]["sharing"].update(changes))


def _all(**changes: Any) -> Callable[[list[Envelope]], object]:
    return lambda members: [member.update(changes) for member in members]


def _one(**changes: Any) -> Callable[[list[Envelope]], object]:
    return lambda members: members[1].update(changes)


def _mask_key_of_another(members: list[Envelope]) -> None:
    members[1]["mask_key"] = members[0]["mask_key"]


def _other_institutions(run: SumRun) -> None:
    """They are made up, and the hash of the run is as before."""
    approved = run.run_sha256()
    run.make_up_institutions()
    run.edit_privacy(lambda content: content.update(run_sha256=approved))


def _read_keys(run: SumRun) -> None:
    run.edit_lock(lambda content: _swap(content["study"]["keys"]))


_OTHER = "9" * 64
LIES: dict[str, tuple[Lie, str]] = {
    "other institutions under the approved hash": (_other_institutions, "run.lock.json has not the hash"),
    "other keys for people to read": (_read_keys, "run.lock.toml and run.lock.json are different runs"),
    "no text of the run": (lambda run: (run.folder / "run.lock.json").unlink(), "run.lock.json is missing"),
    "a member too many": (_row(least_members=4), "least_members = 4, but plan and statements show 3"),
    "no word of the fewest": (_row(least_members=None), "least_members = None, but plan and statements show 3"),
    "more may collude than were said": (_row(max_colluding=0), "max_colluding = 0, but plan and statements show 1"),
    "a number as truth": (_row(max_colluding=True), "max_colluding = True, but plan and statements show 1"),
    "a member removed": (_without_site_1, "round 2: its events show another statement"),
    "a member removed everywhere": (_signed(1, lambda members: members.pop()), "4 shares were added, but 3 members"),
    "a member too few": (_signed(3, lambda members: members.pop()), "2 members are fewer than min_clients = 3"),
    "no members": (_signed(2, lambda members: members.clear()), "0 members are fewer than min_clients = 3"),
    "a member twice": (_signed(3, lambda members: members.insert(1, members[0])), "do not stand in the order"),
    "members in another order": (_signed(3, lambda members: members.reverse()), "do not stand in the order"),
    "a made-up member": (
        _signed(3, lambda members: members[2].update(institution="site-9"), {2: "site-3"}),
        "'site-9' is not in study.keys",
    ),
    "another's signature": (_signed(3, lambda members: None, {1: "site-3"}), "'site-2' is not signed by its key"),
    "no signature": (_written(lambda value: value["members"][0].pop() and value), "is not an envelope and a signature"),
    "a signature that is none": (
        _written(lambda value: value["members"][0].__setitem__(1, "zz") or value),
        "'site-0' is not signed by its key",
    ),
    "keys swapped": (_keys(_swap), "'site-2' is not signed by its key"),
    "a key that is gone": (_keys(lambda keys: keys.pop("site-2")), "'site-2' is not in study.keys"),
    "a key for two": (_one_key_for_two, "two institutions have the same key"),
    "a round copied": (_copied, "statement of round 4: the envelope of 'site-0' is of another round"),
    "a round copied over another": (_copied_over, "statement of round 3: the envelope of 'site-0' is of another round"),
    "a statement deleted": (_deleted(3), "round 3: its events show a sum, of which there is no statement"),
    "the statement of a void round deleted": (_deleted(2), "round 2: its events show a sum"),
    "a statement deleted with its start": (_deleted_with_its_start(3), "round 3: its events show a sum"),
    "an envelope of another input": (_signed(3, _one(input_sha256=_OTHER)), "'site-2' is of another input_sha256"),
    "an envelope of another base": (_signed(3, _one(base_sha256=_OTHER)), "'site-2' is of another base_sha256"),
    "an envelope of another run": (_signed(3, _one(run_sha256=_OTHER)), "'site-2' is of another run_sha256"),
    "an envelope of another study": (_signed(3, _one(study="other")), "'site-2' is of another study"),
    "an envelope of another lineage": (_signed(3, _one(lineage="9" * 32)), "'site-2' is of another lineage"),
    "an envelope of another round": (_signed(3, _one(round=1)), "'site-2' is of another round"),
    "an envelope of a rehearsal": (_signed(3, _one(what="rehearsal")), "what = 'rehearsal' is not 'share'"),
    "a statement of another run": (_signed(3, _all(run_sha256=_OTHER)), "'site-0' is of another run_sha256"),
    "a statement of another base": (_signed(3, _all(base_sha256=_OTHER)), "'site-0' is of another base_sha256"),
    "a statement of another study": (_signed(3, _all(study="other")), "'site-0' is of another study"),
    "a statement of another lineage": (_signed(3, _all(lineage="9" * 32)), "'site-0' is of another lineage"),
    "a mask key for two": (_signed(3, _mask_key_of_another), "two members have the same mask key"),
    "a mask key that is none": (_signed(3, _one(mask_key="key")), "mask_key = 'key'"),
    "a field too many": (_signed(3, _one(share_sha256=_OTHER)), "'share_sha256' is unknown"),
    "a field too few": (_signed(3, lambda members: members[1].pop("ledger_head")), "ledger_head is missing"),
    "a number that is not whole": (_signed(3, _one(round=3.0)), "round = 3.0"),
    "spaces in a statement": (_written(lambda value: json.dumps(value, sort_keys=True)), "it is not in canonical form"),
    "a line break after it": (_written(lambda value: canonical(value) + "\n"), "it is not in canonical form"),
    "spaces in an envelope": (
        _written(lambda value: {**value, "members": [[f" {text}", signed] for text, signed in value["members"]]}),
        "an envelope is not in canonical form",
    ),
    "another protocol": (_written(lambda value: {**value, "protocol": "confide-sum-2"}), "confide-sum-1 alone"),
    "a statement with more": (_written(lambda value: {**value, "void": True}), "confide-sum-1 alone"),
    "members by name": (_written(lambda value: {**value, "members": dict(value["members"])}), "confide-sum-1 alone"),
    "a statement that is a list": (_written(lambda value: [value]), "confide-sum-1 alone"),
    "a statement that is too deep": (_written(lambda value: "[" * 10**5), "'0003.json': maximum recursion depth"),
    "half a statement": (_written(lambda value: canonical(value)[:-9]), "'0003.json': it is not JSON"),
    "a folder as statement": (lambda run: run.statement(4).mkdir(), "'0004.json': 0004.json is no file"),
    "a file of another name": (
        lambda run: run.statement(1).rename(run.statement(1).with_name("1.json")),
        "'1.json': its name is not that of a round",
    ),
    "a round that is no number": (
        lambda run: run.edit_events(lambda event: event.update(round=[3]) if event.get("round") == 3 else None),
        "round [3]: its events show a sum",
    ),
    "a step that is not claimed": (_without_asks, "'site-0': num_steps = 2, but its files show 3"),
    "less epsilon if broken": (_lowered("epsilon_if_broken"), "epsilon_if_broken = "),
    "less epsilon of the plan if broken": (
        _lowered("epsilon_if_broken_of_the_whole_plan"),
        "epsilon_if_broken_of_the_whole_plan = ",
    ),
    "no epsilon if broken": (_row(epsilon_if_broken=None), "epsilon_if_broken = None"),
    "no word of it": (
        lambda run: run.edit_privacy(lambda content: content["institutions"][0].pop("epsilon_if_broken")),
        "epsilon_if_broken is missing",
    ),
    "another run": (lambda run: run.edit_privacy(lambda content: content.update(run_sha256=_OTHER)), "run_sha256"),
    "no run": (lambda run: run.edit_privacy(lambda content: content.pop("run_sha256")), "run_sha256 is missing"),
    "more noise of a share in the lock": (_lock("privacy", share_variance=2**40), "is not that of run.lock.toml"),
    "a coarser grid in the lock": (_lock("privacy", grid_bits=18), "is not that of run.lock.toml"),
    "nobody colludes in the lock": (_lock("privacy", max_colluding=0), "is not that of run.lock.toml"),
    "fewer members in the lock": (_lock("federation", min_clients=2), "is not that of run.lock.toml"),
    "more noise of a share": (_sharing(share_variance=2**38 + 17), "is not that of run.lock.toml"),
    "shares that are no shares": (_unshared, "its events show a secure sum, but its plan shares no noise"),
    "no shares in a row": (_unshared_in_its_row, "sharing = None is not that of run.lock.toml"),
    "no shares in the lock": (_lock("federation", aggregation="fedavg"), "is not that of run.lock.toml"),
}  # fmt: skip


def test_only_a_ledger_shows_that_people_approved_a_made_up_run(sum_run: SumRun) -> None:
    """All agrees, so an auditor is told what to compare, and with what."""
    approved = sum_run.run_sha256()
    sum_run.make_up_institutions()
    code, output, _ = run_verify(sum_run.folder)
    assert code == 0, output
    assert f"run_sha256: '{sum_run.run_sha256()}'" in output
    assert approved not in output
    assert "compare run_sha256 with the APPROVE row of an institution's ledger" in output


def _require_found(run: SumRun, name: str) -> None:
    code, output, errors = run_verify(run.folder)
    assert (code, errors) == (1, ""), output
    problems = [line for line in output.splitlines() if line.startswith("PROBLEM")]
    assert any(LIES[name][1] in problem for problem in problems), output


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_sum_is_found(name: str, sum_run: SumRun) -> None:
    LIES[name][0](sum_run)
    _require_found(sum_run, name)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (_lock("study", keys={"site-0": "AB" * 32}), "run.lock.toml: study.keys: update_key"),
        (_lock("study", keys={"site-0": 3}), "run.lock.toml: study.keys: update_key"),
        (_lock("evaluation", validation_every="2"), "run.lock.toml: validation_every = '2' must be int"),
        (_lock("study", keys=7), "run.lock.toml: study.keys must be a table"),
        (lambda run: run.edit_run(lambda content: content["privacy"].pop("grid_bits")), "run.lock.toml: grid_bits"),
        (lambda run: run.edit_run(lambda content: content["federation"].pop("min_clients")), "min_members = None"),
    ],
)
def test_a_lock_that_cannot_be_read_is_one_line(lie: Lie, words: str, sum_run: SumRun) -> None:
    lie(sum_run)
    code, output, errors = run_verify(sum_run.folder)
    assert (code, output) == (2, "")
    assert words in errors


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_of_a_statement_is_found(sum_run: SumRun, whole_sum_run: SumRun, data: st.DataObject) -> None:
    whole = whole_sum_run.statement(3).read_bytes()
    place, damage = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(max_size=20))
    content = whole[:place] + damage + whole[place + data.draw(st.integers(0, 40)) :]
    sum_run.statement(3).write_bytes(content)
    code, output, errors = run_verify(sum_run.folder)
    assert (code, errors) == (0 if content == whole else 1, ""), output


# Bugs of the verifier itself: each lets a lie pass

Planted = tuple[ModuleType, str, str, str]  # module, the right passage, the wrong one, a lie that then passes
PLANTED: list[Planted] = [
    (statements, "later <= earlier", "later < earlier", "a member twice"),
    (statements, "later <= earlier", "later == earlier", "members in another order"),
    (statements, "< len(statement.envelopes):\n", "< 1:\n", "a mask key for two"),
    (statements, "        if key is None:", "        if False:", "a made-up member"),
    (statements, "elif not _signed_by(", "elif False and not _signed_by(", "another's signature"),
    (statements, "elif not _signed_by(", "elif False and not _signed_by(", "keys swapped"),
    (statements, '"round": number, ', "", "a round copied"),
    (statements, '"lineage": lineages[0] if lineages else None', "", "an envelope of another lineage"),
    (statements, "lineages[0] if", 'statement.envelopes[0]["lineage"] if', "a statement of another lineage"),
    (statements, '"input_sha256": statement.envelopes[0]["input_sha256"]', "", "an envelope of another input"),
    (statements, '    if what != "share":', "    if False:", "an envelope of a rehearsal"),
    (statements, "faults(envelope, _ENVELOPE)", "faults(envelope, _ENVELOPE, only=False)", "a field too many"),
    (statements, '!= text:\n        raise', "!= text and False:\n        raise", "spaces in a statement"),
    (statements, '!= text:\n        raise', "!= text and False:\n        raise", "spaces in an envelope"),
    (statements, 'value != {"members": members, "protocol": _PROTOCOL}', "False", "another protocol"),
    (statements, "< agreed.min_members:", "< 0:", "a member too few"),
    (statements, "if len(set(agreed.keys.values())) < len(agreed.keys):", "if False:", "a key for two"),
    (statements, 'kind == "sum_started" or', "", "the statement of a void round deleted"),
    (statements, 'or (kind == "round" and accepted != 0)', "", "a statement deleted with its start"),
    (statements, 'event.get("statement_sha256") != statement.sha256', "False", "a member removed"),
    (statements, "accepted != len(statement.names)", "False", "a member removed everywhere"),
    (statements, 'number < 1 or path.name != f"{number:04d}.json"', "number < 1", "a file of another name"),
    (run_directory, '"run_sha256": content["run_sha256"], ', "", "a statement of another run"),
    (run_directory, '"study": study.get("name"), ', "", "a statement of another study"),
    (run_directory, ', "base_sha256": model.get("sha256")', "", "a statement of another base"),
    (run_directory, '{"sharing": None, **plan}', "plan", "no shares in a row"),
    (run_directory, '"epsilon_if_broken": (broken, *done), ', "", "less epsilon if broken"),
    (run_directory, "(broken, *whole)", "(plan, *whole)", "less epsilon of the plan if broken"),
    (run_directory, "broken = if_broken(plan)", "broken = plan", "less epsilon if broken"),
    (run_directory, '"min_members": flat.get("min_clients")', '"min_members": 3', "fewer members in the lock"),
    (run_directory, "!= value]", '!= value and name != "sharing"]', "more noise of a share in the lock"),
    (run_directory, 'if not shared and any(', "if False and any(", "shares that are no shares"),
    (run_directory, "for name, count in signed.items()", "for name, count in ()", "a step that is not claimed"),
    (approved, ".hexdigest() != run_sha256:", ".hexdigest() == 0:", "other institutions under the approved hash"),
    (approved, '"run.lock.json")) != run:', '"run.lock.json")) == 0:', "other keys for people to read"),
    (approved, '== "secure-sum":', '== "secure":', "no text of the run"),
    (statements, '("least_members", least))', '("least_members", row["least_members"]))', "a member too many"),
    (statements, '("least_members", least))', '("least_members", row["least_members"]))', "no word of the fewest"),
    (statements, 'row["plan"]["sharing"]["max_coll', 'row["max_coll', "more may collude than were said"),
    (statements, " or type(said) is not type(shown)", "", "a number as truth"),
    (run_directory, "run.problems += unreadable + ", "run.problems += ", "half a statement"),
]  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: f"{bug[3]}: {bug[1]}")
def test_a_bug_that_lets_a_lie_pass_is_caught(bug: Planted, sum_run: SumRun, monkeypatch: pytest.MonkeyPatch) -> None:
    module, right, wrong, name = bug
    LIES[name][0](sum_run)
    _require_found(sum_run, name)
    plant(monkeypatch, module, right, wrong)
    for user in (run_directory, command):
        for own in [own for own, value in vars(module).items() if own in vars(user) and callable(value)]:
            monkeypatch.setattr(user, own, getattr(module, own))
    with pytest.raises(AssertionError):
        _require_found(sum_run, name)
