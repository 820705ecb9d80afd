"""What `guilder model check` tells of a model: findings, rules, numbers and memory.

A study's model comes from the registry. A researcher's own comes from a module on this
computer that the researcher named: code of the local user, never of a study. This
module changes no model and reads no rows. It imports torch.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guilder_shared import tasks
from guilder_shared.errors import PlanError
from guilder_shared.models import registry
from guilder_shared.privacy import model_check
from guilder_shared.privacy.model_check import Finding, Rule
from guilder_shared.study import Study

if TYPE_CHECKING:
    from torch import Tensor, nn

_WIDE = 60


@dataclass(frozen=True)
class Inspection:
    """A model, looked at.

    Attributes:
        model: As it was named.
        findings: All that is in the way; none is good.
        rules: The trained layers.
        num_trained: Numbers a step clips, noises and releases.
        num_frozen: Numbers that stay.
        bytes_per_row: Memory of one more row in a pass, roughly; None where findings,
            or a shape that is not known, keep it from computing.
        computed: Whether it was run on made-up rows.
    """

    model: str
    findings: tuple[Finding, ...]
    rules: tuple[Rule, ...]
    num_trained: int
    num_frozen: int
    bytes_per_row: int | None
    computed: bool

    def to_json(self) -> dict[str, Any]:
        """As one object, `ok` first."""
        return {"ok": not self.findings} | asdict(self)

    def to_text(self) -> str:
        """For a person: the layers, the sizes, then every finding with its fix."""
        lines = [
            f"{rule.layer:{_WIDE // 2}} {rule.kind:20} {rule.num_trained:>12,}  "
            f"{rule.rule}{', shared' if rule.shared else ''}"
            for rule in self.rules
        ]
        lines.append(
            f"trained numbers {self.num_trained:,}, frozen {self.num_frozen:,}"
        )
        if self.bytes_per_row is not None:
            size = self.bytes_per_row / 2**10
            lines.append(f"memory of a row in a pass: about {size:,.1f} KiB")
        if not self.computed:
            lines.append("not run: name the shape of a row to find more (--input)")
        for f in self.findings:
            lines += [f"{f.error_id} {f.what}", f"  why: {f.why}", f"  fix: {f.fix}"]
            if f.fixable:
                lines.append("  guilder_shared.privacy.model_fix.fix(model) does it")
        if not self.findings:
            lines.append(f"{self.model}: can be trained privately")
        return "\n".join(lines)


def of_study(path: Path, overrides: Sequence[str] = ()) -> Inspection:
    """Look at the model that a study names.

    Raises:
        StudyError: The study is wrong, or its model is not installed here.
    """
    from guilder_shared.training.selftest import source

    study = Study.load(path, overrides)
    registry.demand_model(study)
    rows = source.examples(study, source.table(study, 2))
    inputs, targets = _tensor(rows.inputs), _tensor(rows.targets)
    losses = tasks.recipe(study.study.recipe).losses
    return _inspect(str(path), registry.build(study), inputs, targets, losses)


def of_module(
    named: str, shape: str | None = None, tokens: int | None = None
) -> Inspection:
    """Look at a model of the researcher's own.

    Args:
        named: MODULE:ATTRIBUTE, a torch module or what makes one without arguments.
            The module is imported from the current folder or the path.
        shape: Of one row, as 3x32x32. None checks only what shows without computing.
        tokens: Rows are whole numbers below this; None for numbers within 1 of 0.

    Raises:
        PlanError: GLD-P064 that is no model; GLD-P063 that is no shape.
    """
    import torch

    model = _own(named)
    if shape is None:
        return _inspect(named, model, None, None, None)
    try:
        sides = [int(side) for side in shape.lower().split("x")]
        inputs = torch.zeros(2, *sides)
    except (ValueError, RuntimeError) as error:
        raise PlanError(
            "GLD-P063",
            f"{shape!r} is no shape of a row.",
            fix="Write it as 3x32x32, without the number of rows.",
        ) from error
    if tokens is not None:
        inputs = torch.full((2, *sides), tokens - 1)
    return _inspect(named, model, inputs, None, None)


def _inspect(
    named: str, model: "nn.Module", inputs: Any, targets: Any, losses: Any
) -> Inspection:
    findings = model_check.check(model, inputs, targets, losses)
    size = None
    if inputs is not None and not findings:
        size = model_check.bytes_per_row(model, inputs, targets, losses)
    trained = model_check.num_trained(model)
    return Inspection(
        model=named,
        findings=tuple(findings),
        rules=tuple(model_check.rules(model)),
        num_trained=trained,
        num_frozen=sum(p.numel() for p in model.parameters()) - trained,
        bytes_per_row=size,
        computed=inputs is not None,
    )


def _own(named: str) -> "nn.Module":
    from torch import nn

    module, _, attribute = named.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
        model = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise _no_model(named, f"{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(model, nn.Module):
        raise _no_model(named, f"it gives a {type(model).__name__}")
    return model


def _no_model(named: str, why: str) -> PlanError:
    return PlanError(
        "GLD-P064",
        f"{named!r} names no torch model.",
        why=why.split("\n", maxsplit=1)[0][:200],
        fix="Name MODULE:ATTRIBUTE, a model or a function without arguments that makes "
        "one, or a study file ending in .toml.",
    )


def _tensor(array: Any) -> "Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
