"""Dealing one source to simulated sites, after setting a public hold-out aside.

Where a row goes depends on its own identity and a public seed, never on other rows: a
row more or less moves no other. This module knows no model; a deployment has no use
for it, its sites bring their own rows.
"""

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import DataError
from guilder_shared.study import Simulation

if TYPE_CHECKING:
    import pyarrow as pa

HASH_BITS = 64


def split(
    table: "pa.Table",
    simulation: Simulation,
    holdout_share: float,
    *,
    identity: str | None = None,
) -> tuple[dict[str, "pa.Table"], "pa.Table", dict[str, int]]:
    """Set the hold-out aside and deal the rest to the sites.

    Args:
        table: The whole source. With kind "by" one site has the rows of one value,
            the first values in sorted order; rows of further values are left out.
        simulation: Sites, their names and public sizes, the partition and the seed.
        holdout_share: Chance of a row to be held out, in [0, 1).
        identity: Column whose value is a unit's identity, so that all of a person's
            rows go the same way. None: the row itself, so that equal rows do.

    Returns:
        Tables by site name, the hold-out, and public sizes by site name: those of the
        study, else the site's rows rounded down to two significant digits, at least 1.

    Raises:
        DataError: GLD-D005 the partition's column or `identity` is missing, GLD-D006
            it has fewer values than there are sites.
    """
    names = simulation.names or tuple(f"site-{n + 1}" for n in range(simulation.sites))
    places = _places(table, identity, simulation.seed)
    site_of = _sites_of(table, simulation, places["site"])
    held_out = (places["holdout"] < holdout_share) & (site_of >= 0)
    site_of[held_out] = -1
    by_site = np.argsort(site_of, kind="stable")
    ends = np.searchsorted(site_of[by_site], np.arange(-1, simulation.sites), "right")
    tables = [table.take(by_site[a:b]) for a, b in pairwise(ends)]
    sizes = simulation.public_sizes or [_round_down(each.num_rows) for each in tables]
    return (
        dict(zip(names, tables, strict=True)),
        table.filter(_mask(held_out)),
        dict(zip(names, sizes, strict=True)),
    )


def public_persons(dealt: Mapping[str, "pa.Table"], identity: str) -> dict[str, int]:
    """What each played site would type as its public number of persons.

    Args:
        dealt: Tables by site name.
        identity: The column that says whose row it is.

    Returns:
        Persons with a row there, rounded down to two significant digits, at least 1.

    Raises:
        DataError: GLD-D005 there is no such column.
    """
    from guilder_shared.tables import persons

    found = {}
    for name, table in dealt.items():
        numbers, named = persons.units(_column(table, identity))
        found[name] = _round_down(len(np.unique(numbers[named])))
    return found


def _sites_of(
    table: "pa.Table", simulation: Simulation, places: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The number of each row's site, -1 for a row that no site of the study has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if simulation.partition.kind == "iid":
        return np.floor(places * simulation.sites).astype(np.int64)
    column = _column(table, simulation.partition.column or "")
    values = sorted(pc.drop_null(pc.unique(column)).to_pylist())
    if len(values) < simulation.sites:
        raise DataError(
            "GLD-D006",
            f"{simulation.sites} sites are to share column "
            f"{simulation.partition.column!r}, which has {len(values)} values",
            fix="lower [simulation] sites, or choose another partition",
        )
    members = pa.array(values[: simulation.sites], column.type)
    site_of = pc.fill_null(pc.index_in(column, value_set=members), -1)
    numbers: NDArray[np.int64] = site_of.to_numpy().astype(np.int64)
    return numbers


def _places(table: "pa.Table", identity: str | None, seed: int) -> NDArray[Any]:
    """Two independent numbers in [0, 1) for each row, keyed by the seed."""
    key = hashlib.sha256(f"guilder partition {seed}".encode()).digest()
    cells = _identities(table, identity)
    digests = b"".join(
        hashlib.blake2b(cell, digest_size=2 * HASH_BITS // 8, key=key).digest()
        for cell in cells
    )
    words = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    places = np.empty(len(words), dtype=[("holdout", "f8"), ("site", "f8")])
    # The top 53 bits, so that no rounding reaches 1.
    places["holdout"], places["site"] = (words >> 11).T * 2.0**-53
    return places


def _identities(table: "pa.Table", identity: str | None) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = table.columns if identity is None else [_column(table, identity)]
    cells = [pc.fill_null(_as_bytes(column), b"") for column in columns]
    # The separator keeps ("ab", "") from ("a", "b"): no text holds it by accident.
    joined = pc.binary_join_element_wise(*cells, pa.scalar(b"\x1f"))
    found: list[bytes] = joined.to_pylist()
    return found


def _as_bytes(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return pc.cast(column, pa.binary())
    return pc.cast(pc.cast(column, pa.string()), pa.binary())


def _column(table: "pa.Table", name: str) -> Any:
    if name not in table.column_names:
        raise DataError(
            "GLD-D005",
            f"the source has no column {name!r} to deal it by",
            why=f"its columns: {', '.join(table.column_names)}",
            fix="correct [simulation.partition] column",
        )
    return table.column(name)


def _mask(rows: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(rows)


def _round_down(num_rows: int) -> int:
    unit = int(10 ** max(0, len(str(num_rows)) - 2))
    return max(1, num_rows // unit * unit)
