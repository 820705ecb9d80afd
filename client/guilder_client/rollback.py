"""Whether this ledger is the newest: what the server remembers of it must be in it.

A server can only stop its own studies this way, which it could anyway; what it says
frees nothing and reaches no other server's studies. This module writes nothing.
"""

from guilder_client.site import Site
from guilder_shared import witnessing
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Head

FIX = (
    "Stop the client, put the newest copy of state_dir back. If there is none, the "
    "officer charges what is lost: `guilder privacy acknowledge`."
)


def demand_newest(site: Site, witness: Head | None) -> None:
    """Raise unless the ledger holds the newest entry that the server remembers.

    Args:
        site: Of this ledger.
        witness: What came with the server's message; None: it remembers nothing.

    Raises:
        IntegrityError: The ledger is older (GLD-I080), or another one took its place
            (GLD-I081), or the server's signature is not over what it says
            (GLD-I084). Nothing was charged.
    """
    if witness is None:
        return
    body = witnessing.as_body(witness)
    if body is not None and not witnessing.is_signed(body, site.name):
        raise IntegrityError(
            "GLD-I084",
            f"site {site.name!r}: what the server remembers of the ledger is not "
            "signed by the key that it names",
            fix="Nothing is wrong here; ask the server's operator to look at it.",
        )
    held = site.ledger.heads(site.settings.site.server)
    told = f"head {witness.head_no}:{witness.commitment}"
    if witness.head_no > len(held):
        raise IntegrityError(
            "GLD-I080",
            f"site {site.name!r}: the ledger is older than what it once told the "
            f"server ({told}; it holds {len(held)})",
            why="Charges are missing from it; going on would count them as never made.",
            fix=FIX,
        )
    if held[witness.head_no - 1].commitment != witness.commitment:
        raise IntegrityError(
            "GLD-I081",
            f"site {site.name!r}: the ledger is not the one that once told the server "
            f"its {told}",
            why="An old copy was put back and used, or two copies are in use.",
            fix=FIX,
        )
