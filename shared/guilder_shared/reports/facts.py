"""What a report's entries say beside its own members: for the annex to answer from.

Read from the entries that the report itself carries, so that the page needs nothing
else. Computes no epsilon; checks nothing, for a page shows what `verify` checks.
"""

import json
import math
from typing import Any

from guilder_shared.reports.build import Report


class Facts:
    """A report's entries, looked through once.

    Attributes:
        began: Time of the first entry.
        servers: That the site's studies were for, by name.
    """

    def __init__(self, report: Report) -> None:
        entries = report["ledger"]["entries"]
        self.began = str(entries[0]["body"]["time"])
        self.servers = sorted({str(study["server"]) for study in report["studies"]})
        self._grants: dict[str, Report] = {}
        self._sizes: dict[str, Report] = {}
        for entry in entries:
            body = entry["body"]
            if entry["kind"] == "reserve":
                self._grants[body["grant_id"]] = body
            elif entry["kind"] == "order" and body["order"]["say"] == "public-size":
                self._sizes[body["order"]["dataset"]] = body["order"]

    def recipe(self, study: Report) -> str:
        """The recipe that a study names."""
        return str(self._grants[study["grant_id"]]["recipe"])

    def part(self, study: Report, name: str) -> dict[str, Any]:
        """A table of the study as it was accepted; empty where no entry carries it."""
        told = self._grants[study["grant_id"]]["meta"].get("study")
        whole = json.loads(told) if isinstance(told, str) else {}
        return dict(whole.get(name) or {})

    def size(self, study: Report) -> tuple[int | None, int | None]:
        """Public rows and persons of a study's dataset, as the officer signed last."""
        order = self._sizes.get(study["dataset"])
        return (None, None) if order is None else (order["rows"], order["persons"])


def mu(study: Report) -> float | None:
    """The mu of Gaussian differential privacy of all declared turns, rounded up.

    For Gaussian steps of noise z without sampling it is sqrt(number of steps) / z,
    exactly; None for any other mechanism.

    Source: Dong, Roth and Su 2022, corollary 3.3.
    """
    (line,) = study["events"]
    one = _squared(line["event"])
    if one is None:
        return None
    return math.ceil(1e3 * math.sqrt(one * line["num_turns"])) / 1e3


def _squared(event: dict[str, Any]) -> float | None:
    """Sum of 1 / z² over an event's Gaussian steps; None if one is something else."""
    if event["event"] == "gaussian":
        return float(event["noise_multiplier"]) ** -2
    if event["event"] == "self-composed":
        inner = _squared(event["of"])
        return None if inner is None else int(event["count"]) * inner
    return None
