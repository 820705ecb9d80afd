"""The Flower ClientApp: a message in, a site's answer out.

`make_app` lets each Grid say which site a message is for; `app` is the one that the
resident client and stock Flower load: it finds site.toml in the node's configuration.
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
from guilder_shared.errors import GuilderError
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


_open: dict[str, Site] = {}


def _find(context: Context) -> Site:
    """The site of a site.toml, opened once a process."""
    from guilder_client.settings import SiteFile

    path = str(context.node_config[SITE_FILE])
    if path not in _open:
        _open[path] = Site.open(SiteFile.load(Path(path)))
    return _open[path]


app = make_app(_find)
