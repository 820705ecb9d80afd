"""Asking every server that may know this ledger better, before the site spends.

The server of a study says what it remembers in each of its messages; all others that
were sent a result are asked here: when the client starts, each time its connection was
lost (as after a virtual machine was put back), and before each new study. No answer
means no spending, unless the officer has excused the server. It writes nothing.

Review, mathematics: a question holds nothing; an answer is a number and a hash that
this site sent itself. Which other servers there are is for the site's own log: what is
refused says to the server of the study only that something is waited for.
Review, crash order: what was heard is kept in memory, so a restarted client asks anew.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from guilder_client import outbound
from guilder_client.rollback import demand_newest
from guilder_client.settings import ProxyLines, SiteFile
from guilder_shared import tls, witnessing
from guilder_shared.errors import GuilderError, IntegrityError, PolicyRefused
from guilder_shared.messages import Head
from guilder_shared.privacy.ledger import Ledger

log = logging.getLogger(__name__)
NOT_HEARD = "GLD-S050"
ANSWER_S = 5.0  # for each step of a question
RETRY_S = 1.0  # between two rounds of questions of which one had no answer


@dataclass(frozen=True)
class Question:
    """Whom to ask, and how."""

    server: str  # its name in the ledger
    address: str
    keys: tls.KeyFiles
    proxy: ProxyLines | None = None


@dataclass
class Witnesses:
    """The servers that this site must hear before it spends.

    Attributes:
        settings: Of the site: its own server, its keys and `[witness.…]`.
    """

    settings: SiteFile
    _heard: set[str] = field(default_factory=set)
    _missed: dict[str, str] = field(default_factory=dict)  # server: why, as logged
    _failed_at: float = -RETRY_S
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Ask all of them anew: the client is online again after it was not."""
        with self._lock:
            self._heard.clear()

    def demand_heard(self, ledger: Ledger, *, anew: bool = False) -> None:
        """Raise unless every server was heard and knows no newer ledger.

        Args:
            ledger: Of the site.
            anew: Ask also those that were heard since the client came online.

        Raises:
            PolicyRefused: One could not be asked (GLD-S050).
            IntegrityError: One knows a newer ledger (GLD-I080) or another one
                (GLD-I081). What it says to the server is in the log.
        """
        with self._lock:
            if anew:
                self._heard.clear()
            wanted = [q for q in self._questions(ledger) if q.server not in self._heard]
            if not wanted:
                return
            time.sleep(max(0.0, self._failed_at + RETRY_S - time.monotonic()))
            missed = {q.server: why for q in wanted if (why := self._ask(ledger, q))}
            self._tell(missed)
            if missed:
                self._failed_at = time.monotonic()
                raise _not_heard(ledger.site, missed)

    def greet(self, ledger: Ledger) -> None:
        """Ask all at the client's start; what is wrong stands in the log at once."""
        try:
            self.demand_heard(ledger)
        except GuilderError as error:
            log.error("%s", error)

    def _questions(self, ledger: Ledger) -> Iterator[Question]:
        keys, known = self.settings.keys, ledger.witnesses()
        listed = {line.ledger_name: line for line in self.settings.witness.values()}
        sent = {server for server, witness in known.items() if witness.heads}
        for server in sorted({*sent, *listed} - {self.settings.site.ledger_name}):
            if server in known and known[server].excused:
                continue
            line = listed.get(server)
            files = (
                (line and line.key) or keys.key,
                (line and line.certificate) or keys.certificate,
                (line and line.authority) or keys.authority,
            )
            address = server if line is None else line.server
            proxy = self.settings.proxy
            yield Question(server, address, tls.KeyFiles(*files), proxy)

    def _ask(self, ledger: Ledger, question: Question) -> str:
        """Ask one server; why it was not heard, or an empty text."""
        try:
            answer = ask(question)
        except GuilderError as error:
            return error.brief()
        except (httpx.HTTPError, ValueError) as error:
            return type(error).__name__
        try:
            demand_newest(ledger, question.server, answer)
        except IntegrityError as error:
            log.error("%s says: %s", question.server, error)
            raise _elsewhere(ledger.site, error) from None
        self._heard.add(question.server)
        return ""

    def _tell(self, missed: dict[str, str]) -> None:
        """Say once an outage which server was not heard, and why."""
        for server, why in missed.items():
            if server not in self._missed:
                log.error("%s was not heard: %s", server, why)
        self._missed = missed


def ask(question: Question) -> Head | None:
    """What a server remembers of this site's ledger, signed; None: nothing.

    Raises:
        EnrolmentError: A key or certificate for it is missing or wrong.
        httpx.HTTPError, ValueError: It cannot be reached, or gives no such answer.
    """
    context = tls.client_context(question.keys)
    with outbound.client(
        question.address, context, proxy=question.proxy, timeout_s=ANSWER_S
    ) as client:
        answer = client.post(question.address + witnessing.PATH)
        answer.raise_for_status()
        return witnessing.read(answer.content)


def _not_heard(site: str, missed: dict[str, str]) -> PolicyRefused:
    names = ", ".join(f"{server} ({why})" for server, why in sorted(missed.items()))
    return PolicyRefused(
        NOT_HEARD,
        f"site {site!r} spends nothing until it has heard all that may know its ledger",
        why=f"An old copy of the ledger would show there. Not heard: {names}.",
        fix="Wait until it can be reached, or see to [witness.…] in site.toml; if it "
        "is gone, the officer lets the site go on: `guilder privacy excuse SERVER`.",
    )


def _elsewhere(site: str, error: IntegrityError) -> IntegrityError:
    """The same error without a word about other servers: it leaves the site."""
    what = f"site {site!r}: the ledger is not the newest; the site's own log says more"
    return IntegrityError(error.error_id, what, why=error.why, fix=error.fix)
