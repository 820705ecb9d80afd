"""The officer's hand: orders that a data-protection officer's key signs, one by one.

Used where the key is, which may be another computer than the site's. It keeps nothing
and sends nothing; `orders.py` says what an order is, the ledger whether it holds.

The mathematics: none. Crash order: an order is data; it counts once a ledger holds it.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guilder_shared import durable
from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import SigningKey
from guilder_shared.orders import HEX, UNITS, Order

DAY_S = 86_400
STANDING_DAYS = 365  # of a rule, unless the officer says otherwise


class Officer:
    """The officer of one site; every method signs one order.

    Args:
        key: The officer's.
        site: The one site the orders are for.
        clock: Seconds since 1970; serials are its milliseconds, and always grow.
    """

    def __init__(
        self, key: SigningKey, *, site: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._site = site
        self._clock = clock
        self._serial = 0

    @property
    def public_hex(self) -> str:
        """The officer's public key, 64 hexadecimal digits."""
        return self._key.public_hex

    def budget(
        self,
        name: str,
        epsilon: float,
        delta: float,
        datasets: Sequence[str],
        unit: str | None = None,
        period: tuple[int, float] | None = None,
    ) -> Order:
        """Set what all studies together may take from some datasets, for ever.

        Args:
            name: Of the people protected.
            epsilon: Over all studies.
            delta: Over all studies.
            datasets: All that hold these people.
            unit: The only unit a study may protect; None: any.
            period: Days, and the epsilon that is released in so many days.
        """
        released = period and {"days": period[0], "epsilon": period[1]}
        return self._order(
            "budget",
            name=name,
            epsilon=epsilon,
            delta=delta,
            datasets=list(datasets),
            unit=unit,
            period=released,
        )

    def withdraw(self, name: str) -> Order:
        """Take a budget out of force; what was charged to it stays counted."""
        return self._order("withdraw", name=name)

    def public_size(self, dataset: str, rows: int, persons: int | None = None) -> Order:
        """Say how large a dataset is, as all may know it."""
        return self._order("public-size", dataset=dataset, rows=rows, persons=persons)

    def rule(
        self,
        name: str,
        *,
        recipes: Sequence[str],
        largest_epsilon: float,
        largest_delta: float,
        datasets: Sequence[str] = (),
        units: Sequence[str] = UNITS,
        smallest_cohort: int = 1,
        allow_unprotected: bool = False,
        days: float = STANDING_DAYS,
    ) -> Order:
        """Permit every study within some ceilings, for some days.

        Args:
            name: A later rule of this name takes its place.
            recipes: Kinds of task.
            largest_epsilon: Most that one study may take.
            largest_delta: Likewise.
            datasets: Empty: all that a budget names.
            units: Whose presence a study may hide.
            smallest_cohort: Fewest sites in a round.
            allow_unprotected: Studies without noise.
            days: It permits no new study after them.
        """
        return self._order(
            "rule",
            days=days,
            name=name,
            recipes=list(recipes),
            datasets=list(datasets),
            units=list(units),
            largest_epsilon=largest_epsilon,
            largest_delta=largest_delta,
            smallest_cohort=smallest_cohort,
            allow_unprotected=allow_unprotected,
        )

    def approve(
        self,
        study_digest: str,
        study_name: str,
        *,
        epsilon: float,
        delta: float,
        days: float | None = None,
    ) -> Order:
        """Permit one study, known by its digest, at no more than this cost.

        Args:
            study_digest: SHA-256 of the study, 64 hexadecimal digits.
            study_name: For people.
            epsilon: Of the study, as the officer saw it.
            delta: Likewise.
            days: No new run of it begins after them; None: it does not expire.
        """
        return self._order(
            "approve",
            days=days,
            study_digest=study_digest,
            study_name=study_name,
            epsilon=epsilon,
            delta=delta,
        )

    def revoke(self, order_id: str) -> Order:
        """Take an approval or a rule back: no new study and no new turn under it."""
        return self._order("revoke", order_id=order_id)

    def acknowledge(
        self,
        server: str,
        head_no: int,
        commitment: str,
        *,
        budget: str,
        epsilon: float,
        delta: float,
    ) -> Order:
        """Charge what a ledger has lost, so that it may go on.

        Args:
            server: Who remembers a newer entry.
            head_no: Of that entry, as the refusal names it.
            commitment: Likewise.
            budget: Whose people the lost studies read.
            epsilon: Of all that is lost together; more rather than less.
            delta: Likewise.
        """
        return self._order(
            "gap",
            server=server,
            head_no=head_no,
            commitment=commitment,
            budget=budget,
            epsilon=epsilon,
            delta=delta,
        )

    def excuse(self, server: str, *, days: float | None = None) -> Order:
        """Let the site spend though a server cannot say what it remembers.

        Args:
            server: Its name in the ledger, as the refusal tells it.
            days: It must be asked again after them; None: never.
        """
        return self._order("excuse", days=days, server=server)

    def hand_over(self, public_hex: str) -> Order:
        """Let another key decide from here on."""
        return self._order("officer", public_key=public_hex)

    def _order(self, say: str, *, days: float | None = None, **terms: Any) -> Order:
        now_s = self._clock()
        self._serial = max(self._serial + 1, int(now_s * 1000))
        return Order.sign(
            self._key,
            say,
            site=self._site,
            serial=self._serial,
            issued=_stamp(now_s),
            expires=None if days is None else _stamp(now_s + days * DAY_S),
            **terms,
        )


def make_key(folder: Path) -> str:
    """Make an officer's key: `officer.key` (secret) and `officer.pub` in a folder.

    Returns:
        The public key, 64 hexadecimal digits.

    Raises:
        EnrolmentError: A key is there already (GLD-E004).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = SigningKey.generate()
    key.save(folder / "officer.key")
    durable.write(folder / "officer.pub", key.public_hex.encode() + b"\n")
    return key.public_hex


def read_public_key(path: Path) -> str:
    """The officer's public key from the file that `make_key` wrote.

    Raises:
        EnrolmentError: The file cannot be read or holds no such key (GLD-E040).
    """
    try:
        text = path.read_text("ascii").strip()
    except (OSError, ValueError):
        text = ""
    if not HEX.fullmatch(text):
        raise EnrolmentError(
            "GLD-E040",
            f"{path} holds no officer's public key",
            why="Budgets and studies count only with an officer's signature.",
            fix="`guilder privacy officer-key` makes one; copy its officer.pub here.",
        )
    return text


def put(order: Order, folder: Path) -> Path:
    """Write an order's file into a folder, such as a site's drop box; durable.

    Returns:
        The file; its name says the kind and ends with the order's id.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{order.serial}-{order.say}-{order.order_id[:16]}.json"
    durable.write(path, order.to_json())
    return path


def _stamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
