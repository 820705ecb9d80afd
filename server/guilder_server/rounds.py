"""The protocol of a study, as one loop.

    for each round:  1 who   2 ask   3 sum, and forget   4 learn   5 remember
    where the study says so, the sites measure a round's model in the next one, and the
    last one once more

Each site answers with its own noised update, so the sum protects nobody further and
no raw value ever arrives here. What is durable when: a turn's number is stored before
it is asked for; the new model is stored before the next round begins. Killed anywhere,
the loop continues with the same requests, which the sites answer with the same bytes.
This module knows neither Flower nor torch.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from guilder_server import aggregate, exclusion, measures
from guilder_server.cohort import Cohort, Member, blaming, refusal
from guilder_server.consents import Consents
from guilder_server.grid import Sites
from guilder_server.heads import Heads
from guilder_server.requests import Asked, Requests
from guilder_server.runstore import RunStore
from guilder_server.strategies import Kept, Strategy, Whole
from guilder_shared import tensors, wire
from guilder_shared.compression import unpack_update
from guilder_shared.errors import IntegrityError, RunFailed
from guilder_shared.messages import (
    MEASURED,
    MEASURED_BESIDE,
    Head,
    Offer,
    Plan,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    sha256,
    unpack,
)
from guilder_shared.study import Study
from guilder_shared.training.average import average

Evaluate = Callable[[Weights], dict[str, float]]
BUSY_S = 0.05  # before a site is asked again that was busy or gave a turn up
MOST_BUSY_S = 1.0  # a site that stays busy, such as a paused one, is asked less often
STATE: Final = "strategy"  # names of what a strategy keeps, in the run store
KEPT: Final = "strategy_since"
LARGE_BYTES: Final = 2**24  # of a model: reading it again costs less than holding it
ATTEMPTS = 2  # a round without quorum is asked once more, then the run stops


@dataclass(frozen=True)
class Run:
    """One study to be carried through: what, where it is kept, how it is measured."""

    study: Study
    plan: Plan
    store: RunStore
    evaluate: Evaluate
    only: frozenset[str] = frozenset()  # names of the sites; empty = all that come
    stopped: threading.Event = field(default_factory=threading.Event)
    heads: Heads = field(default_factory=lambda: Heads(None))
    patience_s: float = 0.0  # for people's consent, beyond the round's deadline
    wanted: Callable[[], bool] = lambda: False  # the place, by another run


def run(task: Run, sites: Sites) -> Weights:
    """Carry the study through all its rounds and return the final model.

    Raises:
        RunFailed: No quorum in a round, asked twice; names the missing sites.
        GivesWay: People have not decided yet, and another run wants the place.
        PolicyRefused, BudgetSpent: A site refused; names it.
        IntegrityError: A site sent what no honest site sends; names it.
    """
    study, store = task.study, task.store
    offer = Offer(store.run_id, study.canonical(), task.plan)
    out = exclusion.names(store)
    consents = Consents(store, task.patience_s, task.wanted)
    cohort = Cohort(sites, study, offer, consents, task.only, task.heads, out)
    strategy = Strategy(study, task.plan, store.folder / "updates.tmp")
    shapes = strategy.state_shapes(store.shapes())
    kept = strategy.kept(store.shapes(), store.beside(STATE, shapes), store.fact(KEPT))
    average_before = store.model() if study.training.average else {}
    load = _again(store, store.iterate())
    hashing = ThreadPoolExecutor(1, "receipts")  # its thread ends with it
    for round_no in store.remaining(study.training_rounds):
        cohort.choose(awaited=store.last_sites())  # 1 who
        weights = cohort.weights(exclusion.sizes(store, round_no))
        updates = strategy.begin(store.shapes(), weights)
        receipts, heads = dict[str, Receipt](), dict[str, Head]()
        told = measures.empty(study) if study.measures(round_no) else None
        asked = Asked(round_no, load, kept)
        for member, reply, update in _turns(task, cohort, asked):  # 2 ask
            if told is not None:
                told = measures.add(told, update.pop(MEASURED_BESIDE))
            digest = hashing.submit(sha256, reply.update)
            updates.add(update, member)  # 3 sum, and forget
            receipts[member.site] = Receipt(reply.turn_no, digest.result())
            if reply.head is not None:
                heads[member.site] = reply.head
            del reply, update, digest
        whole = Whole.of(weights, cohort.members, receipts)
        model, kept = strategy.close(round_no, load(), updates, kept, whole)  # 4 learn
        published, beside = model, {STATE: kept.state} if kept.state else {}
        if study.training.average:
            decay = study.training.average
            published = average(average_before, model, round_no, decay)
            average_before, beside["iterate"] = published, model
        facts = {} if kept.facts is None else {KEPT: kept.facts}
        task.heads.remember(heads, run_id=store.run_id)  # durable before the round
        store.commit(  # 5
            round_no,
            published,
            receipts,
            metrics=task.evaluate(published),
            told=None if told is None else measures.read_off(study, told),
            beside=beside,
            facts=facts,
        )
        load = _again(store, model)
        del model, published, beside
    (store.folder / "model.tmp").unlink(missing_ok=True)
    last = study.measuring_round
    if last is not None and not store.is_measured(last):
        _measure(task, cohort, store.model(), last)
    if not cohort.members:  # killed when all was done but the telling
        cohort.find(store.last_sites())
    cohort.close(store.receipts())
    return store.model()


def _measure(task: Run, cohort: Cohort, model: Weights, round_no: int) -> None:
    """One more turn of every site, on units that it held out, under its own charge."""
    store, total = task.store, measures.empty(task.study)
    cohort.choose(awaited=store.last_sites())
    receipts, heads = dict[str, Receipt](), dict[str, Head]()
    asked = Asked(round_no, lambda: model, Kept({}))
    for member, reply, found in _turns(task, cohort, asked):
        total = measures.add(total, found[MEASURED])
        receipts[member.site] = Receipt(reply.turn_no, sha256(reply.update))
        if reply.head is not None:
            heads[member.site] = reply.head
    task.heads.remember(heads, run_id=store.run_id)
    store.measure(round_no, receipts, measures.read_off(task.study, total))


def _again(store: RunStore, model: Weights) -> Callable[[], Weights]:
    """Gives the model again that sites train; a large one waits on disk meanwhile.

    Where a round has made it, it lies there already; the initial one is written.
    """
    if sum(w.nbytes for w in model.values()) <= LARGE_BYTES:
        return lambda: model
    if store.last_round():
        return store.iterate
    scratch = store.folder / "model.tmp"
    with scratch.open("wb") as file:
        file.writelines(tensors.parts(model))
    return lambda: unpack(scratch.read_bytes(), store.shapes())


def _turns(
    task: Run, cohort: Cohort, asked: Asked
) -> Iterator[tuple[Member, TurnReply, Weights]]:
    """Ask every member for its turn; yield each checked update as it arrives.

    Ends when all have answered, or at the deadline if min_sites have; without quorum
    those that have not answered are asked once more, then RunFailed names them. A site
    whose answer fails a check is out (`exclusion`) and counts as no answer.
    """
    missing = {member.node_id: member for member in cohort.members.values()}
    num_answers, round_no = 0, asked.round_no
    quorum = task.study.aggregation.min_sites
    for _ in range(ATTEMPTS):
        for member, answer in _ask(task, cohort, missing, asked):
            del missing[member.node_id]
            if isinstance(answer, IntegrityError):
                exclusion.exclude(task.store, cohort, member, round_no, answer)
                continue
            num_answers += 1
            yield member, *answer
            del answer
        if num_answers >= quorum:
            break
    else:
        names = ", ".join(sorted(m.site for m in missing.values()))
        raise RunFailed(
            "GLD-R002",
            f"round {round_no}: {num_answers} of at least {quorum} "
            f"sites answered in {ATTEMPTS} x "
            f"{task.study.aggregation.round_deadline_s:.0f} s; missing: {names}",
            fix="see to the missing sites, then `guilder run resume`",
        )
    for member in missing.values():
        task.store.event("site-missed-round", site=member.site, round=round_no)


Answer = tuple[TurnReply, Weights] | IntegrityError


def _ask(
    task: Run,
    cohort: Cohort,
    missing: dict[int, Member],
    whole: Asked,
) -> Iterator[tuple[Member, Answer]]:
    """One deadline's worth of asking; a turn given up is asked under a new number.

    A new number has a deadline of its own; there are only as many as spare turns.
    """
    deadline_s = task.study.aggregation.round_deadline_s
    asked, ends = dict(missing), time.monotonic() + deadline_s
    busy_s, waiting = BUSY_S, set[str]()
    while asked and (left_s := ends - time.monotonic()) > 0:
        failed: dict[int, Member] = {}
        requests = Requests(whole, task.store, task.heads, asked)
        for node_id, content in cohort.sites.ask(
            requests, wire.TURN, group=str(whole.round_no), timeout_s=left_s
        ):
            member = asked[node_id]
            try:
                with blaming(member.site):
                    reply = wire.decode_reply(content)
                    del content
                    update = _update(task, requests.by_node[node_id], reply)
            except IntegrityError as error:
                yield member, error
                continue
            if reply.verdict == Verdict.DONE:
                with blaming(member.site):  # a ledger put back ends the run
                    task.heads.check(member.site, reply.head)
                yield member, (reply, update)
                del reply, update  # not kept while the next one comes in
            elif reply.verdict in (Verdict.TURN_FAILED, Verdict.BUSY):
                failed[node_id] = member
                if reply.verdict == Verdict.TURN_FAILED:
                    _give_up(task, member, whole.round_no, reply.turn_no)
                    ends = time.monotonic() + deadline_s
                elif member.site not in waiting:
                    waiting.add(member.site)
                    task.store.event("site-waits", site=member.site, why=reply.reason)
            else:
                raise refusal(member.site, reply.verdict, reply.reason)
        asked = failed
        if asked:
            time.sleep(min(busy_s, max(0.0, ends - time.monotonic())))
            busy_s = min(2 * busy_s, MOST_BUSY_S)


def _update(task: Run, request: TurnRequest, reply: TurnReply) -> Weights:
    """The update of the turn that was asked; empty where the reply is but a word."""
    answered = (reply.grant_id, reply.turn_no, reply.round_no)
    if answered != (request.grant_id, request.turn_no, request.round_no):
        raise IntegrityError("GLD-I048", "it answered another turn than was asked")
    if reply.verdict != Verdict.DONE:
        return {}
    num = measures.size(task.study) if task.study.measures(reply.round_no) else 0
    if reply.round_no == task.study.measuring_round:
        found = unpack(reply.update, {MEASURED: (num,)})
        measures.check(found[MEASURED])
        return found
    compression = task.study.aggregation.compression
    update = unpack_update(reply.update, task.store.shapes(), compression, num)
    if num:
        measures.check(update[MEASURED_BESIDE])
    aggregate.check({n: w for n, w in update.items() if n != MEASURED_BESIDE})
    return update


def _give_up(task: Run, member: Member, round_no: int, turn_no: int) -> None:
    task.store.event("turn-failed", site=member.site, round=round_no, turn=turn_no)
    if turn_no >= task.plan.num_turns:
        raise RunFailed(
            "GLD-R003",
            f"site {member.site!r} gave up turn {turn_no} of {task.plan.num_turns} in "
            f"round {round_no}; it has no spare turn left",
            fix="read the site's log; start the study again without it",
        )
    task.store.drop_turn(round_no, member.site)
