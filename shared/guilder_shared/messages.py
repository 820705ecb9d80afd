"""What travels between server and site, as frozen dataclasses.

`wire.py` turns them into Flower records; nothing here knows Flower.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Plan:
    """The privacy plan solved once at submit and confirmed by each site.

    Attributes:
        noise_multiplier: Standard deviation of the noise on one step's clipped sum,
            in units of clip_norm; None where the mechanism is "none".
        num_turns: Rounds + spare turns: how many turns the epsilon covers.
        sensitivity_slack: s of sensitivity C(1+s); public constant of the engine.
    """

    noise_multiplier: float | None
    num_turns: int
    sensitivity_slack: float


class Verdict(StrEnum):
    """The only words besides a noised result that a site ever sends."""

    ACCEPTED = "accepted"
    DONE = "done"
    REFUSED_BY_POLICY = "refused-by-policy"
    REFUSED_BY_BUDGET = "refused-by-budget"
    BUSY = "busy"
    TURN_FAILED = "turn-failed"


@dataclass(frozen=True)
class Offer:
    """A run proposed to a site: the whole study and its plan."""

    run_id: str
    study: bytes  # canonical JSON
    plan: Plan


@dataclass(frozen=True)
class Answer:
    """A site's answer to an offer."""

    verdict: Verdict
    site: str
    grant_id: str = ""
    public_size: int = 0
    reason: str = ""  # error id and text; holds nothing computed from rows


@dataclass(frozen=True)
class TurnRequest:
    """One site's part in one round, asked for."""

    run_id: str
    grant_id: str
    turn_no: int  # 1, 2, …: rounds and spare turns together
    round_no: int
    study_digest: str
    model: bytes  # safetensors


@dataclass(frozen=True)
class TurnReply:
    """One site's part in one round: the noised update, or one word."""

    verdict: Verdict
    grant_id: str
    turn_no: int
    round_no: int
    update: bytes = b""  # safetensors: local minus global weights
    reason: str = ""
