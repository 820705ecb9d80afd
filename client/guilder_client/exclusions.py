"""Persons who are left out of a dataset: the list, the site's word on it, the rows.

`[data.NAME] exclude` names a file with one person a line. It is read before each offer
and each turn; what it says is applied before any row is sampled. An id is compared and
forgotten: no file, log, entry or message of this module holds one, nor how many there
are. This module charges nothing and refunds nothing.

Review, mathematics. Whether a row stays follows from its own person cell and the list:
adding or removing a unit moves no other. Public size, rates and divisor stay, so a
shorter dataset has more noise for its size and the same promise. That a list was
edited, and when, is in the ledger.
Review, crash order. A list's salt is durable before its entry, and the entry before the
next charge; a list that cannot be read stops offers and turns before a charge.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guilder_client.data.source import LeaveOut
from guilder_client.settings import DataSource
from guilder_shared import durable
from guilder_shared.errors import DataError, GuilderError, PolicyRefused
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

log = logging.getLogger(__name__)
MOST_BYTES = 64 << 20
NOT_IN_AN_ID = '",;\t\x00'


@dataclass(frozen=True)
class Excluded:
    """The persons that one list names.

    Attributes:
        ids: As they stand in the file, without blanks around them. Memory only.
        digest: SHA-256 over the sorted ids; the same for the same persons.
    """

    ids: frozenset[str] = field(repr=False)
    digest: str


def read_list(path: Path) -> Excluded:
    """Read a list of persons: UTF-8, one id a line; blank lines do not count.

    Raises:
        DataError: GLD-D041 it cannot be read, GLD-D042 a line is no single id. Names
            the line's number and no id; for this site's log alone.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    if len(data) > MOST_BYTES:
        raise _unreadable(path, f"larger than {MOST_BYTES >> 20} MiB")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise _unreadable(path, "not UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if any(mark in line for mark in NOT_IN_AN_ID):
            raise DataError(
                "GLD-D042",
                f"line {number} of {path.name} is no single person's id",
                why="It holds a quote, a comma, a semicolon or a tab.",
                fix="Write one id a line, as in the dataset, without quotes.",
            )
    ids = frozenset(line.strip() for line in lines) - {""}
    digest = hashlib.sha256()
    for each in sorted(ids):
        digest.update(each.encode() + b"\n")
    return Excluded(ids, digest.hexdigest())


class Exclusions:
    """All lists of one site, as they stand now, and what its ledger says of them."""

    def __init__(self, data: Mapping[str, DataSource], folder: Path) -> None:
        """Remember where the lists lie; none is read yet.

        Args:
            data: `[data.…]` of site.toml.
            folder: For salts; made when the first is needed, for its owner alone.
        """
        self._lists = {n: d.exclude for n, d in data.items() if d.exclude is not None}
        self._folder = folder
        self._stated: dict[str, Excluded] = {}  # what the ledger's newest word is about

    def settle(self, site: str, ledger: Ledger) -> None:
        """Read every list and have the ledger say whether and that it applies.

        Raises:
            PolicyRefused: GLD-S040, a list cannot be read. What is wrong with it is in
                this site's log; the error that travels is the same for all.
        """
        for dataset in self._lists:
            found = self._read(site, dataset)
            try:
                commitment = self._commitment(dataset, found)
            except OSError as error:
                log.error("[data.%s] exclude: %s", dataset, error.strerror)
                raise _cannot_apply(site, dataset) from None
            ledger.exclude(dataset, commitment, in_force=True)
            self._stated[dataset] = found
        for dataset, word in ledger.exclusions().items():
            if word.in_force and dataset not in self._lists:
                log.warning("[data.%s] names no list any more: nobody is out", dataset)
                ledger.exclude(dataset, word.commitment, in_force=False)

    def of(self, study: Study) -> LeaveOut | None:
        """Whom to leave out of a study's rows, as last settled; None without a list."""
        found = self._stated.get(study.data.dataset)
        if found is None or study.data.person is None:
            return None
        return LeaveOut(study.data.person, found.ids)

    def mark(self, dataset: str) -> str:
        """Changes when the list of a dataset does; never leaves this process."""
        found = self._stated.get(dataset)
        return "" if found is None else found.digest

    def _read(self, site: str, dataset: str) -> Excluded:
        try:
            return read_list(self._lists[dataset])
        except GuilderError as error:
            log.error("[data.%s] exclude: %s", dataset, error)
        raise _cannot_apply(site, dataset)

    def demand_person(self, site: str, study: Study) -> None:
        """Refuse a study that does not say whose row a row is, where a list applies.

        Raises:
            DataError: GLD-D040.
        """
        if study.data.dataset not in self._lists or study.data.person is not None:
            return
        raise DataError(
            "GLD-D040",
            f"the study names no person column; site {site!r} excludes persons from "
            f"{study.data.dataset!r}",
            why="Without it nobody's rows can be found and left out.",
            fix='person = "…" under [data] in the study; privacy.unit may stay.',
        )

    def _commitment(self, dataset: str, found: Excluded) -> str:
        """The salted hash for the ledger; the salt is kept, and drawn for each list."""
        digest = found.digest
        path = self._folder / f"{dataset}.exclude.json"
        kept = _read_kept(path)
        commitment = _commit(kept.get("salt", ""), dataset, digest)
        if kept.get("commitment") != commitment:
            salt = secrets.token_hex(16)
            commitment = _commit(salt, dataset, digest)
            kept = {"salt": salt, "commitment": commitment}
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(path, json.dumps(kept).encode(), mode=durable.OWNER_ONLY)
        return commitment


def _commit(salt: str, dataset: str, digest: str) -> str:
    text = f"guilder-exclude-1\n{salt}\n{dataset}\n{digest}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def _read_kept(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        "GLD-D041",
        f"the list of excluded persons {path} cannot be read",
        why=why,
        fix="Correct `exclude` in site.toml, or the rights of the file.",
    )


def _cannot_apply(site: str, dataset: str) -> PolicyRefused:
    return PolicyRefused(
        "GLD-S040",
        f"site {site!r} cannot apply its exclusions from {dataset!r}",
        fix="Mend the file that exclude under [data.…] names; see this site's log.",
    )
