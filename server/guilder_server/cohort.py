"""Who takes part: offers made, answers checked, grants kept by site name.

A refusal by policy or budget ends the run with the site's name. This module neither
trains nor sums.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from guilder_server.aggregate import weigh
from guilder_server.consents import Consents
from guilder_server.grid import Sites
from guilder_server.heads import Heads
from guilder_shared import wire
from guilder_shared.errors import (
    BudgetSpent,
    GuilderError,
    IntegrityError,
    PolicyRefused,
    RunFailed,
)
from guilder_shared.messages import Answer, Close, Offer, Receipt, Verdict
from guilder_shared.study import Study

GATHER_S: Final = 5.0  # sites that are late by less than this join the first round
# a plan is confirmed at the site, after torch and scipy are loaded: seconds
OFFER_S: Final = 120.0
CLOSE_S: Final = 30.0  # stock Flower starts a process for it, at every site
POLL_S: Final = 0.02
AGAIN_S: Final = 1.0  # before a site is offered the run again that waits or is paused
LEDGER_FIX: Final = (
    "tell its officer; `guilder server witnessed {site}` says what the site must put "
    "back or charge; then `guilder run resume`"
)
OWN_FIXES: Final = {  # what the operator can do, by the id of the site's own error
    "GLD-I080": LEDGER_FIX,
    "GLD-I081": LEDGER_FIX,
    "GLD-S050": "wait until the site has heard what it waits for, then `guilder run "
    "resume`",
}
OTHERWISE: Final = "change the study, or submit it to the others alone (--sites)"


@dataclass(frozen=True)
class Member:
    """A site with a grant for this run."""

    site: str
    node_id: int
    grant_id: str
    public_size: int


@dataclass
class Cohort:
    """The sites that accepted this run; `only` limits it to named sites.

    Attributes:
        consents: Sites that wait for a person's consent, or are paused.
    """

    sites: Sites
    study: Study
    offer: Offer
    consents: Consents
    only: frozenset[str] = frozenset()
    heads: Heads = field(default_factory=lambda: Heads(None))
    out: set[str] = field(default_factory=set)  # names excluded from this run
    members: dict[str, Member] = field(default_factory=dict)
    _excluded: dict[str, Member] = field(default_factory=dict)
    _met: set[int] = field(default_factory=set)
    _silent: set[int] = field(default_factory=set)
    _again: dict[int, float] = field(default_factory=dict)  # not offered before then

    def choose(self, awaited: Iterable[str] = ()) -> list[Member]:
        """The members of the next round, by name; newcomers are offered the run.

        A member who was shut out is none any more; let in again, it is a newcomer.
        Waits for `min_sites` members, and a few seconds more for `awaited` names
        (those of the round before), at most one round deadline.

        Raises:
            RunFailed: Fewer than min_sites came within the deadline.
            GivesWay: Sites wait for their people, and another run wants the place.
            PolicyRefused, BudgetSpent: A site refused; names it.
        """
        start = time.monotonic()
        deadline_s = self.study.aggregation.round_deadline_s
        while True:
            self._let_go()
            self._offer_to_newcomers()
            waited_s = time.monotonic() - start
            enough = len(self.members) >= self.study.aggregation.min_sites
            missing = (set(awaited) | self.only) - set(self.members) - self.out
            if enough and (not missing or waited_s > GATHER_S):
                self.consents.end()
                return [self.members[name] for name in sorted(self.members)]
            if not enough:
                if self.consents.is_over(waited_s, deadline_s):
                    raise self._too_few(waited_s)
                self.consents.hold()
            time.sleep(POLL_S)

    def weights(self, also: Mapping[str, int] | None = None) -> dict[str, int]:
        """Integer weight of every member, and of `also`, from public sizes."""
        sizes = {m.site: m.public_size for m in self.members.values()}
        return weigh({**sizes, **(also or {})})

    def exclude(self, site: str) -> None:
        """Ask a member nothing more in this run; it is told when the run ends."""
        self.out.add(site)
        self._excluded[site] = self.members.pop(site)

    def find(self, names: Iterable[str]) -> None:
        """Meet again the sites of a run whose rounds are done, to tell them so.

        For a server that was killed before it had. They are waited for a few seconds;
        no other site is offered the run, and a refusal ends nothing any more.
        """
        self.only = frozenset(names)
        end = time.monotonic() + GATHER_S
        while self.only - set(self.members) - self.out and time.monotonic() < end:
            with suppress(GuilderError):
                self._offer_to_newcomers()
            time.sleep(POLL_S)

    def close(self, receipts: dict[str, Receipt]) -> None:
        """Tell every member that the run ended; silence is not waited for long."""
        contents = {
            member.node_id: wire.encode_close(
                Close(
                    self.offer.run_id,
                    member.grant_id,
                    receipts.get(site),
                    self.heads.newest(site),
                )
            )
            for site, member in (self.members | self._excluded).items()
        }
        for _ in self.sites.ask(contents, wire.CLOSE, group="close", timeout_s=CLOSE_S):
            pass

    def _let_go(self) -> None:
        """Wait for nobody who was revoked or removed: rounds would end at deadlines."""
        for site, member in list(self.members.items()):
            if not self.sites.belongs(member.node_id):
                del self.members[site]
                self._met.discard(member.node_id)

    def _offer_to_newcomers(self) -> None:
        resting = {node for node, at in self._again.items() if at > time.monotonic()}
        newcomers = {
            node_id
            for node_id in self.sites.online() - self._met - resting
            if not self.only or self.sites.certified_name(node_id) in self.only | {None}
        }
        if not newcomers:
            return
        newest = {n: self.heads.newest(self.sites.certified_name(n)) for n in newcomers}
        asked = {
            node_id: wire.encode_offer(replace(self.offer, witness=head))
            for node_id, head in newest.items()
        }
        # who was silent once is not waited for again while others could go on
        go_on = len(self.members) >= self.study.aggregation.min_sites
        patience_s = GATHER_S if go_on and newcomers <= self._silent else OFFER_S
        timeout_s = min(patience_s, self.study.aggregation.round_deadline_s)
        self._silent |= newcomers
        for node_id, reply in self.sites.ask(
            asked, wire.OFFER, group="offer", timeout_s=timeout_s
        ):
            with blaming(self.sites.certified_name(node_id)):
                answer = wire.decode_answer(reply)
            self._silent.discard(node_id)
            self._meet(node_id, answer)

    def _meet(self, node_id: int, answer: Answer) -> None:
        certified = self.sites.certified_name(node_id)
        if certified is not None and certified != answer.site:
            raise IntegrityError(
                "GLD-I046",
                f"the site with certificate {certified!r} answered as {answer.site!r}",
            )
        if self.only and answer.site not in self.only:
            self._met.add(node_id)
            return
        if answer.verdict == Verdict.BUSY:  # offered again, a little later
            self._again[node_id] = time.monotonic() + AGAIN_S
            self.consents.wait(answer.site, answer.reason)
            return
        self._met.add(node_id)
        self.consents.decided(answer.site)
        if answer.verdict != Verdict.ACCEPTED:
            raise refusal(answer.site, answer.verdict, answer.reason)
        known = self.members.get(answer.site)
        if known is not None and known.grant_id != answer.grant_id:
            raise IntegrityError(
                "GLD-I047", f"site {answer.site!r} answered one run with two grants"
            )
        member = Member(
            answer.site, node_id, answer.grant_id, max(1, answer.public_size)
        )
        (self._excluded if answer.site in self.out else self.members)[answer.site] = (
            member
        )

    def _too_few(self, waited_s: float) -> RunFailed:
        here = ", ".join(sorted(self.members)) or "nobody"
        missing = ", ".join(sorted(self.only - set(self.members)))
        return RunFailed(
            "GLD-R001",
            f"{len(self.members)} of at least {self.study.aggregation.min_sites} sites "
            f"came within {waited_s:.0f} s (here: {here}"
            + (f"; missing: {missing})" if missing else ")"),
            why="; ".join(
                f"{site}: {why}" for site, why in self.consents.sites.items()
            ),
            fix="start the missing clients, then `guilder run resume`",
        )


@contextmanager
def blaming(site: str | None) -> Iterator[None]:
    """Name the site in what is raised about a message of its own."""
    try:
        yield
    except IntegrityError as error:
        raise IntegrityError(
            error.error_id,
            f"site {site or 'without certificate'!r}: {error.what}",
            why=error.why,
            fix=error.fix or "Leave the site out (--sites), and ask its engineer.",
        ) from None


def refusal(site: str, verdict: Verdict, reason: str) -> GuilderError:
    """The error that ends a run because `site` refused; the reason is the site's."""
    if verdict == Verdict.REFUSED_BY_BUDGET:
        return BudgetSpent(
            "GLD-B003",
            f"site {site!r} refused: its budget has no room for this study",
            why=reason,
            fix="lower epsilon or rounds, or ask the site; nothing was charged for it",
        )
    told = {error_id: fix for error_id, fix in OWN_FIXES.items() if error_id in reason}
    fix = next(iter(told.values()), OTHERWISE).format(site=site)
    what = f"site {site!r} refused the study"
    return PolicyRefused("GLD-S010", what, why=reason or str(verdict), fix=fix)
