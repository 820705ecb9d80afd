"""The rows a study began with, remembered at this site alone.

At a study's first turn, after the charge, the site writes down how many rows and
persons it found, a keyed fingerprint, where they came from and which columns were
asked for. When rows are read again (the client was started again, the file was written
anew) they are compared; `[policy] on_change` says what follows. Nothing of this leaves:
the ledger gets a salted commitment, once, and the server at most `turn-failed`.

Review, mathematics. Under "continue" nothing that leaves depends on the comparison.
"ask" and "stop" let the server see, as a failed turn, that rows were edited in
mid-study: one bit that is not noised, which is why neither is the default. Neither says
which rows. Rows that the list of exclusions took out are no change.
Review, crash order. Key, then record, then the ledger's `cohort`, then training. Killed
between record and entry, no result has left: the next attempt writes both anew.
"""

import hashlib
import hmac
import json
import logging
import secrets
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rfc8785

from guilder_client.settings import SiteFile
from guilder_shared import durable, tables
from guilder_shared.errors import DataError
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

log = logging.getLogger(__name__)
KEY_BYTES = 32
Record = dict[str, Any]


class Home(Protocol):
    """Whose rows they are: a site, as far as it is looked at here."""

    settings: SiteFile
    ledger: Ledger


def fingerprint(key: bytes, rows: Examples) -> str:
    """A keyed hash of the rows as a study sees them, whatever their order.

    The sum modulo 2**256 of an HMAC-SHA-256 of each row, and an HMAC of that: equal for
    the same rows the same number of times, and for nobody without the key foreseeable.

    Args:
        key: The site's secret, 32 bytes.
        rows: Encoded; a cell outside its public bounds counts as the bound.

    Returns:
        64 hexadecimal digits.
    """
    parts = [rows.inputs, rows.targets, *([] if rows.units is None else [rows.units])]
    form, total = f"guilder-cohort-1 {len(rows)}", 0
    columns = []
    for part in parts:
        little = np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<"))
        form += f" {little.dtype.str}{little.shape[1:]}"
        columns.append(little)
    for cells in zip(*columns, strict=True):
        row = b"".join(cell.tobytes() for cell in cells)
        total += int.from_bytes(hmac.digest(key, row, "sha256"))
    end = (total % (1 << 256)).to_bytes(32)
    return hmac.digest(key, form.encode() + b"\n" + end, "sha256").hex()


class Cohorts:
    """The folder `cohorts/` of one site: one file a grant, for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settle(self, site: Home, grant_id: str, study: Study, rows: Examples) -> None:
        """Record the rows of a first turn, or compare those of a later one.

        Args:
            site: Its ledger has charged the turn already.
            grant_id: Of the study here.
            study: For the columns it asks for.
            rows: Without excluded persons, before features are computed.

        Raises:
            DataError: Rows changed, and the policy waits for a person (GLD-D043) or
                ends the study (GLD-D044); or the record is gone and it does not go on
                without (GLD-D045). The turn fails, and says nothing else.
            IntegrityError: The ledger could not be written (GLD-I005).
        """
        found = self._found(site, study, rows)
        committed = site.ledger.cohort_of(grant_id)
        if committed is None:
            record = {"salt": secrets.token_hex(16), "began": found, "seen": [found]}
            self._write(grant_id, record)
            site.ledger.cohort(grant_id, commitment(record))
            return
        self._compare(site, grant_id, found, committed)

    def agree(self, grant_id: str) -> bool:
        """Let a study that waits for a person go on with the rows it found.

        Returns:
            False if it does not wait.
        """
        record = self._load(grant_id) if grant_id.isalnum() else None
        if record is None or "waits" not in record:
            return False
        record["seen"].append(record.pop("waits"))
        self._write(grant_id, record)
        return True

    def _compare(
        self, site: Home, grant_id: str, found: Record, committed: str
    ) -> None:
        policy = site.settings.policy.on_change
        record = self._load(grant_id)
        if record is None or commitment(record) != committed:
            if policy != "continue":
                raise _gone(grant_id)
            log.warning("study %s: the record of its rows is gone", grant_id)
            return
        if policy == "stop" and record.get("stopped"):
            raise _stopped(grant_id)
        # Whoever was excluded since the last turn is missing now, and should be.
        by_list = found["list"] != record["seen"][-1]["list"]
        known = found["fingerprint"] in [r["fingerprint"] for r in record["seen"]]
        if known and not by_list:
            return
        if not by_list and policy == "ask":
            self._write(grant_id, {**record, "waits": found})
            raise _waits(grant_id)
        if not by_list and policy == "stop":
            self._write(grant_id, {**record, "stopped": True})
            raise _stopped(grant_id)
        reason = "another list of exclusions" if by_list else "rows changed"
        log.warning("study %s: %s; it goes on with the rows of now", grant_id, reason)
        record["seen"].append(found)
        self._write(grant_id, record)

    def _found(self, site: Home, study: Study, rows: Examples) -> Record:
        mapped = site.settings.data[study.data.dataset]
        units = rows.units
        word = site.ledger.exclusions().get(study.data.dataset)
        return {
            "rows": len(rows),
            "persons": None if units is None else len(np.unique(units)),
            "fingerprint": fingerprint(self._key(), rows),
            "source": str(mapped.path),
            "query": {
                "kind": mapped.kind,
                "columns": {
                    name: mapped.map.get(name, name)
                    for name in tables.needed(study.site_contract)
                },
            },
            "list": word.commitment if word is not None and word.in_force else None,
        }

    def _key(self) -> bytes:
        path = self.folder / "fingerprint.key"
        if path.exists():
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
        key = secrets.token_bytes(KEY_BYTES)
        self._put(path, key)
        return key

    def _load(self, grant_id: str) -> Record | None:
        try:
            record = json.loads(self._path(grant_id).read_bytes())
        except (OSError, ValueError):
            return None
        whole = isinstance(record, dict) and {"salt", "began", "seen"} <= record.keys()
        return record if whole else None

    def _write(self, grant_id: str, record: Record) -> None:
        self._put(self._path(grant_id), rfc8785.dumps(record))

    def _put(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(path, data, mode=durable.OWNER_ONLY)

    def _path(self, grant_id: str) -> Path:
        return self.folder / f"{grant_id}.json"


def commitment(record: Record) -> str:
    """What the ledger holds of a record: a salted hash of what the study began with."""
    began = hashlib.sha256(rfc8785.dumps(record["began"])).hexdigest()
    text = f"guilder-cohort-1\n{record['salt']}\n{began}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def _waits(grant_id: str) -> DataError:
    return DataError(
        "GLD-D043",
        f"rows of the study {grant_id} changed in mid-study: it waits for a person",
        why='[policy] on_change = "ask". The server hears of a failed turn.',
        fix=f"guilder client agree {grant_id}, or put the rows back.",
    )


def _stopped(grant_id: str) -> DataError:
    return DataError(
        "GLD-D044",
        f"rows of the study {grant_id} changed in mid-study: it has ended here",
        why='[policy] on_change = "stop". The server hears of a failed turn.',
        fix='on_change = "continue" lets it go on with the rows of now.',
    )


def _gone(grant_id: str) -> DataError:
    return DataError(
        "GLD-D045",
        f"the record of the rows of study {grant_id} is gone or was changed",
        why="Without it nobody can say whether rows changed in mid-study.",
        fix="Restore state_dir/cohorts, or set [policy] on_change to continue.",
    )
