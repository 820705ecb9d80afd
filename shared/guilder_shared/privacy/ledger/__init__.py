"""The ledger of one site: what each study has cost, and what it may still cost.

`writer.py` is what others hold: `acceptance.py` and `turns.py` decide, `pen.py`
writes, `book.py` and what it is made of replay what was written, `filters.py` says
what a budget has room for, `totals.py` sums up, `refusals.py` and `denials.py` word a
no. The room knows no network, no model and no rows, and loads no torch;
`docs/ledger.md` is its file, entry by entry.
"""

from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.grants import Grant, Refusal, Spend, Turn
from guilder_shared.privacy.ledger.totals import Totals
from guilder_shared.privacy.ledger.writer import Ledger

__all__ = ["Budget", "Grant", "Ledger", "Refusal", "Spend", "Totals", "Turn"]
