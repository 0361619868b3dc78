"""The institutions that take part: those that fit into one secure sum, by declared sizes, and the draw for a round.

The draw is public: it saves charges and traffic, but amplifies no privacy.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping

from confide.common.config.run import RunConfig, make_plan
from confide.common.config.sections import FederationSection
from confide.common.errors import InputError, PolicyError
from confide.common.privacy.plan import NoPrivacy
from confide.server.rounds.roster import Institution

Fitting = tuple[dict[int, Institution], dict[int, str]]  # who fits, and why the others do not; both by node


def draw(names: Iterable[str], federation: FederationSection, seed: int, number: int) -> set[str]:
    """Return the institutions that round ``number`` asks: the share `participation`, never fewer than the quorum.

    A round sorts the institutions by public hashes of their names and asks the first ones. So a resumed run asks the
    same ones again. If one has left, only the next in the line moves up.

    >>> federation = FederationSection(participation=0.5)
    >>> [sorted(draw("abcd", federation, 7, number)) for number in (1, 3, 1)]
    [['a', 'd'], ['c', 'd'], ['a', 'd']]
    """
    line = sorted(names, key=lambda name: hashlib.sha256(f"ask {seed} {number} {name}".encode()).digest())
    return set(line[: max(federation.min_clients, _share(federation, len(line)))])


def check_quorum(federation: FederationSection, count: int) -> None:
    """Check that rounds of ``count`` institutions can have a quorum; `InputError` before anything is written."""
    least = federation.min_clients
    if least > count:
        raise InputError(
            f"federation.min_clients = {least}, but there are {count} institutions; lower it or use more institutions"
        )
    if least > _share(federation, count):
        raise InputError(
            f"federation.participation = {federation.participation:g} of {count} institutions asks "
            f"{_share(federation, count)} in a round, fewer than federation.min_clients = {least}; raise the one or "
            "lower the other"
        )


def _share(federation: FederationSection, count: int) -> int:
    return max(1, round(federation.participation * count))


def room_problem(run: RunConfig, declared_units: int, size: int) -> str | None:
    """Return why a secure sum of institutions that declare so many units together does not fit its grid, or None.

    ``size`` counts the numbers of the adapter; of no units it alone is looked at.
    """
    plan = make_plan(run, max(1, declared_units))
    if isinstance(plan, NoPrivacy) or plan.sharing is None:
        return None
    return plan.sharing.room_problem(plan.expected_batch_size, size)


def require_room(institutions: Collection[Institution], run: RunConfig, size: int) -> None:
    """Check that a secure sum of these institutions fits its grid; of none, that the adapter does.

    Raises:
        PolicyError: it does not. The error names who declares the most.
    """
    problem = room_problem(run, sum(item.declared_units for item in institutions), size)
    if problem and institutions:
        largest = max(institutions, key=lambda item: item.declared_units)
        problem += f"; {largest.name} declares the most, declared_units = {largest.declared_units}"
    if problem:
        raise PolicyError(problem)


def with_room(joined: Mapping[int, Institution], there: Iterable[Institution], run: RunConfig, size: int) -> Fitting:
    """Return those who ``joined`` with whom a secure sum still fits its grid, and by node why the others do not."""
    units, refused = {item.name: item.declared_units for item in there}, dict[int, str]()
    for node, item in joined.items():
        with_it = {**units, item.name: item.declared_units}
        if problem := room_problem(run, sum(with_it.values()), size):
            refused[node] = _too_much(item, problem)
        else:
            units = with_it
    return {node: item for node, item in joined.items() if node not in refused}, refused


def at_first(accepted: Mapping[int, Institution], run: RunConfig, size: int) -> Fitting:
    """Return who takes part of those who accepted a first offer, and by node why the others do not.

    Whoever declares the most is left out until the rest fit, so that one large claim does not end the run of all. If
    fewer than ``min_clients`` would be left, nobody is left out, and `require_room` refuses the run.
    """
    staying, refused = dict(accepted), dict[int, str]()
    while problem := room_problem(run, sum(item.declared_units for item in staying.values()), size):
        if len(staying) <= run.federation.min_clients:
            return dict(accepted), {}
        largest = max(staying, key=lambda node: staying[node].declared_units)
        refused[largest] = _too_much(staying.pop(largest), problem)
    return staying, refused


def after_restart(
    accepted: Mapping[int, Institution], before: Mapping[str, Institution], run: RunConfig, size: int
) -> Fitting:
    """Return who takes part of those who accepted again after a restart, and by node why the others do not.

    Whoever was asked ``before``, by name, takes part again under the same declared size. Another size, or another
    name, has only the room that all of those leave, for some of them may return later.
    """
    known = {node: item for node, item in accepted.items() if _is_same(item, before.get(item.name))}
    others = {node: item for node, item in accepted.items() if node not in known}
    joined, refused = with_room(others, before.values(), run, size)
    return dict(sorted((known | joined).items())), refused


def _is_same(item: Institution, before: Institution | None) -> bool:
    return before is not None and item.declared_units == before.declared_units


def _too_much(item: Institution, problem: str) -> str:
    return f"declared_units = {item.declared_units} is too much for this run's secure sum: {problem}"
