"""Whether a model can be trained privately, and all that is in the way, layer by layer.

For a researcher before a study, for the self-test before every study. The static rules
are those of the engine (`bookkeeping.validate`), never twins of them; what only shows
when the model computes is found on made-up rows. This module changes no model and sees
no data. It imports torch.

Review, mathematics. Clipping bounds what one unit adds only if a row's output is a
function of that row: one row is replaced, first by another, then by one a thousand
times as large, and every layer's output for the other rows must stay. A layer that
draws at random is refused, because its draws come from no keystream and pass from row
to row. Whether gradients are autograd's is compared on the same rows.
Review, crash order: no data, nothing written.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping import batches, validate
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.fallback import AnyPart
from guilder_shared.privacy.bookkeeping.parts import Units, find

Losses = Callable[[Any, Any], Tensor]

_ROWS = 6
_CLOSE = 1e-4  # of the largest number: kernels round, mixing moves far more
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Finding:
    """One reason why a model cannot be trained privately.

    Attributes:
        error_id: Its page is in docs/errors.
        layer: Path of the layer in the model; "model" for the whole.
        what: What was found.
        why: What it would break.
        fix: What to do about it.
        fixable: Whether `model_fix.fix` does it.
    """

    error_id: str
    layer: str
    what: str
    why: str
    fix: str
    fixable: bool = False


@dataclass(frozen=True)
class Rule:
    """How one trained layer's gradients are clipped.

    Attributes:
        layer: Its path.
        kind: Its class.
        rule: The engine's rule, or "torch.func" for kinds without one.
        num_trained: Numbers it trains; shared ones are counted with each layer.
        shared: Whether another layer trains one of its tensors too.
    """

    layer: str
    kind: str
    rule: str
    num_trained: int
    shared: bool


def check(
    model: nn.Module,
    inputs: Any = None,
    targets: Any = None,
    losses: Losses | None = None,
) -> list[Finding]:
    """All that is in the way of training this model privately; an empty list is good.

    Args:
        model: As it would be trained: modes and frozen parameters count. It is left
            alone.
        inputs: A tensor, or a tuple for a model of several inputs, of any number of
            rows: shapes and dtypes count, and for whole numbers the largest. None
            checks only what shows without computing.
        targets: As `inputs`.
        losses: Outputs and targets to one loss per row; None for half the sum of the
            outputs' squares.

    Returns:
        In the order of the layers: GLD-P020 BatchNorm, GLD-P021 a buffer that changes,
        GLD-P024 too many or no trained numbers, GLD-P051 to GLD-P055 what the engine
        refuses, GLD-P061 randomness, GLD-P062 rows that mix, GLD-P063 a model that
        does not compute at all.
    """
    _, problems = validate.survey(model, AnyPart)
    found = [_finding(name, error) for name, error in problems]
    found += [_random(name) for name, layer in model.named_modules() if _drops(layer)]
    if inputs is None or any(f.error_id == "GLD-P024" for f in found):
        return found
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    below = int(inputs.max()) + 1 if _is_whole(inputs) and len(inputs) else 2
    rows = batches.made_up(inputs, _ROWS, generator, below=below)
    other = batches.made_up(inputs, _ROWS, generator, below=below)
    try:
        found += _computed(trial, rows, other, {f.layer for f in found})
    except PlanError as error:
        return [*found, _finding("model", error)]
    except Exception as error:
        return [*found, _broken(error)]
    if not found:
        goals = None if targets is None else _goals(targets, generator)
        found += _engine_problems(trial, rows, goals, losses or _squares)
    return found


def rules(model: nn.Module) -> list[Rule]:
    """The trained layers and how each is clipped; says nothing on what is refused."""
    layers, _ = validate.survey(model, AnyPart)
    users: dict[int, int] = {}
    for *_, owned in layers:
        for p in owned.values():
            users[id(p)] = users.get(id(p), 0) + 1
    return [
        Rule(
            layer=name,
            kind=type(layer).__name__,
            rule="torch.func" if find(layer) is None else rule.__name__,
            num_trained=sum(p.numel() for p in owned.values()),
            shared=any(users[id(p)] > 1 for p in owned.values()),
        )
        for name, layer, rule, owned in layers
    ]


def num_trained(model: nn.Module) -> int:
    """Numbers that a step clips, noises and releases; shared ones count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def bytes_per_row(
    model: nn.Module, inputs: Any, targets: Any, losses: Losses | None = None
) -> int:
    """Memory that one more row in a pass takes in the engine, roughly.

    Twice what the engine keeps: autograd holds about as much between the layers. The
    arguments are those of `check`, which must have found nothing.
    """
    engine = BookKeeping(copy.deepcopy(model), 1.0, isolated=True)
    rows, goals = batches.zeros(inputs, 2), _zeros(targets, 2)
    run = _run(engine.model, rows, goals, losses or _squares)
    kept = sum(x.numel() for x in engine.entering(run, Units(2)))
    return kept * _FLOAT_BYTES  # of two rows, and twice


def _computed(
    model: nn.Module, rows: Any, other: Any, known: set[str]
) -> list[Finding]:
    """What shows when rows pass: rows that mix, and draws at random."""
    found: list[Finding] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first = _outputs(model, rows, seed=1)
        again = _outputs(model, rows, seed=2)
        name = _first_difference(first, again, slice(None))
        if name is not None and name not in known:
            found.append(_random(name))
            known = known | {name}
        for scale in (1, 1000):
            changed = _with_row(rows, other, scale)
            seen = _outputs(model, changed, seed=1)
            name = _first_difference(first, seen, slice(1, None))
            if name is not None and name not in known:
                found.append(_mixing(name))
                known = known | {name}
    return found


def _outputs(model: nn.Module, rows: Any, *, seed: int) -> list[tuple[str, Tensor]]:
    """Every layer's output, inner layers first, in the order they computed."""
    seen: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_layer: Any, _args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                seen.append((name, first.detach().clone()))

        return hook

    torch.manual_seed(seed)
    with _hooked(model, note):
        batches.call(model, rows)
    return seen


@contextmanager
def _hooked(
    model: nn.Module, note: Callable[[str], Callable[..., None]]
) -> Iterator[None]:
    handles = [
        layer.register_forward_hook(note(name or "model"))
        for name, layer in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_difference(
    one: list[tuple[str, Tensor]], two: list[tuple[str, Tensor]], rows: slice
) -> str | None:
    """The first layer whose output differs in these rows; None where none does."""
    for (name, a), (_, b) in zip(one, two, strict=True):
        if a.shape != b.shape or not a.dim() or len(a) != _ROWS:
            continue
        x, y = a[rows].double(), b[rows].double()
        if bool(((x - y).abs() > _CLOSE * x.abs().max() + 1e-12).any()):
            return name
    return None


def _with_row(rows: Any, other: Any, scale: int) -> Any:
    """The rows, the first of them replaced."""
    if isinstance(rows, tuple):
        return tuple(_with_row(x, y, scale) for x, y in zip(rows, other, strict=True))
    changed = rows.clone()
    changed[0] = other[0] * scale if rows.is_floating_point() else other[0]
    return changed


def _engine_problems(
    model: nn.Module, rows: Any, goals: Any, losses: Losses
) -> list[Finding]:
    engine = BookKeeping(model, 1.0)
    try:
        engine.check_rows(lambda n: batches.call(model, batches.zeros(rows, n)))
        if _losses_mix(model, rows, goals, losses):
            return [_mixing("losses", "the loss")]
        run = _run(model, rows, goals, losses)
        engine.check_gradient(run, Units(batches.num_rows(rows)))
    except PlanError as error:
        return [_finding("model", error, in_place=_in_place(model))]
    except Exception as error:
        return [_broken(error)]
    finally:
        engine.close()
    return []


def _losses_mix(model: nn.Module, rows: Any, goals: Any, losses: Losses) -> bool:
    """Whether a row among others has another loss than the row alone.

    A site's pass may hold one row: there such a loss would say nothing, unseen.
    """
    with torch.no_grad():
        among = _run(model, rows, goals, losses)().double()
        if among.shape != (_ROWS,):
            return False  # refused by the engine, by what it is
        own = [
            _run(model, batches.take(rows, one), _taken(goals, one), losses)()
            for one in (slice(row, row + 1) for row in range(_ROWS))
        ]
    moved = (torch.cat(own).double() - among).abs()
    return bool((moved > _CLOSE * among.abs().max() + 1e-12).any())


def _taken(goals: Any, rows: slice) -> Any:
    return None if goals is None else batches.take(goals, rows)


def _run(
    model: nn.Module, rows: Any, goals: Any, losses: Losses
) -> Callable[[], Tensor]:
    return lambda: losses(batches.call(model, rows), goals)


def _squares(outputs: Any, _targets: Any) -> Tensor:
    first: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return first.flatten(1).square().sum(1) / 2


def _goals(targets: Any, generator: torch.Generator) -> Any:
    made = batches.made_up(targets, _ROWS, generator)
    if isinstance(made, Tensor) and made.is_floating_point():
        return (made > 0).to(made.dtype)
    return made


def _zeros(targets: Any, num: int) -> Any:
    return None if targets is None else batches.zeros(targets, num)


def _is_whole(inputs: Any) -> bool:
    return isinstance(inputs, Tensor) and not inputs.is_floating_point()


def _drops(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.modules.dropout._DropoutNd):
        return False
    return layer.training and layer.p > 0


def _in_place(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if getattr(m, "inplace", False)]


def _finding(
    layer: str, error: PlanError, *, in_place: list[str] | None = None
) -> Finding:
    why, fixable = error.why, error.error_id == "GLD-P020"
    if error.error_id == "GLD-P053" and in_place:
        why += f" Layers that compute in place: {', '.join(in_place)}."
        fixable = True
    return Finding(error.error_id, layer, error.what, why, error.fix, fixable)


def _random(layer: str) -> Finding:
    return Finding(
        "GLD-P061",
        layer,
        f"layer {layer} draws at random.",
        "Its draws come from no keystream, and which one a row gets depends on the "
        "rows before it.",
        "Remove dropout, or set it to 0: the noise regularises already.",
        fixable=True,
    )


def _mixing(layer: str, what: str = "") -> Finding:
    what = what or f"the output of layer {layer}"
    return Finding(
        "GLD-P062",
        layer,
        f"{what} of one row changes with another row.",
        "One record would move the gradients of all others, beyond its clip norm.",
        "Compute every row from itself alone: no mean, sum or norm over the batch.",
    )


def _broken(error: Exception) -> Finding:
    return Finding(
        "GLD-P063",
        "model",
        f"the model does not compute on made-up rows: {type(error).__name__}.",
        str(error).split("\n", maxsplit=1)[0][:200],
        "Check the shape and type of the input.",
    )
