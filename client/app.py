"""Flower's ClientApp of an institution: messages in, messages out. Everything else happens in functions it calls."""

from collections.abc import Callable
from functools import partial

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from confide.client.batches import BatchedUnits, batch_units
from confide.client.site_config import Site
from confide.client.training import LocalWork, train
from confide.client.units import make_units, split_records
from confide.common.adapter import schema
from confide.common.errors import PolicyError
from confide.common.gate import RECEIVED_NORM_BOUND, dump_state, load_state
from confide.common.messages import Acceptance, Ask, Update, declined
from confide.common.privacy.coins import Coins, CoinSource
from confide.common.run_config import RunConfig, make_plan
from confide.common.warm_model import WarmModel, forget_models, warm_model

Prepared = dict[str, tuple[str, BatchedUnits]]  # by institution: the run's hash, and its units encoded for that run
Answer = Callable[[Ask, Site, Prepared], RecordDict]


def make_client_app(site_of: Callable[[Context], Site], coins: Callable[[], CoinSource] = Coins.fresh) -> ClientApp:
    """The ClientApp that all three engines run.

    Guarantee: whatever goes wrong, the reply is the same `declined`; Flower would send an exception's text, which
    can hold a private text, to the server.

    Args:
        site_of: the site that a message is for. Deployment always gives its own; a simulation maps its partitions.
        coins: makes the private coins of one round. Only tests pass anything but the default.
    """
    app = ClientApp()
    prepared: Prepared = {}
    answered: set[tuple[str, str, int]] = set()

    def reply(message: Message, context: Context, answer: Answer) -> Message:
        try:
            site = site_of(context)
            content = _guarded(answer, message, site, prepared)
        except Exception:  # noqa: BLE001 - see the guarantee; without a site nobody can be told
            content = declined()
        return Message(content, reply_to=message)

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        return reply(message, context, _accept)

    @app.train()
    def update(message: Message, context: Context) -> Message:
        return reply(message, context, partial(_update, coins=coins, answered=answered))

    return app


def _guarded(answer: Answer, message: Message, site: Site, prepared: Prepared) -> RecordDict:
    try:
        return answer(Ask.from_content(message.content), site, prepared)
    except Exception as error:  # noqa: BLE001 - whatever it is, it stays here
        site.report(error)
        return declined()


def _accept(ask: Ask, site: Site, prepared: Prepared) -> RecordDict:
    """Agree to a run. The data are read and encoded here, before any round, where a bad file may still decline."""
    _ready(ask, site, prepared)
    return Acceptance(site.config.institution.name, site.config.dataset.declared_units).content()


def _update(
    ask: Ask, site: Site, prepared: Prepared, coins: Callable[[], CoinSource], answered: set[tuple[str, str, int]]
) -> RecordDict:
    """Train one round; each round of a run once, and no more rounds than its plan has."""
    run, model, units = _ready(ask, site, prepared)
    if not 1 <= ask.round <= run.federation.num_rounds:
        raise PolicyError(f"round {ask.round} is refused: the run has {run.federation.num_rounds}")
    this = (site.config.institution.name, ask.lineage, ask.round)
    if this in answered:
        raise PolicyError(f"round {ask.round} is refused: it was answered before")
    received = load_state(ask.adapter, schema(model.module), RECEIVED_NORM_BOUND)
    plan = make_plan(run, site.config.dataset.declared_units)
    work = LocalWork(plan, received, run.local.steps, run.local.learning_rate)
    answered.add(this)  # before anything is computed: what fails from here on has still been spent
    try:
        payload = dump_state(train(work, model, units, coins()))
    except BaseException:
        forget_models()
        raise
    return Update.seal(ask, site.config.institution.name, str(run.model.sha256), payload).content()


def _ready(ask: Ask, site: Site, prepared: Prepared) -> tuple[RunConfig, WarmModel, BatchedUnits]:
    """The run, its model and the training share, after every check that needs no adapter.

    Raises:
        PolicyError: the run asks for another unit than the dataset's, for no privacy without leave, or names no
            base model by its hash (`warm_model` compares it with the files).
    """
    run, dataset = RunConfig.model_validate_json(ask.run_json), site.config.dataset
    if run.canonical_json() != ask.run_json:
        raise PolicyError("the run is not in canonical form, so its hash is not the one to agree to")
    if run.privacy.unit == "none":
        if not site.config.policy.allow_no_privacy:
            raise PolicyError("privacy.unit = 'none' is refused: policy.allow_no_privacy is not set in site.toml")
    elif run.privacy.unit != dataset.unit:
        raise PolicyError(f"privacy.unit = {run.privacy.unit!r} is refused: the dataset's unit is {dataset.unit!r}")
    if run.model.sha256 is None:
        raise PolicyError("the run does not name the base model's sha256")
    model = warm_model(run, site.config.compute.device)
    # By the hash of the run: units encoded for other labels would make an answer depend on which classes are present.
    name = site.config.institution.name
    if name not in prepared or prepared[name][0] != ask.plan_sha256:
        prepared[name] = (ask.plan_sha256, _prepare(site, model))
    return run, model, prepared[name][1]


def _prepare(site: Site, model: WarmModel) -> BatchedUnits:
    """The training share of a site, encoded once."""
    dataset, compute = site.config.dataset, site.config.compute
    train_records, _ = split_records(site.records(model.task), site.secret, dataset.validation_fraction)
    most = dataset.max_records_per_group if dataset.unit == "group" else 1
    table = make_units(train_records, model.task, model.tokenizer, site.secret, most)
    return batch_units(table, model, compute.tokens_per_micro_batch)
