"""A round's requests: the same for a site until its turn is given up.

The model is packed when it is pushed and let go of afterwards, for it may be large and
a push may be long over when the next is needed. This module waits for nobody.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from guilder_server.cohort import Member
from guilder_server.heads import Heads
from guilder_server.runstore import RunStore
from guilder_server.strategies import Kept
from guilder_shared import tensors, wire
from guilder_shared.messages import TurnRequest, Weights


@dataclass(frozen=True)
class Asked:
    """What a round asks of every site."""

    round_no: int
    model: Callable[[], Weights]
    kept: Kept


class Requests(Mapping[int, Any]):
    """Requests by node id; as a mapping, their records for Flower.

    Args:
        asked: The same for all sites.
        store: Gives each site's turn its number, durable when this is made.
        heads: What is remembered of each site's ledger.
        members: Whom to ask, by node id.
    """

    def __init__(
        self,
        asked: Asked,
        store: RunStore,
        heads: Heads,
        members: Mapping[int, Member],
    ) -> None:
        self._asked = asked
        self._records: WeakValueDictionary[str, Any] = WeakValueDictionary()
        receipts, since = store.receipts(), asked.kept.since
        bases = {} if since is None else store.receipts(since.round_no)
        digest = store.study.digest()
        with store.at_once():  # the numbers of all sites, durable by one fsync
            self.by_node = {
                node_id: TurnRequest(
                    run_id=store.run_id,
                    grant_id=m.grant_id,
                    turn_no=store.turn_no(asked.round_no, m.site, m.grant_id),
                    round_no=asked.round_no,
                    study_digest=digest,
                    model=b"",  # goes beside it, as a record for all
                    receipt=receipts.get(m.site),
                    witness=heads.newest(m.site),
                    control_base=bases[m.site].turn_no if m.site in bases else 0,
                )
                for node_id, m in members.items()
            }

    def __getitem__(self, node_id: int) -> Any:
        """A request as Flower's records; those of one push share the model."""
        records = {wire.MODEL: self._record(wire.MODEL, self._asked.model)}
        control = self._asked.kept.control
        if control is not None:
            records[wire.CONTROL] = self._record(wire.CONTROL, lambda: control)
        return wire.encode_request(self.by_node[node_id], records)

    def __iter__(self) -> Iterator[int]:
        """Node ids."""
        return iter(self.by_node)

    def __len__(self) -> int:
        """How many are asked."""
        return len(self.by_node)

    def _record(self, name: str, weights: Callable[[], Weights]) -> Any:
        found = self._records.get(name)
        if found is None:
            found = wire.model_record(tensors.parts(weights()))
            self._records[name] = found
        return found
