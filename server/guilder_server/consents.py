"""Which sites of a run wait for their people, since when, and whose turn that is.

A run that lacks sites because people have not decided, or because a site is paused,
stands as `waits-for-consent`. It keeps its place only while no other run wants it;
else it gives way and asks again later. What it waits for is durable with its state, so
neither giving way nor a restart of the server begins the wait anew; `run resume` does.
It asks nobody itself.
"""

import time
from collections.abc import Callable
from typing import Final

from guilder_server.runstore import RunStore

WAITS: Final = "waits-for-consent"  # a state of a run
SHORTEST_S, LONGEST_S = 5.0, 60.0  # between two tries of a run that gave way
SHARE: Final = 0.1  # of the time it has waited


class GivesWay(Exception):
    """The run waits for people, and another wants its place.

    Attributes:
        rest_s: For so long it need not be tried again.
    """

    def __init__(self, rest_s: float) -> None:
        super().__init__(f"tried again in {rest_s:.0f} s")
        self.rest_s = rest_s


class Consents:
    """The sites that a run waits for.

    Args:
        store: Of the run; keeps what it waits for.
        patience_s: How long, at least, people are waited for.
        wanted: Whether another run wants the place.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        store: RunStore,
        patience_s: float = 0.0,
        wanted: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._patience_s = store, patience_s
        self._wanted, self._clock = wanted, clock
        kept = store.fact("waits") or {}
        self.sites: dict[str, str] = dict(kept.get("sites", {}))  # why, by name
        self._since: float | None = kept.get("since")
        self._noted = dict(self.sites)
        self._heard: set[str] = set()  # by this process

    def wait(self, site: str, why: str) -> None:
        """A site answered that it waits; told once for each reason."""
        self._heard.add(site)
        if self.sites.get(site) != why:
            self.sites[site] = why
            self._store.event("site-waits", site=site, why=why)

    def decided(self, site: str) -> None:
        """A site waits no more."""
        self.sites.pop(site, None)

    def hold(self) -> None:
        """The run lacks sites that wait: say so, and give way if another run comes.

        Raises:
            GivesWay: The run is to be tried again later.
        """
        if not self.sites:
            self.end()
            return
        if self._since is None:
            self._since = self._clock()
        if self._noted != self.sites or self._store.fact("state") != WAITS:
            waits = {"since": self._since, "sites": dict(self.sites)}
            self._store.enter(WAITS, waits=waits)
            self._noted = dict(self.sites)
        if self._wanted():
            waited_s = max(0.0, self._clock() - self._since)
            raise GivesWay(min(LONGEST_S, max(SHORTEST_S, SHARE * waited_s)))

    def end(self) -> None:
        """The run waits for nobody's consent any more."""
        if self._since is not None:
            self._since = None
            self._store.enter("running")

    def is_over(self, waited_s: float, deadline_s: float) -> bool:
        """Whether a run that lacks sites gives up.

        People have `patience_s` from the first time they were asked, and are asked once
        more before that ends, also after a server that was away.

        Args:
            waited_s: How long the run has lacked sites since it was taken up.
            deadline_s: How long sites are waited for that are not there.
        """
        if not self.sites or self._since is None:
            return not self.sites and waited_s > deadline_s
        is_late = self._clock() - self._since > max(deadline_s, self._patience_s)
        return is_late and (self.sites.keys() <= self._heard or waited_s > deadline_s)
