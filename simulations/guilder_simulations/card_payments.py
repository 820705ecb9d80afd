"""Card payments of four made-up banks: customers, terminals, time, and some fraud.

A fraud shows in the payment's own columns and not only in a window over other rows,
so a study may hide single records. Each bank meets mostly its own kinds of fraud and a
few of the others', so a bank alone learns less than all of them. All figures are
invented; this module knows no study and deals nothing to sites.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NUM_PAYMENTS = 20_000  # of one bank
NUM_CUSTOMERS = 1_500  # of one bank
NUM_TERMINALS = 400  # of one bank
FIRST_DAY = np.datetime64("2025-01-06T00:00:00", "s")  # a Monday
NUM_DAYS = 182
SIDE_KM = 60.0  # home and terminals lie in a square of this side

KINDS = ("pos", "web", "atm")
ENTRIES = ("chip", "contactless", "magstripe", "online")
CATEGORIES = (
    "groceries",
    "fuel",
    "restaurants",
    "clothing",
    "electronics",
    "travel",
    "digital",
    "gift-cards",
    "cash",
)
CATEGORY_AMOUNT = np.array([32.0, 48.0, 28.0, 65.0, 190.0, 260.0, 14.0, 45.0, 110.0])
CATEGORIES_OF = {  # chance of each category at a terminal of this kind
    "pos": (0.36, 0.16, 0.22, 0.15, 0.07, 0.03, 0.0, 0.01, 0.0),
    "web": (0.08, 0.0, 0.06, 0.26, 0.16, 0.12, 0.26, 0.06, 0.0),
    "atm": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
}
HOURS = np.array(  # payments by hour of day, relative
    [
        2,
        1,
        1,
        1,
        1,
        2,
        4,
        8,
        11,
        12,
        13,
        15,
        18,
        16,
        14,
        14,
        16,
        19,
        20,
        17,
        13,
        10,
        7,
        4,
    ]
)
NIGHT = np.array(
    [9, 10, 10, 9, 6, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 6]
)
ANY_HOUR = np.ones(24)


@dataclass(frozen=True)
class Fraud:
    """One kind of fraud: what its payments look like.

    Attributes:
        amount: Median in EUR.
        foreign: Chance of a foreign merchant.
        attempts: Mean number of declined attempts before.
        new_device: Chance of a device the customer never used.
        far: Chance of a terminal hundreds of kilometres from home.
    """

    name: str
    kind: str
    entry: str
    categories: tuple[str, ...]
    hours: NDArray[Any]
    amount: float
    foreign: float
    attempts: float
    new_device: float
    far: float


FRAUDS = (
    Fraud("night-shopping", "web", "online", ("electronics", "clothing"),
          NIGHT, 420, 0.85, 0.3, 0.6, 0),
    Fraud("card-testing", "web", "online", ("digital",),
          ANY_HOUR, 2, 0.7, 3.5, 0.8, 0),
    Fraud("skimmed-cash", "atm", "magstripe", ("cash",),
          NIGHT, 450, 0.8, 0.8, 0, 0.9),
    Fraud("cloned-card", "pos", "magstripe", ("fuel", "electronics", "clothing"),
          HOURS, 230, 0.35, 0.5, 0, 0.9),
    Fraud("account-takeover", "web", "online", ("gift-cards", "travel"),
          HOURS, 650, 0.3, 1.0, 0.95, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Bank:
    """One bank: its customers' habits and the fraud it meets.

    Attributes:
        fraud_rate: Chance that a payment is fraud.
        amounts: Its amounts against the average bank's.
        kinds: Chance of each of `KINDS`.
        contactless: Chance that a payment at a till is contactless.
        frauds: Chance of each of `FRAUDS`, in per cent.
    """

    name: str
    fraud_rate: float
    amounts: float
    kinds: tuple[float, float, float]
    contactless: float
    frauds: tuple[int, int, int, int, int]


BANKS = (
    Bank("bank-a", 0.020, 1.0, (0.52, 0.38, 0.10), 0.6, (46, 46, 2, 4, 2)),
    Bank("bank-b", 0.030, 0.7, (0.62, 0.16, 0.22), 0.3, (2, 2, 60, 34, 2)),
    Bank("bank-c", 0.013, 1.6, (0.48, 0.42, 0.10), 0.7, (30, 2, 2, 4, 62)),
    Bank("bank-d", 0.045, 0.9, (0.66, 0.20, 0.14), 0.5, (2, 30, 4, 60, 4)),
)


def generate(seed: int) -> "pa.Table":
    """80,000 payments of four banks, in the order of bank and time.

    Args:
        seed: Public; the same seed gives the same bytes, a bank's rows do not depend
            on the other banks.

    Returns:
        Columns `bank`, `customer_id`, `terminal_id`, `time`, `amount` (EUR), `hour`,
        `weekday` (Monday is 0), `kind`, `entry`, `category`, `foreign`, `card_present`,
        `new_device`, `attempts`, `distance_km`, `card_age_days` and `fraud`, 0 or 1.
    """
    import pyarrow as pa

    banks = [
        _bank(bank, np.random.Generator(np.random.PCG64([seed, number])))
        for number, bank in enumerate(BANKS)
    ]
    return pa.concat_tables([pa.table(columns) for columns in banks])


def _bank(bank: Bank, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    homes = rng.uniform(0, SIDE_KM, (NUM_CUSTOMERS, 2))
    wealth = rng.lognormal(0.0, 0.4, NUM_CUSTOMERS)
    activity = rng.lognormal(0.0, 0.7, NUM_CUSTOMERS)
    card_made = rng.integers(-1500, 60, NUM_CUSTOMERS)  # day, before or after the first
    customer = rng.choice(NUM_CUSTOMERS, NUM_PAYMENTS, p=activity / activity.sum())
    terminal, kind, category, distance = _terminals(bank, homes[customer], rng)
    day, hour = _days(rng), _draw(HOURS, rng)
    medians = CATEGORY_AMOUNT[category] * wealth[customer] * bank.amounts
    payments: dict[str, NDArray[Any]] = {
        "kind": kind,
        "entry": _entries(kind, bank, rng),
        "category": category,
        "hour": hour,
        "amount": medians * rng.lognormal(0.0, 0.6, NUM_PAYMENTS),
        "foreign": rng.random(NUM_PAYMENTS) < np.array([0.06, 0.3, 0.08])[kind],
        "attempts": rng.poisson(0.12, NUM_PAYMENTS),
        "new_device": (kind == 1) & (rng.random(NUM_PAYMENTS) < 0.12),
        "distance_km": distance,
    }
    fraud = rng.random(NUM_PAYMENTS) < bank.fraud_rate
    _commit(bank, payments, np.flatnonzero(fraud), rng)
    second = rng.integers(0, 3600, NUM_PAYMENTS)
    since = day * 86_400 + payments["hour"] * 3_600 + second
    age = np.maximum(day - card_made[customer], 0)
    return _in_time_order(bank, since, customer, terminal, payments, age, fraud)


def _terminals(
    bank: Bank, homes: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For each payment the terminal, its kind and category, and the way there in km."""
    places = rng.uniform(0, SIDE_KM, (NUM_TERMINALS, 2))
    kinds = np.arange(NUM_TERMINALS) % len(KINDS)
    categories = np.empty(NUM_TERMINALS, np.int64)
    for number, kind in enumerate(KINDS):
        here = np.flatnonzero(kinds == number)
        categories[here] = rng.choice(len(CATEGORIES), len(here), p=CATEGORIES_OF[kind])
    kind_paid = rng.choice(len(KINDS), NUM_PAYMENTS, p=bank.kinds)
    # Of three terminals of the kind, the nearest to home.
    row = rng.integers(0, NUM_TERMINALS // len(KINDS), (NUM_PAYMENTS, 3))
    candidates = row * len(KINDS) + kind_paid[:, None]
    ways = np.sqrt(((places[candidates] - homes[:, None]) ** 2).sum(axis=2))
    nearest = ways.argmin(axis=1)
    every = np.arange(NUM_PAYMENTS)
    terminal, way = candidates[every, nearest], ways[every, nearest]
    # One payment in sixteen is made on a journey; a web shop has no distance.
    journey = rng.random(NUM_PAYMENTS) < 1 / 16
    way = np.where(journey, rng.uniform(100, 900, NUM_PAYMENTS), way)
    return terminal, kind_paid, categories[terminal], np.where(kind_paid == 1, 0, way)


def _entries(
    kind: NDArray[Any], bank: Bank, rng: np.random.Generator
) -> NDArray[np.int64]:
    drawn = rng.random(NUM_PAYMENTS)
    at_till = np.where(drawn < bank.contactless, 1, np.where(drawn < 0.9, 0, 2))
    at_cash = np.where(drawn < 0.9, 0, 2)
    return np.choose(kind, [at_till, np.full(NUM_PAYMENTS, 3), at_cash])


def _commit(
    bank: Bank,
    payments: dict[str, NDArray[Any]],
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Turn these payments into fraud, in place; each keeps a habit now and then."""
    of = rng.choice(len(FRAUDS), len(rows), p=np.array(bank.frauds) / 100)
    for number, fraud in enumerate(FRAUDS):
        mine = rows[of == number]
        num = len(mine)
        categories = [CATEGORIES.index(name) for name in fraud.categories]
        seen: dict[str, NDArray[Any]] = {
            "entry": np.full(num, ENTRIES.index(fraud.entry)),
            "category": rng.choice(categories, num),
            "hour": _draw(fraud.hours, rng, num),
            "amount": fraud.amount * rng.lognormal(0.0, 0.5, num),
            "foreign": rng.random(num) < fraud.foreign,
            "attempts": rng.poisson(fraud.attempts, num),
            "new_device": rng.random(num) < fraud.new_device,
        }
        far = rng.random(num) < fraud.far
        away_km = rng.uniform(150, 1_500, num)
        payments["distance_km"][mine] = np.where(
            far, away_km, 0 if fraud.kind == "web" else payments["distance_km"][mine]
        )
        payments["kind"][mine] = KINDS.index(fraud.kind)
        for column, values in seen.items():
            # A thief hides one trait in eight, but no thief pays online with a chip.
            shown = (rng.random(num) < 0.875) | (column in {"entry", "category"})
            payments[column][mine] = np.where(shown, values, payments[column][mine])


def _days(rng: np.random.Generator) -> NDArray[np.int64]:
    by_weekday = np.array([1.0, 1.0, 1.05, 1.1, 1.35, 1.4, 0.8])
    return _draw(by_weekday[np.arange(NUM_DAYS) % 7], rng)


def _draw(
    weights: NDArray[Any], rng: np.random.Generator, num: int = NUM_PAYMENTS
) -> NDArray[np.int64]:
    return rng.choice(len(weights), num, p=weights / weights.sum())


def _in_time_order(
    bank: Bank,
    since: NDArray[np.int64],
    customer: NDArray[np.int64],
    terminal: NDArray[np.int64],
    payments: dict[str, NDArray[Any]],
    age: NDArray[np.int64],
    fraud: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """The bank's columns, typed, rounded and sorted by time."""
    columns: dict[str, NDArray[Any]] = {
        "bank": np.full(NUM_PAYMENTS, bank.name),
        "customer_id": np.char.add(f"{bank.name}-c", customer.astype(str)),
        "terminal_id": np.char.add(f"{bank.name}-t", terminal.astype(str)),
        "time": FIRST_DAY + since.astype("timedelta64[s]"),
        # Rounded far above the last bit, which may differ between processors.
        "amount": np.round(np.clip(payments["amount"], 0.5, 9_999), 2),
        "hour": payments["hour"].astype(np.int8),
        "weekday": (since // 86_400 % 7).astype(np.int8),
        "kind": np.array(KINDS)[payments["kind"]],
        "entry": np.array(ENTRIES)[payments["entry"]],
        "category": np.array(CATEGORIES)[payments["category"]],
        "foreign": payments["foreign"].astype(np.int8),
        "card_present": (payments["kind"] != 1).astype(np.int8),
        "new_device": payments["new_device"].astype(np.int8),
        "attempts": payments["attempts"].astype(np.int8),
        "distance_km": np.round(payments["distance_km"], 1),
        "card_age_days": age.astype(np.int16),
        "fraud": fraud.astype(np.int8),
    }
    order = np.argsort(since, kind="stable")
    return {name: values[order] for name, values in columns.items()}
