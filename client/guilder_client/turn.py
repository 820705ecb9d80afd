"""One site's turn in one round, as a list of verbs.

    1 check   2 spend   3 answer again   4 read   5 train   6 seal   7 send

A turn may measure beside training, on the units held out; after the last round it
measures only.

Mathematics: the only thing computed from rows that leaves is the result of `fit` and of
`charged.release`, private by design 5.4 and 5.7 and covered by the event the ledger
charged when the grant was made; no unit is in both (decision 036). What is measured has
the noise that the ledger says is paid for: of a turn's share, by the root of how many
turns' shares it releases.
Crash order: the charge is durable before a row is read, the sealed file and its ledger
row are durable before a byte is sent. Killed between them, the turn is trained again
under the same charge with fresh randomness; killed after them, the same bytes are sent.
Where a person paused the site at once, sealed bytes stay until the pause ends.
This module knows no network.
"""

import logging
import math
import time
from dataclasses import dataclass

import numpy as np

from guilder_client import consent, policy
from guilder_client.rollback import demand_newest
from guilder_client.site import Site
from guilder_client.variates import Variates
from guilder_client.witnesses import NOT_HEARD
from guilder_shared import witnessing
from guilder_shared.compression import Vector, pack_update, unpack_update
from guilder_shared.errors import (
    BudgetSpent,
    GuilderError,
    IntegrityError,
    PolicyRefused,
    without_values,
)
from guilder_shared.messages import (
    MEASURED,
    MEASURED_BESIDE,
    Close,
    Head,
    Plan,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.privacy.ledger import Grant, Spend
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.held_out import Parts, training_size

log = logging.getLogger(__name__)
GIVEN_UP = "GLD-B005"  # the ledger's word for a turn that was started too often
DEADLINE_MARGIN_S = 2.0  # a failed turn is told just before the server stops waiting


def take(site: Site, request: TurnRequest) -> TurnReply:
    """Take one turn; asked again, give the same bytes.

    Returns a reply whose verdict is done, or one of the constant refusals. After the
    charge nothing but the noised update, `turn-failed` or, where a person paused the
    site, `busy` is returned, whatever the data does; `turn-failed` only at the round's
    deadline, so its time says nothing.
    """
    start = time.monotonic()
    with site.lock:
        try:
            if site.pause is not None:
                site.pause.demand_none(site.name)
            grant, study, plan = policy.check(site, request)  # 1 ours?
            demand_newest(site.ledger, grant.server, request.witness)
            site.hear_witnesses()
            acknowledge(site, grant, request.receipt, request.witness)
            model = unpack(request.model, registry.shapes(study))
            control = _control(site, request, study)
            spend = site.ledger.spend(  # 2 durable
                grant.grant_id,
                request.turn_no,
                request.fingerprint(),
                measures=study.measures(request.round_no),
            )
        except BudgetSpent as error:
            if error.error_id == GIVEN_UP:  # started too often: the server may ask anew
                return _reply(request, Verdict.TURN_FAILED)
            return _reply(request, Verdict.REFUSED_BY_BUDGET, reason=error.brief())
        except GuilderError as error:
            # Not now, but perhaps soon: the round may go on without this site.
            later = error.error_id in (NOT_HEARD, *consent.LATER)
            verdict = Verdict.BUSY if later else Verdict.REFUSED_BY_POLICY
            return _reply(request, verdict, reason=error.brief())
        try:
            if spend.state == "sealed":  # 3 the same again
                data = site.sealed.read(
                    grant.grant_id, request.turn_no, spend.sealed_sha256
                )
            else:
                rows = site.read(grant.grant_id, study)  # 4
                found = None
                if spend.measures:  # 5
                    found = _measure(site, request, study, plan, model, rows, spend)
                if request.round_no == study.measuring_round:
                    assert found is not None, "a turn that only measures was charged so"
                    data = _seal_bytes(site, request, pack({MEASURED: found}))  # 6
                else:
                    parts = (study, plan, model, rows.training, control)
                    update = _train(site, request, *parts)  # 5
                    data = _seal(site, request, study, update, found, control)  # 6
        except Exception as error:
            told = (request.turn_no, grant.study_name, without_values(error))
            log.error("turn %s of %s failed: %s", *told)
            _wait_until(site, start, _last_moment(study.aggregation.round_deadline_s))
            return _reply(request, Verdict.TURN_FAILED)
    _wait_for_quantum(site, start, study.aggregation.reply_quantum_s)
    if site.holds:  # sealed, and asked for again when the pause ends
        return _reply(request, Verdict.BUSY)
    head = _head(site, grant.grant_id, request.turn_no)
    return _reply(request, Verdict.DONE, update=data, head=head)  # 7 send


def acknowledge(
    site: Site, grant: Grant, receipt: Receipt | None, witness: Head | None = None
) -> None:
    """Write the server's receipt into the chain, then drop the sealed file.

    With it stands what the server signed about the ledger's newest entry. A receipt
    for other bytes than were sealed is left alone: the file stays.
    """
    if receipt is None:
        return
    told = witnessing.as_body(witness)
    if site.ledger.receipt(grant.grant_id, receipt.turn_no, receipt.sha256, told):
        site.sealed.delete(grant.grant_id, receipt.turn_no)


def close(site: Site, closing: Close) -> None:
    """The run ended: keep the last receipt, give back what was not spent.

    A ledger in which charges are missing would give back what was spent: nothing is
    freed in one that is older than what the server remembers.

    Raises:
        PolicyRefused: The grant is not of this run.
        IntegrityError: The ledger is not the newest (`demand_newest`).
    """
    grant = site.ledger.find(closing.grant_id)
    if grant is None or grant.run_id != closing.run_id:
        raise PolicyRefused("GLD-S007", f"site {site.name!r} holds no such grant")
    with site.lock:
        demand_newest(site.ledger, grant.server, closing.witness)
        acknowledge(site, grant, closing.receipt, closing.witness)
        site.ledger.close(grant.grant_id)
        _variates(site).forget(grant.grant_id)
        site.forget(grant.grant_id)


@dataclass(frozen=True)
class _Control:
    """The global control variate of a turn, and the site's own that it begins from."""

    whole: Weights
    own: Weights


def _control(site: Site, request: TurnRequest, study: Study) -> _Control | None:
    """The variates of this turn; None where the study has none. Reads no row."""
    if request.round_no == study.measuring_round:
        return None  # nothing is trained
    wanted = study.aggregation.has_controls
    if wanted != bool(request.control):
        raise IntegrityError(
            "GLD-I111",
            f"the turn's request has {'a' if request.control else 'no'} control "
            f'variate, with strategy = "{study.aggregation.strategy}"',
            fix="Compare the versions on both sides.",
        )
    if not request.control:
        return None
    shapes = registry.shapes(study)
    own = _variates(site).base(request, shapes)
    _variates(site).settle(request)
    return _Control(unpack(request.control, shapes), own)


def _variates(site: Site) -> Variates:
    return Variates(site.sealed.folder / "variates")


def _train(
    site: Site,
    request: TurnRequest,
    study: Study,
    plan: Plan,
    model: Weights,
    examples: Examples,
    control: _Control | None,
) -> Weights:
    from guilder_shared.training.fit import fit
    from guilder_shared.training.variates import shift

    return fit(
        model,
        study,
        plan,
        examples,
        public_size=training_size(site.public_size(study), study),
        keys=_keys(site, request, study),
        shift=None if control is None else shift(control.own, control.whole),
    )


def _measure(
    site: Site,
    request: TurnRequest,
    study: Study,
    plan: Plan,
    model: Weights,
    rows: Parts,
    spend: Spend,
) -> Vector:
    from guilder_shared.training import asked, charged

    key = _keys(site, request, study).key("metrics", 0)
    if study.statistics is not None:
        assert plan.noise_multiplier is not None, "its plan was checked with the offer"
        noise = plan.noise_multiplier  # each turn pays for a whole release
        told = asked.release(study, rows.training, noise_multiplier=noise, key=key)
        return told.astype(np.float32)
    assert rows.measured is not None, "only a study that measures has such a round"
    assert plan.measuring_noise is not None, "its plan was checked with the offer"
    found = charged.release(
        model,
        study,
        rows.measured,
        noise_multiplier=plan.measuring_noise / math.sqrt(spend.measures),
        key=key,
    )
    return found.astype(np.float32)


def _keys(site: Site, request: TurnRequest, study: Study) -> TurnKeys:
    return TurnKeys.choose(
        study,
        site=site.name,
        round_no=request.round_no,
        turn_no=request.turn_no,
        simulation_seed=site.seed,
    )


def _seal(
    site: Site,
    request: TurnRequest,
    study: Study,
    update: Weights,
    measured: Vector | None,
    control: _Control | None,
) -> bytes:
    """Make the update durable, after what must not be lost with it."""
    from guilder_shared.training.variates import renewed

    compression = study.aggregation.compression
    data = pack_update(update, compression, measured)
    if control is not None:  # of what the server will read
        num = 0 if measured is None else len(measured)
        read = unpack_update(data, registry.shapes(study), compression, num)
        read.pop(MEASURED_BESIDE, None)
        own = renewed(control.own, control.whole, read, study)
        _variates(site).write(request, data, own)
    return _seal_bytes(site, request, data)


def _seal_bytes(site: Site, request: TurnRequest, data: bytes) -> bytes:
    digest = site.sealed.write(request.grant_id, request.turn_no, data)
    site.ledger.seal(request.grant_id, request.turn_no, digest)
    return data


def _reply(
    request: TurnRequest,
    verdict: Verdict,
    *,
    update: bytes = b"",
    reason: str = "",
    head: Head | None = None,
) -> TurnReply:
    asked = (request.grant_id, request.turn_no, request.round_no)
    return TurnReply(verdict, *asked, update, reason, head)


def _head(site: Site, grant_id: str, turn_no: int) -> Head | None:
    """What the sealed turn commits this site to; the same whenever it is asked."""
    grant = site.ledger.find(grant_id)
    sealed = None if grant is None else grant.turns.get(turn_no)
    if grant is None or sealed is None or sealed.head_no is None:
        return None
    head = site.ledger.heads(grant.server)[sealed.head_no - 1]
    return Head(head.head_no, head.commitment)


def _last_moment(deadline_s: float) -> float:
    return deadline_s - min(DEADLINE_MARGIN_S, deadline_s / 10)


def _wait_until(site: Site, start: float, elapsed_s: float) -> None:
    if site.paced:
        time.sleep(max(0.0, start + elapsed_s - time.monotonic()))


def _wait_for_quantum(site: Site, start: float, quantum_s: float) -> None:
    """Sleep to the next multiple of the quantum, so that time tells little."""
    if site.paced and quantum_s > 0:
        elapsed_s = time.monotonic() - start
        time.sleep(quantum_s - elapsed_s % quantum_s)
