"""Whether this ledger is the newest: what a server remembers of it must be in it.

What a server says frees nothing. The server of a study can stop that study this way,
which it could anyway; one that was sent results before can stop the site's spending,
and the officer can excuse it (`witnesses.py`). What a server forgot is stated in the
ledger, so that the officer finds it in the next report; nothing else is written.
"""

import logging

from guilder_shared import witnessing
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Head
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.witnesses import Witness

log = logging.getLogger(__name__)
FIX = (
    "Stop the client, put the newest copy of state_dir back. If there is none, the "
    "officer charges what is lost: `guilder privacy acknowledge`."
)


def demand_newest(ledger: Ledger, server: str, witness: Head | None) -> None:
    """Raise unless the ledger holds the newest entry that a server remembers.

    A server that remembers less than it signed for has lost its memory; that is told
    in the log and in the ledger, once, for no charge is missing here.

    Args:
        ledger: Of the site.
        server: Its name in the ledger.
        witness: What it said; None: it remembers nothing.

    Raises:
        IntegrityError: The ledger is older (GLD-I080), or another one took its place
            (GLD-I081), or the server's signature is not over what it says
            (GLD-I084), or what a server forgot could not be written (GLD-I005).
            Nothing was charged.
    """
    known = ledger.witnesses().get(server)
    if witness is None:
        _tell_if_forgotten(ledger, known, None)
        return
    body = witnessing.as_body(witness)
    if body is not None and not witnessing.is_signed(body, ledger.site):
        raise IntegrityError(
            "GLD-I084",
            f"site {ledger.site!r}: what the server remembers of the ledger is not "
            "signed by the key that it names",
            fix="Nothing is wrong here; ask the server's operator to look at it.",
        )
    _tell_if_forgotten(ledger, known, witness)
    held = () if known is None else known.heads
    told = f"head {witness.head_no}:{witness.commitment}"
    if witness.head_no > len(held):
        raise IntegrityError(
            "GLD-I080",
            f"site {ledger.site!r}: the ledger is older than what it once told the "
            f"server ({told}; it holds {len(held)})",
            why="Charges are missing from it; going on would count them as never made.",
            fix=_moved(ledger, witness) or FIX,
        )
    if held[witness.head_no - 1].commitment != witness.commitment:
        raise IntegrityError(
            "GLD-I081",
            f"site {ledger.site!r}: the ledger is not the one that once told the "
            f"server its {told}",
            why="An old copy was put back and used, or two copies are in use.",
            fix=FIX,
        )


def _tell_if_forgotten(
    ledger: Ledger, known: Witness | None, witness: Head | None
) -> None:
    """Say in log and ledger that a server lost what it had signed for."""
    if known is None or known.word is None:
        return
    remembers = 0 if witness is None else witness.head_no
    if ledger.forgot(known.server, remembers):
        log.error(
            "GLD-I104 %s signed for head %d of this ledger and remembers %d: until it "
            "has caught up it would not notice an old copy",
            known.server,
            known.word.head_no,
            remembers,
        )


def _moved(ledger: Ledger, witness: Head) -> str:
    """What to do where the same server is known by another address; else nothing."""
    for server, known in ledger.witnesses().items():
        heads = known.heads[witness.head_no - 1 : witness.head_no]
        if heads and heads[0].commitment == witness.commitment:
            return (
                f'Nothing is lost: it is {server}. known_as = "{server}" in site.toml.'
            )
    return ""
