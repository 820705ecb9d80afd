"""What one turn may do: charged, sealed, received, given up, and the study's end.

Decides and writes `spend`, `seal`, `give-up`, `receipt` and `close` through a `Pen`;
knows no rows and sends nothing.

The mathematics: a turn is charged once, whatever is repeated under the charge, for of
all repeats one result at most ever leaves; a budget that was lowered takes no new
turn. Crash order: `spend` is durable before the first row is read, `seal` before a
byte of the result is sent. A turn that was spent and not sealed runs again under the
same charge.
"""

import secrets

from guilder_shared.privacy.ledger import denials, refusals
from guilder_shared.privacy.ledger.bodies import Body
from guilder_shared.privacy.ledger.filters import Filters
from guilder_shared.privacy.ledger.grants import NUM_REPEATS, Grant, Spend, Turn
from guilder_shared.privacy.ledger.pen import Pen
from guilder_shared.privacy.ledger.replay import is_witness


def spend(
    pen: Pen, grant_id: str, turn_no: int, request_hash: str, *, measures: bool
) -> Spend:
    """Charge one turn; see `Ledger.spend`."""
    with pen.writing() as book:
        grant = pen.grant(grant_id)
        turn = grant.turns.get(turn_no)
        if turn is None:
            first = grant.newest_turn() + 1
            if not first <= turn_no <= grant.num_turns:
                raise refusals.beyond_plan(book.site, grant, turn_no, first)
        elif turn.request_hash != request_hash:
            raise refusals.other_request(grant, turn_no)
        elif turn.sealed_sha256 is not None:
            return Spend("sealed", turn.attempts, turn.sealed_sha256)
        if grant.closed:
            raise refusals.ended(book.site, grant)
        if turn is None:
            _demand_goes_on(pen, grant)
        attempt = 1 if turn is None else turn.attempts + 1
        if turn is not None and (turn.given_up or attempt > 1 + NUM_REPEATS):
            _give_up(pen, grant, turn)
        charge = {"grant_id": grant_id, "turn_no": turn_no, "attempt": attempt}
        shares = grant.unmeasured() if measures else 0
        shares = shares if turn is None else turn.measures
        told = {"measures": shares} if shares else {}
        pen.write("spend", {**charge, "request_hash": request_hash, **told})
        return Spend("new" if attempt == 1 else "again", attempt, measures=shares)


def _demand_goes_on(pen: Pen, grant: Grant) -> None:
    """Raise if the officer has taken back since then what a new turn needs."""
    book = pen.book
    revoked_at = book.decisions.revoked.get(grant.approval)
    if revoked_at is not None:
        order = book.decisions.admitted[grant.approval].order
        raise denials.revoked(book.site, order, revoked_at)
    if not book.accounts.covers(grant, Filters.have_room):
        raise refusals.not_covered(book.site, grant)


def seal(pen: Pen, grant_id: str, turn_no: int, sha256: str) -> None:
    """Bind a charged turn to one result; see `Ledger.seal`."""
    with pen.writing() as book:
        grant = pen.grant(grant_id)
        turn = grant.turns.get(turn_no)
        if turn is not None and turn.sealed_sha256 == sha256:
            return
        if turn is None or turn.given_up or turn.sealed_sha256 is not None:
            raise refusals.cannot_seal(turn_no)
        head_no = len(book.heads.get(grant.server, [])) + 1
        seal = {"grant_id": grant_id, "turn_no": turn_no, "sha256": sha256}
        salt = secrets.token_hex(16)
        pen.write("seal", {**seal, "head_no": head_no, "salt": salt})


def receipt(
    pen: Pen, grant_id: str, turn_no: int, sha256: str, witness: Body | None
) -> bool:
    """Keep the server's word that it has the bytes; see `Ledger.receipt`."""
    with pen.writing() as book:
        grant = pen.grant(grant_id)
        turn = grant.turns.get(turn_no)
        if turn is None or turn.sealed_sha256 != sha256:
            return False
        if witness is not None and not is_witness(book, grant, witness):
            return False
        if turn.receipt is None:
            kept: Body = {"grant_id": grant_id, "turn_no": turn_no, "receipt": sha256}
            told = {} if witness is None else {"witness": witness}
            pen.write("receipt", {**kept, **told})
        return True


def close(pen: Pen, grant_id: str) -> None:
    """End a study here; see `Ledger.close`."""
    with pen.writing():
        grant = pen.grant(grant_id)
        if not grant.closed:
            closing = {"grant_id": grant_id, "num_spent": len(grant.turns)}
            pen.write("close", closing)


def _give_up(pen: Pen, grant: Grant, turn: Turn) -> None:
    if not turn.given_up:
        given_up = {"grant_id": grant.grant_id, "turn_no": turn.turn_no}
        pen.write("give-up", given_up)
    raise refusals.given_up(grant, turn)
