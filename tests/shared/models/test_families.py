"""Models of images and texts: the same in NumPy and torch, frozen where it says so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from guilder_shared import tasks
from guilder_shared.models import families, features, registry
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

Made = Callable[..., Study]


def some(study: Study, rows: int = 3) -> torch.Tensor:
    """Made-up rows as the trained module reads them."""
    wanted = registry.inputs(study)
    rng = np.random.default_rng(1)
    if wanted.tokens is None:
        drawn = rng.uniform(-1, 1, (rows, *wanted.shape)).astype(np.float32)
        return torch.from_numpy(drawn)
    return torch.from_numpy(rng.integers(1, wanted.tokens, (rows, *wanted.shape)))


def asking(module: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def test_what_travels_is_what_asks_for_a_gradient(small: Study) -> None:
    trained = asking(registry.build(small))
    weights = registry.initial(small)

    assert {n: tuple(p.shape) for n, p in trained.items()} == registry.shapes(small)
    assert {n: w.shape for n, w in weights.items()} == registry.shapes(small)
    registry.check(weights, small)


def test_the_listed_parameters_are_those_of_the_body(made: Made) -> None:
    for name in ("cnn", "tanhcnn", "resnet18", "encoder"):
        study = made(name)
        body = families.body(study)
        inside = {f"body.{n}": tuple(p.shape) for n, p in body.named_parameters()}
        listed = {n: s.shape for n, s in families.starts(study).items()}

        assert inside.items() <= listed.items()
        assert set(listed) - set(inside) == {"head.weight", "head.bias"}


def test_outputs_have_the_shape_that_the_recipe_reads(small: Study) -> None:
    rows = some(small)
    outputs = registry.load(registry.initial(small), small)(rows)
    wanted = registry.inputs(small)
    targets = torch.zeros(3, *wanted.shape[1:]) if wanted.mask else torch.zeros(3)

    losses = tasks.recipe(small.study.recipe).losses(outputs, targets)

    assert losses.shape == (3,)
    assert torch.isfinite(losses).all()
    assert outputs.shape == ((3, 1, 8, 8) if wanted.mask else (3, 3))


def test_everybody_with_the_study_starts_from_the_same_bytes(small: Study) -> None:
    again = Study.from_canonical(small.canonical())

    first, second = registry.initial(small), registry.initial(again)
    one, other = registry.build(small), registry.build(again)

    assert all(first[n].tobytes() == second[n].tobytes() for n in first)
    frozen = {n: p for n, p in one.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, other.get_parameter(n)) for n, p in frozen.items())


def test_brightness_and_contrast_of_an_image_do_not_reach_tanhcnn(made: Made) -> None:
    study = made("tanhcnn")
    module = registry.load(registry.initial(study), study).double()
    rows = some(study).double()

    assert torch.allclose(module(rows), module(0.3 * rows - 0.4), atol=1e-3)
    assert not torch.allclose(module(rows), module(rows.abs()), atol=1e-3)


def test_a_row_does_not_look_at_its_neighbours(small: Study) -> None:
    module = registry.load(registry.initial(small), small).double()
    rows = some(small, 4)
    rows = rows if rows.dtype == torch.int64 else rows.double()

    together = module(rows)
    alone = torch.cat([module(row[None]) for row in rows])

    assert torch.allclose(together, alone, atol=1e-12)


def test_training_moves_no_number_in_place(small: Study) -> None:
    from guilder_shared.privacy.bookkeeping import engine  # noqa: F401 - its rules
    from guilder_shared.privacy.bookkeeping.parts import find

    module = registry.build(small)

    owners = {n.rpartition(".")[0] for n in asking(module)}
    assert all(find(module.get_submodule(owner)) for owner in owners)
    assert not any(getattr(m, "inplace", False) for m in module.modules())
    assert not any(isinstance(m, nn.Dropout) for m in module.modules())
    assert list(module.buffers()) == []


def test_a_head_without_a_bias_has_none_anywhere(made: Made) -> None:
    for name in ("cnn", "cnn-head", "encoder", "encoder-head", "encoder-lora"):
        with_bias, without = made(name), made(name, head_bias=False)
        module = registry.load(registry.initial(without), without)

        assert set(registry.shapes(with_bias)) - set(registry.shapes(without)) == {
            "head.bias"
        }
        assert module.get_submodule("head").bias is None
        assert module(some(without)).shape == (3, 3)


def test_a_bias_makes_the_gradient_of_unit_features_longer_by_the_root_of_2(
    made: Made,
) -> None:
    lengths = []
    for bias in (True, False):
        study = made("encoder-head", head_bias=bias)
        module = registry.load(registry.initial(study), study)
        rows = torch.nn.functional.normalize(some(study, 1), dim=1)
        loss = torch.nn.functional.cross_entropy(module(rows), torch.tensor([1]))
        grads = torch.autograd.grad(loss, list(asking(module).values()))
        lengths.append(float(torch.cat([g.flatten() for g in grads]).norm()))

    assert lengths[0] == pytest.approx(2**0.5 * lengths[1], rel=1e-5)


def test_adapters_start_by_changing_nothing(made: Made) -> None:
    lora, plain = made("encoder-lora"), made("encoder-bias")
    adapted = registry.load(registry.initial(lora), lora)
    tokens = some(lora)

    adapted.body.load_state_dict(  # type: ignore[union-attr]
        registry.build(plain).body.state_dict(),  # type: ignore[union-attr]
        strict=False,
    )

    expected = registry.build(plain).body(tokens)  # type: ignore[operator]
    assert torch.equal(adapted.body(tokens), expected)  # type: ignore[operator]


def test_little_travels_where_little_is_trained(made: Made) -> None:
    def numbers(name: str) -> int:
        return sum(w.size for w in registry.initial(made(name)).values())

    # two layers of query and value, 2 x 8 and 8 x 2 each, and a head of 8 x 3 + 3
    assert numbers("encoder-lora") == 2 * 2 * 32 + 27
    assert numbers("encoder-head") == 27
    assert numbers("cnn-head") == 1024 * 3 + 3
    assert numbers("cnn-bias") == 8 + 16 + 1024 + 1024 * 3 + 3


@pytest.mark.parametrize(("name", "numbers"), [("cnn", 4_216_770), ("minilm", 385 * 2)])
def test_the_classic_sizes_are_those_of_the_literature(
    study_with: Callable[..., Study], name: str, numbers: int
) -> None:
    sides = {"height": 32, "width": 32, "channels": 3}
    images = {"kind": "images", "dataset": "d", "target": "y", "classes": ["a", "b"]}
    texts = images | {"kind": "texts", "max_tokens": 64, "words": "wordpiece"}
    study = (
        study_with("image-classification", images | sides, {"name": name, "width": 32})
        if name == "cnn"
        else study_with(
            "text-classification",
            texts,
            {"name": name, "pretrained": "0" * 64, "train": "head"},
        )
    )

    shapes = registry.shapes(study)

    assert sum(int(np.prod(s)) for s in shapes.values()) == numbers


def test_a_head_reads_features_that_follow_from_a_row_alone(made: Made) -> None:
    study = made("encoder-head")
    tokens = np.zeros((4, 8), np.int64)
    tokens[:, :5] = np.random.default_rng(2).integers(1, 50, (4, 5))
    tokens[3] = 0  # a row of padding only
    examples = Examples(tokens, np.zeros(4, np.float32))

    together = features.prepare(examples, study)
    answer = np.zeros(1, np.float32)
    alone = [features.prepare(Examples(t[None], answer), study) for t in tokens]

    assert together.inputs.shape == (4, 8)
    assert together.inputs.tobytes() == b"".join(e.inputs.tobytes() for e in alone)
    assert np.allclose(np.linalg.norm(together.inputs, axis=1), 1, atol=1e-6)
    assert features.prepare(together, study) is together


def test_examples_of_a_model_trained_whole_stay_as_they_are(made: Made) -> None:
    examples = Examples(np.zeros((2, 8), np.int64), np.zeros(2, np.float32))

    assert features.prepare(examples, made("encoder")) is examples


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        ("cnn", {"hidden": [4]}, "hidden"),
        ("cnn", {"width": None}, "width"),
        ("cnn", {"train": "lora", "rank": 2}, "train"),
        ("cnn", {"prior": 0.5}, "prior"),
        ("unet", {"train": "head"}, "train"),
        ("unet", {"width": 12}, "width"),
        ("tanhcnn", {"width": 10}, "width"),
        ("encoder", {"train": "lora"}, "rank"),
        ("encoder", {"rank": 2}, "rank"),
        ("encoder", {"width": 9}, "width"),
        ("encoder", {"name": "minilm", "width": None}, "pretrained"),
        ("encoder", {"pretrained": "0" * 64}, "pretrained"),
        ("unet", {"head_bias": False}, "head_bias"),
    ],
)
def test_a_model_and_its_keys_must_agree(
    made: Made, name: str, change: dict[str, Any], key: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        made(name, **change)

    causes = [error["ctx"]["error"] for error in raised.value.errors()]
    assert key in [found.key[-1] for cause in causes for found in cause.found]
