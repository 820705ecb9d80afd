"""What a model must be so that its per-unit gradients mean what is charged.

Found on shapes and on zeros, before any row is read. This module computes no gradient.

Review, mathematics: a layer that mixes rows, keeps what it saw, or sees something else
than one row per row (a position table looked up once for the whole batch) would let
one unit move more than its own clipped contribution.
Review, crash order: no data, nothing written.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.parts import Part, find
from guilder_shared.privacy.noise import MAX_NUMBERS

Trained = list[tuple[str, nn.Module, type[Part], dict[str, nn.Parameter]]]


def trained_layers(model: nn.Module, fallback: type[Part]) -> Trained:
    """Every layer that trains something, with its rule and its trained parameters.

    Args:
        model: The model; what is frozen (`requires_grad` false) needs no rule.
        fallback: The rule for kinds of layers that have none of their own.

    Returns:
        Name, layer, rule and parameters by the layer's own names. A parameter that
        several layers share appears with each.

    Raises:
        PlanError: GLD-P020 BatchNorm, GLD-P024 too many or no trained numbers,
            GLD-P054 a layer with an option that its rule does not cover.
    """
    layers, problems = survey(model, fallback)
    if problems:
        raise problems[0][1]
    return layers


def survey(
    model: nn.Module, fallback: type[Part]
) -> tuple[Trained, list[tuple[str, PlanError]]]:
    """As `trained_layers`, with everything that is wrong instead of the first.

    Returns:
        What `trained_layers` gives, and the name of each layer that cannot be trained
        with its error; "model" for the model as a whole.
    """
    layers: Trained = []
    problems: list[tuple[str, PlanError]] = []
    covered: set[nn.Module] = set()
    for name, layer in model.named_modules():
        rule = find(layer) or fallback
        recurse = rule.own_children
        owned = {
            n: p for n, p in layer.named_parameters(recurse=recurse) if p.requires_grad
        }
        is_new = layer not in covered and bool(owned)
        try:
            _check_batch_norm(name, layer)
            if is_new:
                rule.check(layer)
        except PlanError as error:
            problems.append((name or "model", error))
        if is_new:
            covered.update(layer.modules() if recurse else ())
            layers.append((name or "model", layer, rule, owned))
    numbers = {id(p): p.numel() for *_, owned in layers for p in owned.values()}
    if not 0 < sum(numbers.values()) <= MAX_NUMBERS:
        problems.append(("model", _wrong_size(sum(numbers.values()))))
    return layers, problems


def _wrong_size(num_numbers: int) -> PlanError:
    return PlanError(
        "GLD-P024",
        f"the model trains {num_numbers} numbers; 1 to {MAX_NUMBERS} can be.",
        why="The noise's arithmetic is bounded for releases of that size.",
        fix="Freeze layers, or train adapters only.",
    )


def _check_batch_norm(name: str, layer: nn.Module) -> None:
    """BatchNorm passes only frozen and in eval mode: then it is a constant map."""
    if not isinstance(layer, _BatchNorm):
        return
    trained = any(p.requires_grad for p in layer.parameters())
    if layer.training or trained or not layer.track_running_stats:
        raise PlanError(
            "GLD-P020",
            f"layer {name or 'model'} is {type(layer).__name__}: it mixes the rows of "
            "a batch.",
            why="One row would move the gradients of all others.",
            fix="Use GroupNorm or LayerNorm, or freeze it in eval mode.",
        )


def refuse_rows(name: str, layer: nn.Module, seen: int, rows: int) -> None:
    """Refuse a layer whose first dimension is not the rows of the batch.

    Raises:
        PlanError: GLD-P051.
    """
    if seen != rows:
        raise PlanError(
            "GLD-P051",
            f"layer {name} ({type(layer).__name__}) sees {seen} rows of a batch "
            f"of {rows}.",
            why="What it learns from one record cannot be told from the others.",
            fix="Give it one row per record; expand position ids over the batch.",
        )


def refuse_changed_buffer(name: str) -> None:
    """Refuse a model that fills a buffer while it computes.

    Raises:
        PlanError: GLD-P021, always.
    """
    raise PlanError(
        "GLD-P021",
        f"buffer {name} changes when the model computes.",
        why="A buffer filled from rows would leave without noise.",
        fix="Make it a constant of the study or remove it.",
    )


def refuse_losses(shape: tuple[int, ...], rows: int) -> None:
    """Refuse losses that are not one number for each row.

    Raises:
        PlanError: GLD-P052.
    """
    if shape != (rows,):
        raise PlanError(
            "GLD-P052",
            f"the losses have shape {tuple(shape)}, not ({rows},).",
            why="Each record needs one loss of its own.",
            fix='Use reduction="none", and reduce over all but the first dimension.',
        )
