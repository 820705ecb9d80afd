"""What is in a bundle: wheels, their needs, a bill of materials; always the same."""

import hashlib
import json
from pathlib import Path
from typing import Any

from guilder import bundle, sbom


def test_what_the_other_machine_needs_is_stated_first(made: Path, machine: Any) -> None:
    text = (made / "README.txt").read_text()

    first = text.splitlines()[2:9]
    assert "THE OTHER MACHINE NEEDS" in first[0]
    for word in ("glibc", "Python", "GPU driver"):
        assert any(word in line for line in first)
    assert (
        machine.number_of(made) not in text
    )  # who changes a file changes this one too


def test_needs_follow_from_the_names_of_the_wheels() -> None:
    names = [
        "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "b-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "c-1-py3-none-any.whl",
    ]
    plain = bundle.needs_of(map(Path, names))
    cuda = bundle.needs_of(
        [Path("nvidia_cuda_runtime-13.0.96-py3-none-manylinux_2_17_x86_64.whl")]
    )

    assert plain.glibc == (2, 28)
    assert plain.driver.startswith("none")
    assert cuda.driver.startswith("580.65 or newer")


def test_the_same_wheels_give_the_same_bundle(
    made: Path, tmp_path: Path, machine: Any
) -> None:
    machine.wheels_in(tmp_path / "again" / "wheels")
    bundle.assemble(tmp_path / "again")

    for path in made.rglob("*"):
        if path.is_file():
            other = tmp_path / "again" / path.relative_to(made)
            assert other.read_bytes() == path.read_bytes(), path


def test_the_bill_of_materials_has_the_form_of_cyclonedx(made: Path) -> None:
    of_bundle = json.loads((made / "SBOM.cdx.json").read_text())
    of_here = sbom.of_installed()

    for bill in (of_bundle, of_here):
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
        refs = [each["bom-ref"] for each in bill["components"]]
        assert len(refs) == len(set(refs)) > 2
        for each in bill["components"]:
            assert each["type"] == "library"
            assert each["purl"] == f"pkg:pypi/{each['name']}@" + each[
                "version"
            ].replace("+", "%2B")
    assert {each["name"] for each in of_here["components"]} >= {"torch", "flwr"}
    beta = next(e for e in of_bundle["components"] if e["name"] == "beta")
    wheel = made / "wheels" / "beta-1.0-py3-none-any.whl"
    assert beta["hashes"][0]["content"] == (
        hashlib.sha256(wheel.read_bytes()).hexdigest()
    )


def test_the_closure_has_all_that_guilder_needs_and_no_tools() -> None:
    names = {each.partition("==")[0] for each in bundle.closure()}

    assert names >= {"torch", "flwr", "numpy", "duckdb", "packaging", "grpcio"}
    assert "httptools" in names  # an extra of a package that is needed without it too
    assert names & {"pytest", "mypy", "ruff", "guilder"} == set()


def test_guilders_own_wheel_holds_every_room_and_the_studies(tmp_path: Path) -> None:
    import zipfile

    path = bundle.own_wheel(tmp_path)

    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    assert "guilder/cli.py" in names
    assert "guilder_client/node.py" in names
    assert "guilder_simulations/shipped/card-fraud.toml" in names
    assert any(name.endswith("entry_points.txt") for name in names)
    assert not any("__pycache__" in name or name.endswith(".key") for name in names)
