"""Flower's ClientApp of an institution: messages in, messages out. Everything else happens in functions it calls."""

from collections.abc import Callable

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from confide.client.answers.finished import keep_adapter
from confide.client.answers.offer import accept
from confide.client.answers.rehearsal import answer_rehearsal, answer_rehearsed_sum
from confide.client.answers.round import answer_update, answer_validation
from confide.client.answers.secure_round import answer_sum
from confide.client.site.installation import Institution, Site
from confide.client.training.shares import ClientProcess
from confide.common.protocol.answers import declined
from confide.common.protocol.versions import VersionError, other_versions
from confide.common.protocol.wire import answer_to

Answer = Callable[[RecordDict, Site, ClientProcess], RecordDict]
Reply = Callable[[Message, Context], Message]


def make_client_app(site_of: Callable[[Context], Site], client: ClientProcess | None = None) -> ClientApp:
    """The ClientApp that all three engines run.

    Guarantee: whatever goes wrong, the reply is the same `declined`; Flower would send an exception's text, which
    can hold a private text, to the server. A server of other versions is told ours, before anything is looked at.

    Args:
        site_of: the site that a message is for. Deployment always gives its own; a simulation maps its partitions.
            Where there is none it keeps the reason itself: here is nobody to report to.
        client: coins and clock. Only a simulation passes a clock, and only tests pass coins.
    """
    app, client = ClientApp(), client or ClientProcess()

    def replying(answer: Answer) -> Reply:
        def reply(message: Message, context: Context) -> Message:
            try:
                content = _guarded(answer, message, site_of(context), client)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - see the guarantee; why there is no site, site_of has kept
                content = declined()
            return answer_to(message, content)

        return reply

    app.query("offer")(replying(accept))
    app.query("rehearse")(replying(_without_data(answer_rehearsal)))
    app.query("rehearse_sum")(replying(_without_data(answer_rehearsed_sum)))
    app.query("sum")(replying(answer_sum))
    app.query("done")(replying(keep_adapter))
    app.train()(replying(answer_update))
    app.evaluate()(replying(answer_validation))
    return app


def _without_data(answer: Callable[[RecordDict, Institution, ClientProcess], RecordDict]) -> Answer:
    return lambda content, site, client: answer(content, site.without_data(), client)


def _guarded(answer: Answer, message: Message, site: Site, client: ClientProcess) -> RecordDict:
    try:
        return answer(message.content, site, client)
    except (KeyboardInterrupt, SystemExit):
        raise
    except VersionError as error:
        site.report(error)
        return other_versions()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it stays here; a panic of Rust is no Exception
        site.report(error)
        return declined()
