"""The tables of a study file but [data]: header, model, schedule, promise, rounds.

Every size is bounded here, so that a hostile study is refused before anything is built
from it. This module knows no network, no ledger and no model.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from guilder_shared.settings.expectations import TEXT_PATTERN
from guilder_shared.settings.files import Digest, Frozen, Listed, Name, Text
from guilder_shared.settings.mistakes import Contradiction, ContradictionError
from guilder_shared.study.learning import AdaptiveClip, Augment

LARGEST_EXACT = 2**53 - 1  # the largest integer of canonical JSON (RFC 8785)


class Header(Frozen):
    """What the study is called and what it is for."""

    name: Name = Field(description="short name of the study")
    recipe: Name = Field(description="an installed kind of task; no code travels")
    purpose: str = Field(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=400,
        description="why, for the officer who approves",
    )


class Model(Frozen):
    """Which registered model, and its public shape."""

    name: Name = Field(
        description="logistic or mlp; cnn, tanhcnn, resnet18 or unet; encoder or minilm"
    )
    hidden: Listed[Annotated[int, Field(ge=1, le=16_384)]] = Field(
        default=(), max_length=16, description="units of each hidden layer"
    )
    prior: float | None = Field(
        default=None, gt=0, lt=1, description="public rate of ones: the output's bias"
    )
    width: int | None = Field(
        default=None,
        ge=8,
        le=512,
        description="channels of cnn, tanhcnn and unet, numbers a token of encoder",
    )
    train: Literal["all", "head", "bias", "lora"] | None = Field(
        default=None, description="what is trained; all of it if left out"
    )
    rank: int | None = Field(
        default=None, ge=1, le=64, description='of the adapters, with train = "lora"'
    )
    head_bias: bool | None = Field(
        default=None,
        description="whether the last layer adds a constant to each class; yes if "
        "left out",
    )
    pretrained: Digest | None = Field(
        default=None, description="SHA-256 of the public weights it starts from"
    )


class Training(Frozen):
    """The schedule, all of it public."""

    rounds: int = Field(ge=1, le=100_000, description="rounds of the whole study")
    local_steps: int = Field(ge=1, le=100_000, description="private steps in a turn")
    sample_rate: float = Field(gt=0, le=1, description="Poisson; 1 = full batch")
    optimizer: Literal["sgd", "adam"] = Field(
        default="sgd", description="of the local steps"
    )
    learning_rate: float = Field(gt=0, le=1e6, description="of the local steps")
    momentum: float | None = Field(
        default=None, gt=0, lt=1, description="of sgd, within a turn"
    )
    betas: Listed[Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None, min_length=2, max_length=2, description="of adam; 0.9 and 0.999"
    )
    floor: float | None = Field(
        default=None, gt=0, le=1e3, description="of adam, in deviations of the noise; 1"
    )
    average: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the average over rounds"
    )
    augment: Augment | None = Field(default=None, description="copies of each row")
    adaptive_clip: AdaptiveClip | None = Field(
        default=None, description="a clip norm that moves; clip_norm is its start"
    )
    test_seed: int | None = Field(
        default=None, ge=0, le=LARGEST_EXACT, description="only with mechanism none"
    )


class Privacy(Frozen):
    """The promise made to each unit. No field here has a default.

    Every unit with records of its own adds at most `clip_norm` to a step. A person adds
    at most `max_records` of its records at once, a site all of its own.
    """

    unit: Literal["record", "person", "site"] = Field(
        description="whose presence is hidden"
    )
    mechanism: Literal["site-noise", "joint-noise", "none"] = Field(
        description="who adds the noise"
    )
    epsilon: float = Field(
        gt=0, le=100, description="rounds and spare turns together, per site"
    )
    delta: float = Field(gt=0, lt=1e-3, description="below 1 / records at a site")
    clip_norm: float = Field(gt=0, le=1e6, description="L2, in gradient units")
    max_records: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description='most records of one person in a step; with unit = "person" only',
    )
    max_sites_per_person: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="sites that may hold one person's rows, as the sites know it; told "
        'in reports, with unit = "person" only',
    )


class Evaluation(Frozen):
    """On which rows the global model is measured.

    With "charged", each site holds out a share of its units, decided one by one, never
    trains on them, and measures the last model on them under a charge of its own; with
    `every`, models before it as well, for more noise on each.
    """

    on: Literal["public-holdout", "charged", "none"] = Field(
        description="rows that are public, the sites' own against a charge, or nothing"
    )
    rows: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="share set aside: in simulation before rows are dealt; at each "
        'site, of units, with on = "charged"',
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="most that a held-out unit pays, as a share of privacy.epsilon; "
        'with on = "charged" only',
    )
    every: int | None = Field(
        default=None,
        gt=0,
        description="measure the model after so many rounds, and again and again; a "
        'divisor of training.rounds; with on = "charged" only',
    )
    largest_loss: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description='public bound of a row\'s loss, 5 if left out; with on = "charged"',
    )


class Partition(Frozen):
    """How one source is dealt to simulated sites."""

    kind: Literal["by", "iid"] = Field(description='"by" a column, or at random')
    column: Text | None = Field(default=None, description='with kind = "by"')

    @model_validator(mode="after")
    def _column_with_by(self) -> Self:
        if (self.kind == "by") == (self.column is not None):
            return self
        missing = self.column is None
        what = 'missing, with kind = "by"' if missing else 'given, with kind = "iid"'
        fix = 'Write { kind = "by", column = "…" } or { kind = "iid" }.'
        raise ContradictionError([Contradiction(("column",), what, fix)])


class Simulation(Frozen):
    """Read by `guilder simulate` only; not part of the digest."""

    sites: int = Field(ge=1, le=1_000_000, description="how many sites to play")
    source: Text = Field(description="a generator's name, or a file")
    partition: Partition = Field(description="how rows are dealt to the sites")
    seed: int = Field(
        ge=0, le=LARGEST_EXACT, description="keys sampling and noise of a played site"
    )
    names: Listed[Name] | None = Field(
        default=None, description="one per site; site-1, site-2, … if left out"
    )
    public_sizes: Listed[Annotated[int, Field(ge=1, le=10**12)]] | None = Field(
        default=None, description="one per site; from the rows if left out"
    )
