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
from guilder_verifier.orders import Orders, demand, unhex
from guilder_verifier.renyi import ORDERS
from guilder_verifier.shapes import is_entry, is_number

NUM_REPEATS = 3
LEAST_SLACK = 1e-3
PLAN = {"noise_multiplier", "num_turns", "sensitivity_slack"}
WITNESS = {"server_key", "head_no", "commitment", "signature"}
CANNOT_BE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
Body = dict[str, Any]


class Replay:
    """What the entries so far say.

    Attributes:
        site: The site's name.
        key: The site's public key.
        first_officer: The officer's key that the ledger began with.
        time: Of the newest entry.
        budgets: By name, those withdrawn as well.
        grants: By id, oldest first.
        forgot: By server, what it forgot: the head's number, the time of the entry and
            what it still knew.
    """

    def __init__(self) -> None:
        self.site = self.key = self.time = self.first_officer = ""
        self.budgets: dict[str, Budget] = {}
        self.grants: dict[str, Grant] = {}
        self.orders = Orders("")
        self.refusals: list[Body] = []
        self._runs: set[tuple[str, str, str]] = set()
        self.forgot: dict[str, dict[int, tuple[str, int]]] = {}
        self._heads: dict[str, list[str]] = {}
        self._words: dict[str, int] = {}  # by server, the highest head it signed for
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
            demand((entry.seq == 1) == (entry.kind == "ledger"))
            if entry.kind == "ledger":
                _check_format(body["format"])
            demand(is_entry(entry.kind, body) and body["time"] >= self.time)
            learn = getattr(self, "_" + entry.kind.replace("-", "_") + "_entry")
            learn(entry, body)
            if entry.kind in ("order", "reserve", "close"):
                for budget in self.budgets.values():
                    budget.forget()
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
        self.site, self.key = str(body["site"]), str(body["public_key"])
        self.first_officer = body["officer"]
        self.orders = Orders(self.first_officer)

    def _order_entry(self, entry: Entry, body: Body) -> None:
        order = self.orders.admit(body, self.site, entry.seq)
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
        self.refusals.append(body)

    def _spend_entry(self, _: Entry, body: Body) -> None:
        grant, turn_no = self.grants[body["grant_id"]], events.whole(body["turn_no"])
        attempt = events.whole(body["attempt"])
        demand(not grant.closed and attempt <= 1 + NUM_REPEATS)
        turn, measures = grant.turns.get(turn_no), body.get("measures", 0)
        demand(type(measures) is int and measures >= 0)
        if turn is None:
            demand(measures == 0 or measures <= grant.unmeasured())
            newest = next(reversed(grant.turns), 0)  # they only grow
            demand(newest < turn_no <= grant.body["num_turns"])
            demand(attempt == 1 and grant.body["approval"] not in self.orders.revoked)
            named = self._budgets_of(grant)
            if grant.protected:
                demand(bool(named) and all(b.holds(b.total()) for b in named))
        else:
            demand(not turn["done"] and turn["request_hash"] == body["request_hash"])
            demand(attempt == turn["attempt"] + 1)
            demand(measures == turn.get("measures", 0))
        charged_at = body["time"] if turn is None else turn["charged_at"]
        still = {"done": False, "given_up": False, "charged_at": charged_at}
        left = {"sha256": None, "sealed_at": None, "received": None}
        grant.turns[turn_no] = {**body, **still, **left}

    def _seal_entry(self, entry: Entry, body: Body) -> None:
        grant, turn = self._open_turn(body)
        told = self._heads.setdefault(grant.body["server"], [])
        demand(body["head_no"] == len(told) + 1)
        demand(len(unhex(body["salt"])) == 16)
        lines = f"guilder-head-1\n{body['salt']}\n{entry.seq}\n{entry.hash}\n"
        told.append(hashlib.sha256(lines.encode()).hexdigest())
        turn.update(done=True, sha256=str(body["sha256"]), sealed_at=body["time"])

    def _give_up_entry(self, _: Entry, body: Body) -> None:
        self._open_turn(body)[1].update(done=True, given_up=True)

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
            signature = unhex(witness["signature"])
            demand(edwards.verify(witness["server_key"], said, signature))
            server = grant.body["server"]
            self._words[server] = max(number, self._words.get(server, 0))

    def _forgot_entry(self, _: Entry, body: Body) -> None:
        number, lost = body["head_no"], self.forgot.setdefault(body["server"], {})
        demand(self._words.get(body["server"]) == number and number not in lost)
        demand(body["remembers"] < number)
        lost[number] = (body["time"], body["remembers"])

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


def _check_format(found: Any) -> None:
    if events.whole(found) != FORMAT:
        raise Finding(
            "GLD-I061" if found > FORMAT else "GLD-I060",
            f"the ledger has format {found}; this reads {FORMAT}",
        )


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
    events.cases(event)
    return Grant(body, body["protected"], renyi)


def _check_charge(grant: Grant) -> None:
    name, text = grant.body["study_name"], grant.body["meta"].get("study")
    try:
        enough = not grant.protected or events.is_charged_enough(
            grant.body["turn_event"], grant.renyi
        )
        is_asked = text is None or _is_asked(grant)
    except CANNOT_BE:
        enough = is_asked = False
    if not enough:
        raise Finding("GLD-I013", f"study {name!r} was charged less than it costs")
    if not is_asked:
        raise Finding("GLD-I013", f"study {name!r} is not the one accepted")


def _is_asked(grant: Grant) -> bool:
    """Whether the study carried along is the one accepted, and promises the same."""
    body = grant.body
    digest = hashlib.sha256(str(body["meta"]["study"]).encode()).hexdigest()
    privacy, data = grant.part("privacy"), grant.part("data")
    asked = (
        data["dataset"],
        grant.part("study")["recipe"],
        privacy["unit"],
        privacy["epsilon"],
        privacy["delta"],
        grant.part("aggregation")["min_sites"],
        privacy["mechanism"] != "none",
    )
    names = ("dataset", "recipe", "unit", "epsilon", "delta", "cohort", "protected")
    promised = tuple(body[name] for name in names)
    is_promised = asked == promised and _planned_event(grant) == body["turn_event"]
    return digest == body["study_digest"] and is_promised


def _planned_event(grant: Grant) -> Body:
    """The event of a turn that the study and its plan make."""
    plan, training = grant.body["meta"]["plan"], grant.part("training")
    demand(PLAN <= plan.keys() <= PLAN | {"measuring_noise"})
    demand(plan["num_turns"] == grant.body["num_turns"])
    measured = plan.get("measuring_noise")
    if plan["noise_multiplier"] is None:
        demand(measured is None)
        return {"event": "none-protected"}
    asked = grant.part("statistics")
    if asked:  # its sums are exact: one release, or one of each question
        one = {"event": asked["noise"], "noise_multiplier": plan["noise_multiplier"]}
        return _times(1 if asked["noise"] == "gaussian" else len(asked["ask"]), one)
    demand(is_number(plan["sensitivity_slack"]))
    slack = max(plan["sensitivity_slack"], LEAST_SLACK)
    step: Body = {
        "event": "gaussian",
        "noise_multiplier": plan["noise_multiplier"] / (1 + slack),
    }
    if training["sample_rate"] != 1:
        rate = training["sample_rate"]
        step = {"event": "poisson-sampled", "sampling_probability": rate, "of": step}
    steps = _times(training["local_steps"], step)
    if measured is None:
        return steps
    last = _times(1, {"event": "gaussian", "noise_multiplier": measured})
    return {"event": "parallel", "of": [steps, last]}


def _times(count: int, event: Body) -> Body:
    return {"event": "self-composed", "count": count, "of": event}
