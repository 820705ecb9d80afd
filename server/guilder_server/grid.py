"""Asking sites, over any Flower Grid: the hub's, the simulation's, or stock Flower's.

A request is pushed, polled for, and pushed again whenever the link lost it or the
site came back; every wait has a deadline. What is asked means nothing here.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from guilder_shared.errors import RunFailed

POLL_S = 0.002
WAITS_PER_LOOK = 4  # stock Flower's Grid asks over HTTP: a fifth of the time at most
WAIT_SHARE, MOST_WAIT_S = 0.005, 0.02  # of the wait so far: large models take long
REPUSH_AFTER_S = 0.2  # after an error reply: a broken site is not hammered
TTL_MARGIN_S = 60.0  # a Flower message must outlive the wait for it


@dataclass
class _Wait:
    """What is out: open messages by id, and nodes to be asked (again) from when."""

    open: dict[str, int] = field(default_factory=dict)
    again: dict[int, float] = field(default_factory=dict)


class Sites:
    """The sites behind one Grid, addressed by node id."""

    def __init__(self, grid: Grid, stopped: threading.Event | None = None) -> None:
        self._grid = grid
        self._stopped = stopped or threading.Event()
        # the name in the node's certificate, where the Grid knows certificates
        self._names = getattr(grid, "site_names", None)

    def online(self) -> set[int]:
        """Node ids that can be asked now.

        Raises:
            RunFailed: The operator stopped the run; so does `ask`.
        """
        self._check_stopped()
        return set(self._grid.get_node_ids())

    def certified_name(self, node_id: int) -> str | None:
        """The site's name by its certificate; None where the Grid knows none."""
        return None if self._names is None else self._names().get(node_id)

    def belongs(self, node_id: int) -> bool:
        """Whether a node may come back: it is in the roster, where there is one."""
        return self._names is None or node_id in self._names()

    def ask(
        self,
        contents: Mapping[int, RecordDict],
        message_type: str,
        *,
        group: str,
        timeout_s: float,
    ) -> Iterator[tuple[int, RecordDict]]:
        """Yield (node id, reply) as replies arrive, each node at most once.

        Ends when all have answered or at the deadline. Error replies and nodes that
        went away are asked again; the caller's requests must therefore be idempotent.
        A site that is revoked or removed meanwhile is not waited for.
        """
        deadline = time.monotonic() + timeout_s
        wait, heard_s = _Wait(again=dict.fromkeys(contents, 0.0)), time.monotonic()
        while (wait.open or wait.again) and time.monotonic() < deadline:
            self._check_stopped()
            self._push(contents, message_type, group, timeout_s, wait)
            looked = time.monotonic()
            replies = self._pull(wait)
            if replies:
                while replies:  # none is kept here while it is folded
                    yield replies.pop(0)
                heard_s = time.monotonic()
            else:  # a Grid or a site that answers slowly is asked less often
                self._let_go(wait)
                now = time.monotonic()
                long_s = min(MOST_WAIT_S, (now - heard_s) * WAIT_SHARE)
                time.sleep(max(POLL_S, long_s, (now - looked) * WAITS_PER_LOOK))

    def _let_go(self, wait: _Wait) -> None:
        if self._names is None:
            return
        names = self._names()
        wait.again = {n: at for n, at in wait.again.items() if n in names}
        if gone := [m for m, n in wait.open.items() if n not in names]:
            self._grid.pull_messages(gone)  # what came of their replies is let go of
            wait.open = {m: n for m, n in wait.open.items() if m not in gone}

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise stopped_by_operator()

    def _push(
        self,
        contents: Mapping[int, RecordDict],
        message_type: str,
        group: str,
        timeout_s: float,
        wait: _Wait,
    ) -> None:
        if not wait.again:
            return
        now, online = time.monotonic(), self.online()
        due = [n for n, since in wait.again.items() if since <= now and n in online]
        messages = [
            self._grid.create_message(
                contents[node_id],
                message_type,
                node_id,
                group,
                ttl=timeout_s + TTL_MARGIN_S,
            )
            for node_id in due
        ]
        if not messages:
            return
        for node_id, message_id in zip(
            due, self._grid.push_messages(messages), strict=True
        ):
            if message_id:
                wait.open[message_id] = node_id
                del wait.again[node_id]
            else:  # the link refused it, e.g. the node left in this instant
                wait.again[node_id] = now + REPUSH_AFTER_S

    def _pull(self, wait: _Wait) -> list[tuple[int, RecordDict]]:
        if not wait.open:
            return []
        replies: list[tuple[int, RecordDict]] = []
        message: Message
        for message in self._grid.pull_messages(list(wait.open)):
            node_id = wait.open.pop(message.metadata.reply_to_message_id, None)
            if node_id is None:
                continue
            if message.has_error():
                wait.again[node_id] = time.monotonic() + REPUSH_AFTER_S
            else:
                replies.append((node_id, message.content))
        return replies


def stopped_by_operator() -> RunFailed:
    """How a run ends that somebody stopped (GLD-R004)."""
    return RunFailed(
        "GLD-R004", "the run was stopped", fix="go on with `guilder run resume`"
    )
