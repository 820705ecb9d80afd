"""What a site can hand to a person who objected: a signed word, without ids.

It says that a list of persons is left out of a dataset, since which entry of the
ledger, and whether it is in force. Whether somebody is on the list it does not say; the
site tells that to the person itself. It reads the ledger and no list and no row.

Review, mathematics: public facts of the ledger's own entry; the commitment is salted.
Review, crash order: reads only; the entry was durable before.
"""

import rfc8785

from guilder_shared.errors import PolicyRefused
from guilder_shared.privacy.ledger import Ledger

SCHEMA = "guilder-exclusion-1"


def state(ledger: Ledger, dataset: str) -> bytes:
    """The newest word on a dataset's list, signed by the site's key.

    Returns:
        Canonical JSON and a newline. `signature` is Ed25519 over `SCHEMA`, a newline
        and the canonical JSON without it; the same ledger gives the same bytes.

    Raises:
        PolicyRefused: GLD-S041, the ledger has no word on this dataset.
    """
    word = ledger.exclusions().get(dataset)
    if word is None:
        raise PolicyRefused(
            "GLD-S041",
            f"site {ledger.site!r} has not left anybody out of {dataset!r}",
            fix="Name a list under [data.…] exclude; it counts from the next turn on.",
        )
    entry = ledger.entries()[word.seq - 1]
    told = {
        "schema": SCHEMA,
        "site": ledger.site,
        "public_key": ledger.entries()[0].content()["public_key"],
        "dataset": dataset,
        "commitment": word.commitment,
        "in_force": word.in_force,
        "since": word.time,
        "entry": {"seq": entry.seq, "hash": entry.hash, "signature": entry.signature},
        "budget": "What was charged stays charged; nothing was given back.",
    }
    text = f"{SCHEMA}\n".encode() + rfc8785.dumps(told)
    told["signature"] = ledger.sign(text).hex()
    return rfc8785.dumps(told) + b"\n"
