"""The site file: where the server is, what the data is, what the site allows.

Written by the site engineer; budgets and public sizes in it count only as far as the
data-protection officer's orders say the same (`terms.py`). It opens no file but
itself; no field has a value computed from rows.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from guilder_shared.settings.files import (
    Digest,
    File,
    FilePath,
    Frozen,
    Listed,
    Name,
    OwnRecipe,
    TableFile,
    Text,
    Url,
    load_toml,
)
from guilder_shared.settings.mistakes import Contradiction, ContradictionError
from guilder_shared.training.device import Speed

ProxyUrl = Annotated[str, Field(pattern=r"^https?://[^\s/@]+:[0-9]{1,5}/?$")]


class Site(Frozen):
    """What the site is called, whom it serves, and where it keeps its ledger."""

    name: Name = Field(description="as in the site's certificate")
    server: Url = Field(description="the server's public address")
    state_dir: FilePath = Field(description="ledger and sealed replies; keep it safe")
    known_as: Url | None = Field(
        default=None,
        description="the server's address when it was first used, if it has moved",
    )

    control: Url | None = Field(
        default=None,
        description="where certificates are renewed, if it is not the server's address",
    )

    @property
    def ledger_name(self) -> str:
        """What the ledger calls the server, wherever it is now."""
        return self.known_as or self.server


class SiteKeys(Frozen):
    """Key files; they are made here and never leave."""

    key: FilePath = Field(description="private key of the TLS certificate")
    certificate: FilePath = Field(description="TLS certificate, PEM")
    authority: FilePath = Field(description="the consortium's authority, PEM")
    signing_key: FilePath = Field(description="signs the ledger and the reports")
    officer: FilePath = Field(
        description="public key of the data-protection officer, who signs the orders"
    )


class DataSource(TableFile):
    """What a study's dataset name means at this site."""

    public_size: PositiveInt = Field(
        le=10**12,
        description="rows, as a number that may be known to all: typed, not counted",
    )
    public_persons: PositiveInt | None = Field(
        default=None,
        le=10**12,
        description='persons, typed likewise; studies of unit "person" need it',
    )
    exclude: FilePath | None = Field(
        default=None,
        description="a list of persons to leave out, one id a line; they stay charged",
    )

    @model_validator(mode="after")
    def _no_more_persons_than_rows(self) -> Self:
        persons, rows = self.public_persons, self.public_size
        if persons is None or persons <= rows:
            return self
        what = f"is {persons}, more than the {rows} rows of public_size"
        fix = "Everybody counted has a row: correct one of the two."
        raise ContradictionError([Contradiction(("public_persons",), what, fix)])


class ProxyLines(Frozen):
    """The institution's proxy, if connections to the outside go through one."""

    url: ProxyUrl = Field(description="http://HOST:PORT, or https://")
    user: Text | None = Field(default=None, description="for Basic authentication")
    password: FilePath | None = Field(
        default=None, description="a file that only the client's user can read"
    )
    authority: FilePath | None = Field(
        default=None, description="who signed the proxy's own certificate; https only"
    )

    @model_validator(mode="after")
    def _user_with_password(self) -> Self:
        if (self.user is None) == (self.password is None):
            return self
        missing = "user" if self.user is None else "password"
        what, fix = f"needs {missing} as well", "Give both user and password, or none."
        raise ContradictionError([Contradiction((missing,), what, fix)])


class WitnessLines(Frozen):
    """Another server that this site works or worked for, to be asked what it knows."""

    server: Url = Field(description="the server's public address")
    known_as: Url | None = Field(
        default=None, description="its address when it was first used, if it has moved"
    )
    key: FilePath | None = Field(default=None, description="if not as under [keys]")
    certificate: FilePath | None = Field(default=None, description="likewise")
    authority: FilePath | None = Field(default=None, description="likewise")

    @property
    def ledger_name(self) -> str:
        """What the ledger calls the server, wherever it is now."""
        return self.known_as or self.server


class Policy(Frozen):
    """Which studies this site takes part in; everything else is refused."""

    recipes: Listed[Name] = Field(description="the kinds of task that may run here")
    largest_epsilon: float = Field(gt=0, le=100, description="most one study may ask")
    smallest_cohort: PositiveInt = Field(description="fewest sites in a round")
    accept: Literal["auto", "ask"] = Field(
        description='"auto": every study within this policy; "ask": a person decides'
    )
    accepted: Listed[Digest] = Field(
        default=(), description='digests of the studies accepted where accept = "ask"'
    )
    allow_unprotected: bool = Field(
        default=False, description="studies with mechanism none; for made-up data only"
    )
    on_change: Literal["continue", "ask", "stop"] = Field(
        default="continue",
        description="rows changed in mid-study: go on, wait for a person, or end it",
    )


class PeriodLines(Frozen):
    """The part of a budget that studies may take within some days."""

    days: PositiveInt = Field(le=36_500, description="length of a period")
    epsilon: float = Field(gt=0, le=100, description="released in each period")


class BudgetLines(Frozen):
    """What may ever be learnt about one unit of the people behind these datasets."""

    epsilon: float = Field(gt=0, le=100, description="over all studies together")
    delta: float = Field(gt=0, lt=1e-3, description="over all studies together")
    datasets: Listed[Name] = Field(
        min_length=1, description="the datasets that hold the same people"
    )
    unit: Literal["record", "person", "site"] | None = Field(
        default=None, description="only studies that protect this unit; any if left out"
    )
    period: PeriodLines | None = Field(
        default=None, description="{ days, epsilon }: releases the whole bit by bit"
    )


class SiteFile(File):
    """`site.toml`, whole and checked; its paths are absolute."""

    option: ClassVar[str] = "--site"
    site: Site
    keys: SiteKeys
    data: dict[Name, DataSource] = Field(
        min_length=1, max_length=1_000, description="[data.NAME]: one per dataset"
    )
    policy: Policy
    budget: dict[Name, BudgetLines] = Field(
        min_length=1, max_length=1_000, description="[budget.NAME]: one per people"
    )
    witness: dict[Name, WitnessLines] = Field(
        default_factory=dict,
        max_length=100,
        description="[witness.NAME]: other servers that were sent results from here",
    )
    proxy: ProxyLines | None = Field(
        default=None, description="the way out; HTTPS_PROXY counts if left out"
    )
    recipe: dict[Name, OwnRecipe] = Field(
        default_factory=dict,
        max_length=1_000,
        description="[recipe.NAME]: recipes of others that may run, by their wheel",
    )
    speed: Speed = Field(default=Speed(), description="how fast, never how private")

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a site file; see `settings.load_toml` for its errors.

        Raises:
            FileError: As there, and GLD-C030: a dataset is not drawn on by exactly
                one budget, a budget names a dataset that is not there, or one file
                is in two budgets under two names.
        """
        return load_toml(path, cls, overrides)

    @classmethod
    def contradictions(cls, parts: Mapping[str, Any]) -> list[Contradiction]:
        """Every dataset draws on exactly one budget: the same people, one sum."""
        if not {"data", "budget"} <= parts.keys():
            return []
        data: dict[str, DataSource] = parts["data"]
        budget: dict[str, BudgetLines] = parts["budget"]
        drawn = Counter(name for each in budget.values() for name in each.datasets)
        found = [
            Contradiction(
                ("data", name),
                f"in {drawn[name]} budgets, needed in exactly one",
                f'Name "{name}" once under [budget.…] datasets.',
                "GLD-C030",
            )
            for name in data
            if drawn[name] != 1
        ]
        found += [
            Contradiction(
                ("budget", name, "datasets"),
                f'names "{dataset}", but there is no [data.{dataset}]',
                f"Known here: {', '.join(data)}.",
                "GLD-C030",
            )
            for name, each in budget.items()
            for dataset in each.datasets
            if dataset not in data
        ]
        return found + _files_in_two_budgets(data, budget)


def _files_in_two_budgets(
    data: Mapping[str, DataSource], budget: Mapping[str, BudgetLines]
) -> list[Contradiction]:
    """One file under two names holds the same people, whom one budget must protect."""
    budget_of = {name: b for b, each in budget.items() for name in each.datasets}
    first: dict[str, str] = {}
    found = []
    for name, source in data.items():
        other = first.setdefault(os.path.normpath(source.path), name)
        if budget_of.get(name) != budget_of.get(other):
            what = f"is the file of [data.{other}], which draws on another budget"
            fix = f'Name "{name}" and "{other}" in the same [budget.…].'
            found.append(Contradiction(("data", name, "path"), what, fix, "GLD-C030"))
    return found
