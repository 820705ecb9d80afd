"""What site.toml asks of the officer, and whether the officer has signed just that.

The engineer types budgets and public sizes; they count only as far as the officer's
orders say the same. This module reads no row and writes nothing.
"""

from collections.abc import Iterator

from guilder_client.settings import BudgetLines, SiteFile
from guilder_shared.errors import BudgetSpent
from guilder_shared.officer import Officer
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import Budget, Ledger
from guilder_shared.privacy.ledger.budgets import Period

RULE = "site.toml"  # the name of the standing rule that [policy] asks for


def demand_signed(settings: SiteFile, ledger: Ledger) -> None:
    """Raise unless officer's orders say what site.toml says.

    Raises:
        BudgetSpent: They say something else, or nothing (GLD-B020); names all.
    """
    found = list(differences(settings, ledger))
    if not found:
        return
    raise BudgetSpent(
        "GLD-B020",
        f"site {settings.site.name!r}: the officer has not signed what site.toml "
        f"says: {'; '.join(found)}",
        why="Budgets and public sizes change by the officer's orders alone.",
        fix="Have the officer run `guilder privacy budget --sign`, or edit the file.",
    )


def differences(settings: SiteFile, ledger: Ledger) -> Iterator[str]:
    """Each line of site.toml that no order in the ledger says, in words."""
    budgets, sizes = ledger.budgets(), ledger.sizes()
    for name, lines in settings.budget.items():
        asked, signed = _budget(name, lines), budgets.get(name)
        if signed is None:
            yield f"no budget {name!r} is signed"
        elif signed != asked:
            yield f"[budget.{name}] asks {_words(asked)}, signed is {_words(signed)}"
    for dataset, source in settings.data.items():
        size = sizes.get(dataset)
        typed = (source.public_size, source.public_persons)
        if size is None:
            yield f"no public size of {dataset!r} is signed"
        elif typed != (size.rows, size.persons):
            yield (
                f"[data.{dataset}] says {_count(*typed)}, signed is "
                f"{_count(size.rows, size.persons)}"
            )


def sign(
    settings: SiteFile, officer: Officer, *, days: float | None
) -> Iterator[Order]:
    """The orders that make site.toml hold, one by one.

    Args:
        settings: What the engineer asks; the officer has read it.
        officer: Whose key signs.
        days: How long [policy] stands as a rule, where it accepts by itself; None:
            it becomes none, and each study needs an approval.
    """
    for name, lines in settings.budget.items():
        period = None
        if lines.period is not None:
            period = (lines.period.days, lines.period.epsilon)
        yield officer.budget(
            name, lines.epsilon, lines.delta, lines.datasets, lines.unit, period
        )
    for dataset, source in settings.data.items():
        yield officer.public_size(dataset, source.public_size, source.public_persons)
    if settings.policy.accept == "auto" and days is not None:
        policy = settings.policy
        yield officer.rule(
            RULE,
            recipes=policy.recipes,
            largest_epsilon=policy.largest_epsilon,
            largest_delta=max(each.delta for each in settings.budget.values()) / 2,
            smallest_cohort=policy.smallest_cohort,
            allow_unprotected=policy.allow_unprotected,
            days=days,
        )


def _budget(name: str, lines: BudgetLines) -> Budget:
    period = None
    if lines.period is not None:
        period = Period(lines.period.days, lines.period.epsilon)
    datasets = tuple(lines.datasets)
    return Budget(name, lines.epsilon, lines.delta, datasets, lines.unit, period)


def _words(budget: Budget) -> str:
    words = f"epsilon {budget.epsilon:g}, delta {budget.delta:g} for "
    words += ", ".join(budget.datasets)
    if budget.unit is not None:
        words += f", unit {budget.unit}"
    if budget.period is not None:
        words += f", {budget.period.epsilon:g} in {budget.period.days} days"
    return words


def _count(rows: int, persons: int | None) -> str:
    return f"{rows} rows" if persons is None else f"{rows} rows, {persons} persons"
