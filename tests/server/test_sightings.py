"""When sites were last heard of: over a restart, and over a damaged file."""

from pathlib import Path

from guilder_server.member_commands import _line
from guilder_server.sightings import FILE, Sightings


def test_moments_outlive_a_restart(tmp_path: Path) -> None:
    first = Sightings(tmp_path / FILE, clock=lambda: 1_800_000_000.0)
    first.note("alder")
    first.save()

    assert Sightings.open(tmp_path).all() == {"alder": 1_800_000_000.0}


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"[1")

    sightings = Sightings.open(tmp_path)
    sightings.note("alder")
    sightings.save()

    assert set(Sightings.open(tmp_path).all()) == {"alder"}


def test_a_site_is_listed_with_when_it_was_last_seen() -> None:
    row = {"name": "alder", "role": "site", "state": "active", "online": False}
    row |= {"expires": 4e9, "last_seen": 1_800_000_000.0}

    assert "seen 2027-01-15 08:00 UTC" in _line(row)
    assert "never seen" in _line(row | {"last_seen": None})
    assert "seen" not in _line(row | {"role": "operator"})
