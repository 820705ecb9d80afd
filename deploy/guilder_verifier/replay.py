"""The entries replayed: each must be possible after those before it.

Written from docs/ledger.md, "Rules that a reader can check". What a chain and its
signatures show was checked before.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from guilder_verifier import FORMAT, edwards, events
from guilder_verifier.budgets import Budget, Grant, seconds
from guilder_verifier.entries import Entry
from guilder_verifier.finding import Finding
from guilder_verifier.orders import Orders, demand
from guilder_verifier.renyi import ORDERS

NUM_REPEATS = 3
WITNESS = {"server_key", "head_no", "commitment", "signature"}
CANNOT_BE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
Body = dict[str, Any]


class Replay:
    """What the entries so far say.

    Attributes:
        site: The site's name.
        key: The site's public key.
        time: Of the newest entry.
        budgets: By name, those withdrawn as well.
        grants: By id, oldest first.
    """

    def __init__(self) -> None:
        self.site = self.key = self.time = ""
        self.budgets: dict[str, Budget] = {}
        self.grants: dict[str, Grant] = {}
        self.orders = Orders("")
        self._runs: set[tuple[str, str, str]] = set()
        self._heads: dict[str, list[str]] = {}
        self._cohorts: set[str] = set()
        self._excluded: set[str] = set()

    def apply(self, entry: Entry) -> None:
        """Learn one entry.

        Raises:
            Finding: GLD-I007 it cannot follow those before it, GLD-I060 or GLD-I061
                the ledger has another format than this verifier reads.
        """
        try:
            body = json.loads(entry.body)
            learn = getattr(self, "_" + entry.kind.replace("-", "_") + "_entry")
            demand((entry.seq == 1) == (entry.kind == "ledger"))
            demand(bool(seconds(body["time"])) and body["time"] >= self.time)
            learn(entry, body)
        except CANNOT_BE:
            raise Finding(
                "GLD-I007",
                f"entry {entry.seq} ({entry.kind}) cannot follow the entries before it",
            ) from None
        self.time = body["time"]

    def in_force(self) -> list[Budget]:
        """The budgets that are not withdrawn, by name."""
        named = sorted(self.budgets.items())
        return [budget for _, budget in named if budget.in_force]

    def _ledger_entry(self, _: Entry, body: Body) -> None:
        if body["format"] != FORMAT:
            is_newer = events.whole(body["format"]) > FORMAT
            raise Finding(
                "GLD-I061" if is_newer else "GLD-I060",
                f"the ledger has format {body['format']}; this reads {FORMAT}",
            )
        self.site, self.key = str(body["site"]), str(body["public_key"])
        self.orders = Orders(str(body["officer"]))

    def _order_entry(self, _: Entry, body: Body) -> None:
        order = self.orders.admit(body, self.site)
        if order["say"] == "withdraw" and order["name"] in self.budgets:
            self.budgets[order["name"]].in_force = False
        if order["say"] == "gap":
            self._acknowledge(order, seconds(body["time"]))
        if order["say"] != "budget":
            return
        budget = self.budgets.setdefault(
            order["name"], Budget(order, seconds(body["time"]))
        )
        budget.terms, budget.in_force = order, True
        for grant_id, grant in self.grants.items():
            if grant.body["dataset"] in order["datasets"]:
                budget.grants[grant_id] = grant

    def _acknowledge(self, order: Body, time: int) -> None:
        budget = self.budgets[order["budget"]]
        demand(budget.in_force)
        budget.charge_gap(order["epsilon"], order["delta"], time)
        told = self._heads.setdefault(order["server"], [])
        head_no = events.whole(order["head_no"])
        demand(head_no <= 1_000_000)
        told.extend([""] * (head_no - len(told)))
        told[head_no - 1] = order["commitment"]

    def _cohort_entry(self, _: Entry, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        demand(bool(grant.turns) and not grant.closed)
        demand(body["grant_id"] not in self._cohorts)
        self._cohorts.add(body["grant_id"])

    def _exclude_entry(self, _: Entry, body: Body) -> None:
        dataset, now = body["dataset"], body["in_force"]
        demand(isinstance(dataset, str) and isinstance(now, bool))
        demand(now or dataset in self._excluded)
        (self._excluded.add if now else self._excluded.discard)(dataset)

    def _reserve_entry(self, _: Entry, body: Body) -> None:
        grant = _grant(body)
        run = (body["server"], body["run_id"], body["study_digest"])
        demand(body["grant_id"] not in self.grants and run not in self._runs)
        demand(self.orders.permit(body["approval"], body))
        named = self._budgets_of(grant)
        if grant.protected:
            demand(bool(named))
            demand(all(b.terms["unit"] in (None, body["unit"]) for b in named))
            demand(all(b.holds(b.total().plus(grant.taken())) for b in named))
            demand(all(b.period_holds(grant) for b in named))
        self.grants[body["grant_id"]] = grant
        self._runs.add(run)
        for budget in named:
            budget.grants[body["grant_id"]] = grant

    def _refuse_entry(self, _: Entry, body: Body) -> None:
        """It changes nothing."""

    def _spend_entry(self, _: Entry, body: Body) -> None:
        grant, turn_no = self.grants[body["grant_id"]], events.whole(body["turn_no"])
        attempt = events.whole(body["attempt"])
        demand(not grant.closed and attempt <= 1 + NUM_REPEATS)
        turn = grant.turns.get(turn_no)
        if turn is None:
            demand(max(grant.turns, default=0) < turn_no <= grant.body["num_turns"])
            demand(attempt == 1 and grant.body["approval"] not in self.orders.revoked)
            named = self._budgets_of(grant)
            if grant.protected:
                demand(bool(named) and all(b.holds(b.total()) for b in named))
        else:
            demand(not turn["done"] and turn["request_hash"] == body["request_hash"])
            demand(attempt == turn["attempt"] + 1)
        grant.turns[turn_no] = {**body, "done": False, "sha256": None, "received": None}

    def _seal_entry(self, entry: Entry, body: Body) -> None:
        grant, turn = self._open_turn(body)
        told = self._heads.setdefault(grant.body["server"], [])
        demand(body["head_no"] == len(told) + 1)
        demand(len(bytes.fromhex(body["salt"])) == 16 and len(body["salt"]) == 32)
        lines = f"guilder-head-1\n{body['salt']}\n{entry.seq}\n{entry.hash}\n"
        told.append(hashlib.sha256(lines.encode()).hexdigest())
        turn.update(done=True, sha256=str(body["sha256"]))

    def _give_up_entry(self, _: Entry, body: Body) -> None:
        self._open_turn(body)[1]["done"] = True

    def _receipt_entry(self, _: Entry, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        turn = grant.turns[body["turn_no"]]
        demand(turn["sha256"] is not None and turn["received"] is None)
        demand(turn["sha256"] == body["receipt"])
        turn["received"] = body["receipt"]
        witness = body.get("witness")
        if witness is not None:
            told = self._heads.get(grant.body["server"], [])
            number = events.whole(witness["head_no"])
            commitment = str(witness["commitment"])
            demand(commitment == told[number - 1 : number][0])
            demand(witness.keys() == WITNESS)
            said = f"guilder-witness-1\n{self.site}\n{number}\n{commitment}\n".encode()
            signature = bytes.fromhex(witness["signature"])
            demand(edwards.verify(witness["server_key"], said, signature))

    def _close_entry(self, _: Entry, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        demand(not grant.closed and body["num_spent"] == len(grant.turns))
        grant.closed = True

    def _open_turn(self, body: Body) -> tuple[Grant, Body]:
        grant = self.grants[body["grant_id"]]
        turn = grant.turns[body["turn_no"]]
        demand(not turn["done"])
        return grant, turn

    def _budgets_of(self, grant: Grant) -> list[Budget]:
        dataset = grant.body["dataset"]
        return [b for b in self.in_force() if dataset in b.terms["datasets"]]


def replay(entries: list[Entry]) -> Replay:
    """Replay all entries and check what each study was charged.

    Raises:
        Finding: As `Replay.apply`; GLD-I013 a study was charged less than its event
            costs, or is not the one whose digest was accepted.
    """
    book = Replay()
    for entry in entries:
        book.apply(entry)
    for grant in book.grants.values():
        _check_charge(grant)
    return book


def _grant(body: Body) -> Grant:
    event = body["turn_event"]
    renyi = {order: float(body["renyi"][str(order)]) for order in ORDERS}
    demand(body["protected"] is events.is_protected(event))
    demand(all(0 <= part < float("inf") for part in renyi.values()))
    demand(body["unit"] in ("record", "person", "site"))
    events.whole(body["num_turns"])
    events.whole(body["cohort"])
    events.number(body["epsilon"])
    events.number(body["delta"], 1)
    return Grant(body, body["protected"], renyi)


def _check_charge(grant: Grant) -> None:
    name, text = grant.body["study_name"], grant.body["meta"].get("study")
    try:
        enough = events.is_charged_enough(grant.body["turn_event"], grant.renyi)
    except CANNOT_BE:
        enough = False
    if grant.protected and enough is False:
        raise Finding("GLD-I013", f"study {name!r} was charged less than it costs")
    if text is not None:
        digest = hashlib.sha256(str(text).encode()).hexdigest()
        if digest != grant.body["study_digest"]:
            raise Finding("GLD-I013", f"study {name!r} is not the one accepted")
