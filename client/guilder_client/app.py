"""The Flower ClientApp: a message in, a site's answer out.

`make_app` lets each Grid say which site a message is for; `app` is the one that stock
Flower loads: it finds site.toml in the node's configuration.
No exception leaves here: what a site says besides a noised update is one of five words.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared import wire
from guilder_shared.errors import GuilderError, NetworkError
from guilder_shared.messages import Answer, TurnReply, Verdict

SITE_FILE: Final = "site"  # key in the node's configuration
log = logging.getLogger(__name__)


def make_app(find: Callable[[Context], Site]) -> ClientApp:
    """A ClientApp that answers for the site that `find` names."""
    app = ClientApp()

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        site = find(context)
        try:
            answer = policy.consider(site, wire.decode_offer(message.content))
        except GuilderError as error:
            answer = Answer(Verdict.REFUSED_BY_POLICY, site.name, reason=error.brief())
        log.info("offer: %s %s", answer.verdict, answer.reason)
        return Message(wire.encode_answer(answer), reply_to=message)

    @app.query("close")
    def close(message: Message, context: Context) -> Message:
        site = find(context)
        verdict = Verdict.DONE
        try:
            turn.close(site, wire.decode_close(message.content))
        except GuilderError as error:
            log.warning("close: %s", error)
            verdict = Verdict.REFUSED_BY_POLICY
        answer = Answer(verdict, site.name)
        return Message(wire.encode_answer(answer), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = find(context)
        try:
            request = wire.decode_request(message.content)
        except GuilderError as error:
            reply = TurnReply(Verdict.REFUSED_BY_POLICY, "", 0, 0, reason=error.brief())
        else:
            reply = turn.take(site, request)
            log.info("round %s: %s", request.round_no, reply.verdict)
        return Message(wire.encode_reply(reply), reply_to=message)

    return app


class StockApp(ClientApp):
    """The same answers on stock Flower, whose SuperNode makes a process a message.

    The site is opened for one message and shut before its reply leaves: the ledger
    has one writer, and the next message may be in another process by then.
    """

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message.

        Raises:
            RuntimeError: With one constant word; Flower sends an exception's text to
                the server, and the reason is for this site's log alone.
        """
        try:
            site = _open(context)
            try:
                return make_app(lambda _context: site)(message, context)
            finally:
                site.ledger.shut()
        except Exception as error:
            told = error if isinstance(error, GuilderError) else type(error).__name__
            log.error("no answer: %s", told)
            raise RuntimeError("turn-failed") from None


def _open(context: Context) -> Site:
    """The site whose site.toml the SuperNode's configuration names."""
    from guilder_client.settings import SiteFile

    path = str(context.node_config.get(SITE_FILE, ""))
    if not path:
        raise NetworkError(
            "GLD-N071",
            f"the SuperNode's configuration has no {SITE_FILE!r}",
            fix=f"flower-supernode --node-config '{SITE_FILE}=\"/…/site.toml\"'",
        )
    return Site.open(SiteFile.load(Path(path)))


app = StockApp()
