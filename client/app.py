"""Flower's ClientApp of an institution: messages in, messages out. Everything else happens in functions it calls."""

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from confide.client.batches import BatchedUnits
from confide.client.site_config import Site
from confide.client.training import LocalWork, train
from confide.client.units import make_units, split_records
from confide.common.adapter import schema
from confide.common.errors import PolicyError
from confide.common.gate import RECEIVED_NORM_BOUND, dump_state, load_state
from confide.common.messages import Acceptance, Ask, Update, declined
from confide.common.privacy.coins import Coins, CoinSource
from confide.common.run_config import RunConfig, make_plan
from confide.common.warm_model import WarmModel, warm_model


def make_client_app(site_of: Callable[[Context], Site], coins: Callable[[], CoinSource] = Coins.fresh) -> ClientApp:
    """The ClientApp that all three engines run.

    Guarantee: whatever goes wrong, the reply is the same `declined`; Flower would send an exception's text, which
    can hold a private text, to the server.

    Args:
        site_of: the site that a message is for. Deployment always gives its own; a simulation maps its partitions.
        coins: makes the private coins of one round. Only tests pass anything but the default.
    """
    app = ClientApp()
    prepared: dict[tuple[str, str], BatchedUnits] = {}

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        site = site_of(context)
        try:
            ask = Ask.from_content(message.content)
            _check(RunConfig.model_validate_json(ask.run_json), site)
            answer = Acceptance(site.config.institution.name, site.config.dataset.declared_units).content()
        except Exception as error:  # noqa: BLE001 - see the guarantee
            site.report(error)
            answer = declined()
        return Message(answer, reply_to=message)

    @app.train()
    def update(message: Message, context: Context) -> Message:
        site = site_of(context)
        try:
            answer = _answer(Ask.from_content(message.content), site, prepared, coins).content()
        except Exception as error:  # noqa: BLE001 - see the guarantee
            site.report(error)
            answer = declined()
        return Message(answer, reply_to=message)

    return app


def _check(run: RunConfig, site: Site) -> None:
    """Whether this institution takes part in a run.

    Raises:
        PolicyError: the run asks for another unit than the dataset's, or for no privacy without leave.
    """
    dataset = site.config.dataset
    if run.privacy.unit == "none":
        if not site.config.policy.allow_no_privacy:
            raise PolicyError("privacy.unit = 'none' is refused: policy.allow_no_privacy is not set in site.toml")
    elif run.privacy.unit != dataset.unit:
        raise PolicyError(f"privacy.unit = {run.privacy.unit!r} is refused: the dataset's unit is {dataset.unit!r}")


def _answer(
    ask: Ask, site: Site, prepared: dict[tuple[str, str], BatchedUnits], coins: Callable[[], CoinSource]
) -> Update:
    run = RunConfig.model_validate_json(ask.run_json)
    _check(run, site)
    if run.model.sha256 is None:
        raise PolicyError("the run does not name the base model's sha256")
    model = warm_model(run, site.config.compute.device)
    received = load_state(ask.adapter, schema(model.module), RECEIVED_NORM_BOUND)
    key = (site.config.institution.name, ask.lineage)
    if key not in prepared:
        prepared[key] = _prepare(site, model)
    plan = make_plan(run, site.config.dataset.declared_units)
    work = LocalWork(plan, received, run.local.steps, run.local.learning_rate)
    change = train(work, model, prepared[key], coins())
    return Update.seal(ask, site.config.institution.name, run.model.sha256, dump_state(change))


def _prepare(site: Site, model: WarmModel) -> BatchedUnits:
    """The training share of a site, encoded once."""
    dataset, compute = site.config.dataset, site.config.compute
    train_records, _ = split_records(site.records(model.task), site.secret, dataset.validation_fraction)
    most = dataset.max_records_per_group if dataset.unit == "group" else 1
    table = make_units(train_records, model.task, model.tokenizer, site.secret, most)
    return BatchedUnits(table, model.pad_token_id, compute.tokens_per_micro_batch, model.device)
