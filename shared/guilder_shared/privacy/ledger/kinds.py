"""Which kinds of entry there are, and what each does to a book.

A new kind comes with a module of its own that maps its name to a function, as
`replay.py` does, and one line here. This module does nothing itself.
"""

from collections.abc import Callable

from guilder_shared.chain import Entry
from guilder_shared.privacy.ledger import cohorts, forgetting, opening, replay
from guilder_shared.privacy.ledger.bodies import Body
from guilder_shared.privacy.ledger.pages import Pages

LEARN: dict[str, Callable[[Pages, Entry, Body], None]] = {
    **opening.LEARN,
    **replay.LEARN,
    **cohorts.LEARN,
    **forgetting.LEARN,
}
