"""What travels between server and site, as frozen dataclasses.

`wire.py` turns them into Flower records; nothing here knows Flower or torch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from guilder_shared import tensors
from guilder_shared.errors import IntegrityError
from guilder_shared.tensors import Buffer

PIECE = 2**18  # numbers looked at together
Weights = dict[str, npt.NDArray[np.float32]]
MEASURED: Final = "measured"  # the one array of a turn that only measures
# Of a turn that trains as well, beside its update; no parameter can be named so.
MEASURED_BESIDE: Final = ".measured"


@dataclass(frozen=True)
class Plan:
    """The privacy plan solved once at submit and confirmed by each site.

    Attributes:
        noise_multiplier: Standard deviation of the noise on one step's clipped sum,
            in units of clip_norm; None where the mechanism is "none".
        num_turns: Rounds + spare turns: how many turns the epsilon covers.
        sensitivity_slack: s of sensitivity C(1+s); public constant of the engine.
        measuring_noise: Standard deviation of the noise on one turn's share of the
            charged metrics, over their sensitivity; None where nothing is measured.
    """

    noise_multiplier: float | None
    num_turns: int
    sensitivity_slack: float
    measuring_noise: float | None = None

    def facts(self) -> dict[str, float | int | None]:
        """As JSON: what `Plan(**facts)` makes again; no key that means nothing."""
        told = asdict(self)
        if self.measuring_noise is None:
            del told["measuring_noise"]
        return told


class Verdict(StrEnum):
    """The only words besides a noised result that a site ever sends."""

    ACCEPTED = "accepted"
    DONE = "done"
    REFUSED_BY_POLICY = "refused-by-policy"
    REFUSED_BY_BUDGET = "refused-by-budget"
    BUSY = "busy"
    TURN_FAILED = "turn-failed"


@dataclass(frozen=True)
class Head:
    """A site's commitment to its ledger's newest entry, for the server to remember.

    As a `witness`, sent back by the server, it may bear the server's signature
    (`witnessing.py`), which makes a receipt that outsiders can check.
    """

    head_no: int  # 1, 2, 3, … for this server alone
    commitment: str  # SHA-256, hex
    server_key: str = ""  # Ed25519, 64 hexadecimal digits; empty: not signed
    signature: str = ""  # 128 hexadecimal digits


@dataclass(frozen=True)
class Offer:
    """A run proposed to a site: the whole study and its plan."""

    run_id: str
    study: bytes  # canonical JSON
    plan: Plan
    witness: Head | None = None  # what the server remembers of this site's ledger


@dataclass(frozen=True)
class Answer:
    """A site's answer to an offer."""

    verdict: Verdict
    site: str
    grant_id: str = ""
    public_size: int = 0
    reason: str = ""  # error id and text; holds nothing computed from rows


@dataclass(frozen=True)
class Receipt:
    """The server's word that it committed a turn's sealed bytes."""

    turn_no: int
    sha256: str  # of the sealed update, hex


@dataclass(frozen=True)
class TurnRequest:
    """One site's part in one round, asked for."""

    run_id: str
    grant_id: str
    turn_no: int  # 1, 2, …: rounds and spare turns together
    round_no: int
    study_digest: str
    model: Buffer  # safetensors
    receipt: Receipt | None = None  # for the last turn of this site, if committed
    witness: Head | None = None  # what the server remembers of this site's ledger
    control: Buffer = b""  # safetensors: the global control variate, if there is one
    control_base: int = 0  # the turn whose own variate this begins from; 0: none

    def fingerprint(self) -> str:
        """SHA-256 over everything that defines the turn; receipt and witness do not."""
        head = f"{self.run_id}|{self.grant_id}|{self.turn_no}|{self.round_no}"
        text = f"{head}|{self.study_digest}|{sha256(self.model)}"
        if self.control:
            text += f"|{sha256(self.control)}|{self.control_base}"
        return sha256(text.encode())


@dataclass(frozen=True)
class TurnReply:
    """One site's part in one round: the noised update, or one word."""

    verdict: Verdict
    grant_id: str
    turn_no: int
    round_no: int
    update: Buffer = b""  # safetensors: local minus global weights
    reason: str = ""  # error id and text of a refusal; empty for turn-failed
    head: Head | None = None  # of the sealed update


@dataclass(frozen=True)
class Close:
    """A run ended: the last receipt, and the grant may give back what is unspent."""

    run_id: str
    grant_id: str
    receipt: Receipt | None = None
    witness: Head | None = None  # what the server remembers of this site's ledger


def sha256(data: Buffer) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def pack(weights: Weights) -> bytes:
    """Weights as safetensors bytes; the same weights give the same bytes."""
    return b"".join(tensors.parts(weights))


def unpack(data: Buffer, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """Weights from safetensors bytes, checked against what the study defines.

    They are read-only views of `data`.

    Raises:
        IntegrityError: Not safetensors of float32, or other names or shapes, or a value
            that is not finite. The message names tensors, never values.
    """
    largest = 4 * sum(int(np.prod(shape)) for shape in shapes.values()) + 200_000
    if len(data) > largest:
        raise IntegrityError(
            "GLD-I040", f"model of {len(data)} bytes, at most {largest} expected"
        )
    try:
        weights = tensors.views(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError("GLD-I040", "model is not safetensors") from error
    found = {name: tuple(w.shape) for name, w in weights.items()}
    if found != dict(shapes):
        raise IntegrityError("GLD-I041", "model has other tensors than the study's")
    for name, w in weights.items():
        if not _is_finite(w):
            raise IntegrityError("GLD-I042", f"tensor {name!r} is not finite float32")
    return weights


def _is_finite(values: npt.NDArray[np.float32]) -> bool:
    flat = values.reshape(-1)  # in pieces: no second array of a model's length
    return all(
        bool(np.isfinite(flat[start : start + PIECE]).all())
        for start in range(0, flat.size, PIECE)
    )
