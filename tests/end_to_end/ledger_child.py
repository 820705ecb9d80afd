"""A site that does nothing but charge and seal turns, to be killed; loads no torch."""

import sys
from pathlib import Path

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.officer import read_public_key
from guilder_shared.privacy.ledger import Ledger


def main(folder: Path) -> None:
    """Take turn after turn, saying what is about to happen and what has happened."""
    ledger = Ledger.open(
        folder / "ledger.db",
        SigningKey.load(folder / "key"),
        site="bank-a",
        officer=read_public_key(folder / "officer.pub"),
    )
    assert "torch" not in sys.modules
    (grant,) = ledger.grants()
    done = [n for n, turn in grant.turns.items() if turn.sealed_sha256 or turn.given_up]
    for turn_no in range(max(done, default=0) + 1, grant.num_turns + 1):
        print("asked", turn_no, flush=True)
        try:
            answer = ledger.spend(grant.grant_id, turn_no, f"request-{turn_no}")
        except BudgetSpent as error:  # killed four times in it: the next one, then
            if error.error_id != "GLD-B005":
                raise
            continue
        print(answer.state, turn_no, flush=True)
        print("sealing", turn_no, flush=True)
        ledger.seal(grant.grant_id, turn_no, f"result-{turn_no}-{answer.attempt}")
        print("sealed", turn_no, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
