"""Rows that do not fit: named before a charge, or mapped by the public rule."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Founding = Any  # the fixture `found`; see conftest.py


@pytest.mark.slow(minutes=0.4)
def test_a_column_of_the_wrong_type_is_named_and_bad_rows_stop_nothing(
    found: Founding,
) -> None:
    hospitals = found()
    rows = {s: hospitals.site_file(s).parent / "rows.parquet" for s in hospitals.sites}
    tables = {site: pq.read_table(path) for site, path in rows.items()}
    number = tables["site-1"].column_names.index("mean_area")
    of_text = pa.array(["SECRET-CELL"] * len(tables["site-1"]))
    of_nothing = pa.array([float("nan"), float("inf")] * len(tables["site-3"]))
    pq.write_table(
        tables["site-1"].set_column(number, "mean_area", of_text), rows["site-1"]
    )
    pq.write_table(tables["site-2"].slice(0, 0), rows["site-2"])
    wild = of_nothing.slice(0, len(tables["site-3"]))
    pq.write_table(
        tables["site-3"].set_column(number, "mean_area", wild), rows["site-3"]
    )
    hospitals.start_all()

    refused = hospitals.outcome(hospitals.run())
    pq.write_table(tables["site-1"], rows["site-1"])
    finished = hospitals.outcome(hospitals.run())

    assert refused["exit_code"] == 4
    assert "'site-1'" in refused["what"]
    assert "mean_area" in refused["why"]
    assert finished["kind"] == "run-finished", finished
    for site in hospitals.sites:
        assert b"SECRET" not in hospitals.log(site).read_bytes()
        assert [len(g.turns) for g in hospitals.grants(site)][-1] == 6
