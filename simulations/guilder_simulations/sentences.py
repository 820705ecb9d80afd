"""Made-up texts: what customers ask a bank, by template.

They follow from their seed alone, on every machine alike, and nobody has written them.
This module deals nothing to sites.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

BANKS = ("bank-a", "bank-b", "bank-c", "bank-d")
NUM_QUESTIONS = 4_000
NUM_CUSTOMERS = 800
MOST_QUESTIONS = 9  # of one customer

_OPENINGS = (
    "hello",
    "good morning",
    "hi there",
    "please help",
    "sorry to bother you",
    "quick question",
    "i have been waiting",
    "",
)
_ENDINGS = (
    "thank you",
    "can you check",
    "what should i do",
    "as soon as possible",
    "it worked last week",
    "i am abroad at the moment",
    "",
    "",
)
_ASKED = {
    "lost-card": (
        "my {card} was stolen yesterday",
        "i lost my {card} on the {place}",
        "please block the {card} i cannot find it",
    ),
    "transfer": (
        "the transfer to my {person} has not arrived",
        "i sent {amount} to my {person} and it is missing",
        "how long does a transfer of {amount} take",
    ),
    "fee": (
        "why was a fee of {amount} charged on the {card}",
        "what does it cost to pay on the {place}",
        "there is a charge of {amount} that i do not understand",
    ),
    "pin": (
        "i forgot the pin of my {card}",
        "the machine on the {place} says wrong pin",
        "how do i change my pin",
    ),
    "statement": (
        "please send the statement for my {person}",
        "where do i download the statement of last month",
        "the statement shows {amount} twice",
    ),
}
_FILLED = {
    "card": ("card", "credit card", "debit card", "new card"),
    "place": ("train", "bus", "market", "airport", "street"),
    "person": ("brother", "landlord", "daughter", "accountant"),
    "amount": ("ten euros", "fifty pounds", "200", "1000", "a small amount"),
}


def questions(seed: int) -> "pa.Table":
    """4,000 questions to four banks and what they are about.

    Args:
        seed: The same seed gives the same rows.

    Returns:
        Columns `text`, `intent` (one of five) and `bank`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for _ in range(NUM_QUESTIONS):
        intent, asked = _question(rng)
        text = f"{_one_of(rng, _OPENINGS)} {asked} {_one_of(rng, _ENDINGS)}".strip()
        rows.append({"text": text, "intent": intent, "bank": _one_of(rng, BANKS)})
    return pa.Table.from_pylist(rows)


def questions_by_customer(seed: int) -> "pa.Table":
    """Questions of 800 customers at four banks, 1 to 9 of each.

    A customer has a way of writing: the same opening and the same ending.

    Args:
        seed: The same seed gives the same rows.

    Returns:
        Columns `text`, `intent` (one of five), `customer` and `bank`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for number in range(NUM_CUSTOMERS):
        bank = _one_of(rng, BANKS)
        opening, ending = _one_of(rng, _OPENINGS), _one_of(rng, _ENDINGS)
        for _ in range(1 + int(rng.integers(MOST_QUESTIONS))):
            intent, asked = _question(rng)
            text = f"{opening} {asked} {ending}".strip()
            customer = f"customer-{number:04d}"
            rows.append(
                {"text": text, "intent": intent, "customer": customer, "bank": bank}
            )
    return pa.Table.from_pylist(rows)


def _question(rng: np.random.Generator) -> tuple[str, str]:
    """What it is about, and its words."""
    intent = _one_of(rng, tuple(_ASKED))
    slots = {name: _one_of(rng, words) for name, words in _FILLED.items()}
    return intent, _one_of(rng, _ASKED[intent]).format_map(slots)


def _one_of(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
