"""Flower's Strategy: asks out, replies in, one round after the other."""

import time
from collections.abc import Callable, Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from confide.common.errors import ConfideError
from confide.common.model.scores import Accuracy
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import GateError
from confide.common.protocol.transfer import decode, encode
from confide.common.protocol.wire import MessageError
from confide.common.tensors import State, schema_of
from confide.server.aggregation import RULES, optimizer
from confide.server.rounds.collect import NO_ANSWER, NOT_ASKED, NOT_CONNECTED, collect, to_send
from confide.server.rounds.newcomers import Newcomers
from confide.server.rounds.offer import connected_quorum, offer_run, wait_for_return
from confide.server.rounds.participation import draw
from confide.server.rounds.roster import Institution, carry_counts_over, check_answer, take_in
from confide.server.rounds.round_answers import Answers
from confide.server.rounds.round_asks import make_ask, messages_of
from confide.server.rounds.run_context import Job

_ROUNDS_WITHOUT_QUORUM = 3  # in a row; then the run stops instead of spending on nothing


class ConfideStrategy(Strategy):
    """Asks institutions in rounds; gates, aggregates and applies what comes back in time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        saved = job.resumed.saved
        self.state = saved.state if saved else optimizer.start(job.initial)
        self.institutions: dict[int, Institution] = {}
        self.gone = job.resumed.everybody(job.run.federation)  # who took part before a crash, and does not now
        self.bytes_per_client_round = len(encode(job.initial, job.run.federation.transfer))
        self.finished = False
        self.accuracy: Accuracy | None = None  # of the released average, when it was last evaluated
        self.round = job.resumed.ended(job.run.federation)  # the last that ended
        self._asked: dict[int, Institution] = {}  # of the institutions, those of the round
        self._away: dict[int, Institution] = {}  # drawn for this round but not asked: offline, or no quorum
        self._answers = Answers()  # of the round
        self._ask: Ask | None = None

    def everybody(self) -> list[Institution]:
        """Return the institutions that take part, and those that did before a crash."""
        return [*self.institutions.values(), *self.gone]

    def summary(self) -> None:
        """Flower asks for a summary in its log; ours is the event of the run."""

    def start(  # noqa: PLR0913 - Flower's signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Offer the run, then carry out its rounds.

        Raises:
            ConfideError: too few accepted, three rounds in a row had no quorum, or the adapter grew too large to send.
        """
        arrays, config = to_arrays(self.state.adapter), train_config or ConfigRecord()
        if not self._begin(grid, num_rounds):
            return Result(arrays=arrays)
        self._restore_round(arrays, config, grid)
        failed = 0
        for number in range(self.round + 1, num_rounds + 1):
            self._welcome(grid, number)
            began, messages = time.monotonic(), list(self.configure_train(number, arrays, config, grid))
            if self.job.is_stopped():
                return Result(arrays=arrays)
            self._note("round_started", "update", number, list(self._asked.values()))
            replies = collect(grid, messages, self.job.clock.now() + timeout, self.job.clock, self._asked_again)
            aggregated, _ = self.aggregate_train(number, replies)
            failed = 0 if aggregated is not None else failed + 1
            if aggregated is not None:
                arrays = aggregated
                self.job.save(number, self.state, self._answers.accepted)
                self._validate(number, arrays, config, grid)
            if failed == _ROUNDS_WITHOUT_QUORUM:
                raise ConfideError(
                    f"round {number}: for the {failed}rd time in a row fewer than federation.min_clients = "
                    f"{self.job.run.federation.min_clients} institutions answered; see events.jsonl for the reasons"
                )
            self._end_round(number, time.monotonic() - began)
        self._end(num_rounds)
        return Result(arrays=arrays)

    def _begin(self, grid: Grid, num_rounds: int) -> bool:
        """Offer the run; False: an operator stopped it meanwhile. `PolicyError`: too few accepted."""
        federation, resumed = self.job.run.federation, self.job.resumed
        if self.round >= num_rounds and self.job.members is not None:  # nothing is left that anybody must agree to
            self._go_on_with(resumed.members(self.job.members))
            wait_for_return(self.job, grid, self.institutions)
            return True
        offered = offer_run(self.job, grid, make_ask(self.job, 0))
        if offered is None:
            return False
        self._go_on_with(offered.taking_part)
        self.job.emit(offered.event())
        offered.require(federation.min_clients)
        self._newcomers = Newcomers(self.job, offered)
        return True

    def _welcome(self, grid: Grid, number: int) -> None:
        """Take in who has accepted the run since it began, and offer it to who has come; a round waits for neither."""
        joined = self._newcomers.take(grid, number)
        self.institutions, self.gone = take_in(joined, self.institutions, self.gone)
        if number < self.job.run.federation.num_rounds:  # whoever accepts takes part from the next round on
            self._newcomers.offer(grid, make_ask(self.job, 0), self.institutions)

    def _go_on_with(self, institutions: dict[int, Institution]) -> None:
        self.institutions = institutions
        named = {item.name: item for item in institutions.values()}
        self.gone = carry_counts_over(named, self.job.resumed.institutions)

    def _end(self, num_rounds: int) -> None:
        if self.state.round == 0:
            raise ConfideError(
                f"none of {num_rounds} rounds had federation.min_clients = {self.job.run.federation.min_clients} good "
                "replies, so nothing was learnt; see events.jsonl for the reasons"
            )
        to_send(self.state.average, self.job.run.federation)  # it is given out, and has to pass the same gate
        if self.accuracy is None and self.job.evaluate:  # the last round ended before a crash
            self.accuracy = self.job.evaluate(self.state.average)
        self.finished = True

    def _restore_round(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        """Make up for what a crash took of a round after its checkpoint: its validation counts and its line."""
        saved, began = self.job.resumed.without_its_end(), time.monotonic()
        if saved is not None:
            self._asked = {of: item for of, item in self.institutions.items() if item.asks["update", saved.number]}
            self._answers = Answers.remembered(saved.number, saved.accepted, self.everybody())
            self._validate(saved.number, arrays, config, grid)
            self._end_round(saved.number, time.monotonic() - began)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One ask for each institution that the round draws and that is connected, all with the same content."""
        run, names = self.job.run, [item.name for item in self.institutions.values()]
        drawn = draw(names, run.federation, run.study.seed, server_round)
        chosen = {node: item for node, item in self.institutions.items() if item.name in drawn}
        self._asked = connected_quorum(self.job, grid, chosen)
        self._away = {node: item for node, item in chosen.items() if node not in self._asked}
        yield from self._asks("train", server_round, {name: array.numpy() for name, array in arrays.items()})

    def _asks(self, kind: str, server_round: int, state: State) -> Iterable[Message]:
        """One message of a kind for each that the round asks."""
        federation = self.job.run.federation
        self._ask = make_ask(self.job, server_round, to_send(state, federation))
        yield from messages_of(self._ask, kind, self._asked, federation.deadline_seconds)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Gate and aggregate replies one by one; drop a bad one with a reason, and never let it end the run.

        Returns:
            The new global adapter, or None when fewer than ``min_clients`` replies were good.
        """
        run, rule = self.job.run, RULES[self.job.run.federation.aggregation]
        total, self._answers = rule.init(), Answers()
        silent, shapes = dict(self._asked), schema_of(self.job.initial)
        for reply in replies:
            institution = silent.pop(reply.metadata.src_node_id)
            try:
                update = check_answer(reply, self._ask, "update", institution, run.model.sha256)
                self.job.resumed.require_known(server_round, institution.name, update.envelope.payload_sha256)
                state = decode(update.payload, shapes, run.federation.transfer, institution.norm_bound(run, shapes))
            except (GateError, MessageError) as error:
                self._drop(server_round, institution, str(error))
                continue
            declared = run.federation.weights == "declared"
            total = rule.add(total, state, float(institution.declared_units) if declared else 1.0)
            self._answers.accept(server_round, institution, update)
            self.job.emit({"event": "accepted", "round": server_round, "institution": institution.name})
        for institution in silent.values():
            self._drop(server_round, institution, NO_ANSWER)
        for institution in self._away.values():
            self._drop(server_round, institution, NOT_ASKED if institution.connected else NOT_CONNECTED)
        if (accepted := len(self._answers.accepted)) < run.federation.min_clients:
            self.job.emit({"event": "no_quorum", "round": server_round, "accepted": accepted})
            return None, None
        self.state = optimizer.apply(self.state, rule.result(total), run.federation)
        return to_arrays(self.state.adapter), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The rounds of the plan that ask for noised validation counts; the released average is what is judged."""
        every = self.job.run.evaluation.validation_every
        if every is None or self.job.run.privacy.unit == "none" or server_round % every:
            return
        yield from self._asks("evaluate", server_round, self.state.average)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the counts of those who share them; who declines is not asked why, and nothing is lost."""
        for reply in replies:
            institution = self._asked[reply.metadata.src_node_id]
            try:
                update = check_answer(reply, self._ask, "validation", institution, self.job.run.model.sha256)
                self._answers.take_counts(institution.name, update.payload)
            except (GateError, MessageError):
                continue
        return None

    def _validate(self, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        there = set(grid.get_node_ids())  # who has gone since is not waited for
        self._asked = {node: item for node, item in self._asked.items() if node in there}
        if messages := list(self.configure_evaluate(number, arrays, config, grid)):
            self._note("validation_started", "validation", number, list(self._asked.values()))
            deadline = self.job.clock.now() + self.job.run.federation.deadline_seconds
            self.aggregate_evaluate(number, collect(grid, messages, deadline, self.job.clock, self._asked_again))

    def _note(self, event: str, what: str, number: int, institutions: list[Institution]) -> None:
        """Count an ask, and write it down before it goes out: what was asked is known after any crash."""
        names = [item.name for item in institutions]
        self.job.emit({"event": event, "what": what, "round": number, "institutions": names})
        for institution in institutions:
            institution.ask(what, number, self.job.run)

    def _asked_again(self, ask: Message) -> None:
        what = "update" if ask.metadata.message_type == "train" else "validation"
        self._note("asked_again", what, int(ask.metadata.group_id), [self._asked[ask.metadata.dst_node_id]])

    def _drop(self, number: int, institution: Institution, reason: str) -> None:
        self._answers.drop(number, institution, reason)
        self.job.emit({"event": "dropped", "round": number, "institution": institution.name, "reason": reason})

    def _end_round(self, number: int, seconds: float) -> None:
        run, event = self.job.run, self._answers.event(number, self.job.run, self.everybody())
        if self.job.evaluate and (number % run.evaluation.every == 0 or number == run.federation.num_rounds):
            self.accuracy = self.job.evaluate(self.state.average)
            event["accuracy"] = self.accuracy.as_json()
        self.round = number  # before anybody hears of it, and stops the run
        self.job.emit({**event, "seconds": round(seconds, 3)})


def to_arrays(state: State) -> ArrayRecord:
    """A state as Flower's record."""
    return ArrayRecord({name: Array(value) for name, value in state.items()})
