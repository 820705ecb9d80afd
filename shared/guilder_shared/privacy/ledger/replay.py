"""Replaying what studies did: accepted, refused, charged, sealed, received, ended.

Each function learns one kind of entry, or raises what `bodies.CANNOT_BE` lists if no
correct writer would have written it. It writes nothing and decides nothing.

The mathematics: a grant needs, at its own time, an order that permits it and room in
every budget that names its dataset; a turn is charged once, whatever is repeated.
Crash order: `book.py`.
"""

from collections.abc import Callable
from dataclasses import replace

from guilder_shared import witnessing
from guilder_shared.chain import Entry
from guilder_shared.privacy.ledger import heads
from guilder_shared.privacy.ledger.bodies import Body, demand, is_hex
from guilder_shared.privacy.ledger.filters import Filters
from guilder_shared.privacy.ledger.grants import (
    NUM_REPEATS,
    Grant,
    Refusal,
    Turn,
    read_grant,
)
from guilder_shared.privacy.ledger.pages import Pages


def _reserve(book: Pages, _: Entry, body: Body) -> None:
    grant = read_grant(body)
    key = (grant.server, grant.run_id, grant.study_digest)
    demand(grant.grant_id not in book.grants and key not in book.by_run)
    time = grant.reserved_at
    demand(book.decisions.permits(grant.approval, grant.asked(), time))
    if grant.is_protected:
        named = book.accounts.budgets_of(grant.dataset)
        demand(bool(named) and all(b.unit in (None, grant.unit) for b in named))
        demand(book.accounts.without_room(grant, Filters.hold_sums) is None)
        demand(book.accounts.beyond_period(grant) is None)
    book.grants[grant.grant_id] = grant
    book.by_run[key] = grant.grant_id
    book.accounts.charge(grant)


def _refuse(book: Pages, entry: Entry, body: Body) -> None:
    book.refusals.append(Refusal(entry.seq, body))


def _spend(book: Pages, _: Entry, body: Body) -> None:
    grant, turn_no = book.grants[body["grant_id"]], int(body["turn_no"])
    turn = grant.turns.get(turn_no)
    demand(not grant.closed and body["attempt"] <= 1 + NUM_REPEATS)
    measures = body.get("measures", 0)
    demand(type(measures) is int and measures >= 0)
    if turn is None:
        demand(grant.newest_turn() < turn_no <= grant.num_turns)
        demand(body["attempt"] == 1 and grant.approval not in book.decisions.revoked)
        demand(book.accounts.covers(grant, Filters.hold_sums))
        demand(measures == 0 or measures <= grant.unmeasured())
        turn = Turn(
            turn_no,
            str(body["request_hash"]),
            1,
            str(body["time"]),
            measures=measures,
        )
    else:
        demand(turn.request_hash == body["request_hash"])
        demand(turn.measures == measures)
        demand(turn.sealed_sha256 is None and not turn.given_up)
        demand(turn.attempts + 1 == body["attempt"])
        turn = replace(turn, attempts=turn.attempts + 1)
    grant.turns[turn.turn_no] = turn


def _seal(book: Pages, entry: Entry, body: Body) -> None:
    grant, turn = _open_turn(book, body)
    told = book.heads.setdefault(grant.server, [])
    head_no, salt = body["head_no"], body["salt"]
    demand(head_no == len(told) + 1 and is_hex(salt, 32))
    committed = heads.commitment(str(salt), entry.seq, entry.hash)
    told.append(
        heads.Head(
            grant.server, head_no, grant.grant_id, turn.turn_no, entry.seq, committed
        )
    )
    grant.turns[turn.turn_no] = replace(
        turn,
        sealed_sha256=str(body["sha256"]),
        sealed_at=str(body["time"]),
        head_no=head_no,
    )


def _give_up(book: Pages, _: Entry, body: Body) -> None:
    grant, turn = _open_turn(book, body)
    grant.turns[turn.turn_no] = replace(turn, given_up=True)


def _receive(book: Pages, _: Entry, body: Body) -> None:
    grant = book.grants[body["grant_id"]]
    turn = grant.turns[body["turn_no"]]
    demand(turn.sealed_sha256 is not None and turn.receipt is None)
    demand(turn.sealed_sha256 == body["receipt"])
    witness = body.get("witness")
    demand(witness is None or is_witness(book, grant, witness))
    if witness is not None:
        key, head_no = str(witness["server_key"]), int(witness["head_no"])
        before = book.words.get(grant.server)
        if before is None or before.head_no <= head_no:
            book.words[grant.server] = heads.Word(head_no, key)
    grant.turns[turn.turn_no] = replace(turn, receipt=str(body["receipt"]))


def _close(book: Pages, _: Entry, body: Body) -> None:
    grant = book.grants[body["grant_id"]]
    demand(not grant.closed and body["num_spent"] == len(grant.turns))
    closed = replace(grant, closed=True)
    book.grants[grant.grant_id] = closed
    book.accounts.settle(grant, closed)


def _open_turn(book: Pages, body: Body) -> tuple[Grant, Turn]:
    """A turn that was charged and may still be sealed or given up."""
    grant = book.grants[body["grant_id"]]
    turn = grant.turns[body["turn_no"]]
    demand(turn.sealed_sha256 is None and not turn.given_up)
    return grant, turn


def is_witness(book: Pages, grant: Grant, witness: object) -> bool:
    """Whether a server's word is signed by the key in it, about a head it was sent."""
    if not isinstance(witness, dict) or not witnessing.is_signed(witness, book.site):
        return False
    told, number = book.heads.get(grant.server, []), witness["head_no"]
    if not isinstance(number, int) or not 1 <= number <= len(told):
        return False
    return bool(witness["commitment"] == told[number - 1].commitment)


LEARN: dict[str, Callable[[Pages, Entry, Body], None]] = {
    "reserve": _reserve,
    "refuse": _refuse,
    "spend": _spend,
    "seal": _seal,
    "give-up": _give_up,
    "receipt": _receive,
    "close": _close,
}
