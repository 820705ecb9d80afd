"""The self-test of a study at a site: all checks, one answer, before anything is spent.

It runs on made-up rows through the study's own model, recipe, encoder, draws, engine,
noise and divisor, and what it counts and releases. What it found about the model is
public; what failed is for the log of this machine. This module charges nothing and
sends nothing.

Review, mathematics: a study that passes may still be wrong, one that fails is wrong but
for a chance of less than 1e-6 (`chance`). With mechanism "none" nothing is promised and
nothing is tested.
Review, crash order: in memory only; called before a grant is reserved.
"""

import threading
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from guilder_shared import tasks
from guilder_shared.errors import GuilderError, PlanError, without_values
from guilder_shared.messages import Plan, Weights
from guilder_shared.models import registry
from guilder_shared.privacy import model_check
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.training import device
from guilder_shared.training.selftest import (
    divisor,
    figures,
    noise,
    sampling,
    source,
    trial,
    units,
)
from guilder_shared.training.selftest.trial import MakeKeys, Setting

MOST_SECONDS = 2.0  # for removing units, beyond the first
CHECKS = ("model", "noise", "divisor", "draws", "removal of a unit")
METRICS = "charged metrics"  # looked at too, where the study has them
FIGURES = ("noise", "removal of a unit", "bounds")  # of a study of statistics

_passed: dict[tuple[object, ...], "Passed"] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Passed:
    """A self-test that found nothing wrong; on made-up rows, so it may be told.

    Attributes:
        checks: What was looked at.
        version: Of Guilder.
        seconds: How long it took.
    """

    checks: tuple[str, ...]
    version: str
    seconds: float


def ensure(study: Study, plan: Plan, *, public_size: int) -> Passed | None:
    """Run the self-test unless this process has passed the same one before.

    Args:
        study: As offered; without protection there is nothing to test.
        plan: As confirmed.
        public_size: Of this site; its batches decide how rows are passed.

    Returns:
        None for mechanism "none".

    Raises:
        PlanError: As `run`.
    """
    if study.privacy.mechanism == "none":
        return None
    key = (study.digest(), plan, public_size, version("guilder"))
    with _lock:  # one at a time: a second offer waits for the first one's answer
        if key not in _passed:
            _passed[key] = run(study, plan, public_size=public_size)
        return _passed[key]


def run(
    study: Study,
    plan: Plan,
    *,
    public_size: int,
    make_keys: MakeKeys = TurnKeys.from_os,
) -> Passed:
    """Test that this machine's code keeps what the study promises.

    Args:
        study: With a mechanism that adds noise.
        plan: As confirmed.
        public_size: Of this site.
        make_keys: Another source of keys than the operating system, for tests.

    Raises:
        PlanError: GLD-P070 a check failed, each with its finding; GLD-P071 the model
            cannot be trained privately.
    """
    begin = time.monotonic()
    try:
        found = _findings(Setting(study, plan, public_size, make_keys))
    except GuilderError:
        raise
    except Exception as error:  # code that cannot be tested is not trusted
        found = [f"it could not be carried out: {without_values(error)}"]
    if found:
        raise PlanError(
            "GLD-P070",
            "the self-test of this study failed here.",
            why="; ".join(dict.fromkeys(found)) + ".",
            fix="Take part in no study with this installation: install Guilder anew, "
            "and report what it says if that does not help.",
        )
    return Passed(_checks(study, plan), version("guilder"), time.monotonic() - begin)


def _checks(study: Study, plan: Plan) -> tuple[str, ...]:
    if study.statistics is not None:
        return FIGURES
    return CHECKS if plan.measuring_noise is None else (*CHECKS, METRICS)


def _findings(setting: Setting) -> list[str]:
    study = setting.study
    if study.statistics is not None:
        return figures.check_statistics(setting)
    weights = trial.start(study)
    table = source.table(study, units.UNITS)
    some = source.examples(study, table)
    nobody = source.examples(study, table.slice(0, 0))
    with device.turn():
        _check_model(study, weights, some)
    found = noise.check(setting, nobody, weights)
    found += divisor.check(setting, nobody, some, weights)
    found += sampling.check(setting, some, weights)
    until = time.monotonic() + MOST_SECONDS
    found += units.check(setting, weights, until=until)
    if setting.plan.measuring_noise is not None:
        until = time.monotonic() + MOST_SECONDS / 2
        found += figures.check_metrics(setting, weights, until=until)
    return found


def _check_model(study: Study, weights: Weights, some: tasks.Examples) -> None:
    import torch

    module = registry.build(study)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    module.load_state_dict(state, strict=False)
    found = model_check.check(
        module,
        torch.from_numpy(np.ascontiguousarray(some.inputs)),
        torch.from_numpy(np.ascontiguousarray(some.targets)),
        tasks.recipe(study.study.recipe).losses,
    )
    if found:
        raise PlanError(
            "GLD-P071",
            "the study's model cannot be trained privately here.",
            why="; ".join(f"{f.error_id} {f.what}" for f in found),
            fix="Look at it with `guilder model check STUDY`.",
        )
