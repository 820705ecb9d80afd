"""A bundle is installed as an ordinary user, without root, compiler or network.

Small wheels stand for Guilder's in the quick tests; the whole of it is tried in the
slow one, where pip can fetch it.
"""

import ensurepip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guilder import bundle, sbom
from guilder.wheel import pack

NOBODY = 65534
SYSTEMS = "/usr/bin/python3"
CUT = ["unshare", "--net", "--map-root-user"]
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def wheels_in(folder: Path) -> Path:
    """Two packages of ours, one with a command, and Python's own pip."""
    points = b"[console_scripts]\nhello = alpha:main\n"
    code = b"def main():\n    import beta\n    print('hello', beta.WORD)\n"
    for name, files, extra in (
        ("alpha", {"alpha/__init__.py": code}, {"entry_points.txt": points}),
        ("beta", {"beta/__init__.py": b"WORD = 'bundle'\n"}, {}),
    ):
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
        pack(name, "1.0", files, {"METADATA": text, **extra}, folder)
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    shutil.copy(pip, folder)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    wheels_in(tmp_path / "bundle" / "wheels")
    bundle.assemble(tmp_path / "bundle")
    return tmp_path / "bundle"


def install(
    made: Path,
    where: Path,
    *,
    before: tuple[str, ...] = (),
    python: str = sys.executable,
    digest: str = "",
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "PYTHON": python, "HOME": str(where.parent)}
    return subprocess.run(
        [*before, "sh", str(made / "install.sh"), str(where), *digest.split()],
        capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip


def cut() -> tuple[str, ...]:
    """Without any network, where this user may have that."""
    works = subprocess.run([*CUT, "true"], capture_output=True, check=False)
    return () if works.returncode else tuple(CUT)


def test_a_bundle_is_installed_without_a_network_and_runs(
    made: Path, tmp_path: Path
) -> None:
    done = install(made, tmp_path / "env", before=cut())

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("needs: Linux ")
    hello = subprocess.run(
        [tmp_path / "env" / "bin" / "hello"], capture_output=True, text=True, check=True
    )
    assert hello.stdout == "hello bundle\n"


@pytest.mark.parametrize(
    "name", ["wheels/beta-1.0-py3-none-any.whl", "requirements.txt", "SBOM.cdx.json"]
)
def test_one_changed_file_ends_with_5_and_nothing_is_installed(
    made: Path, tmp_path: Path, name: str
) -> None:
    data = bytearray((made / name).read_bytes())
    data[len(data) // 2] ^= 1
    (made / name).write_bytes(data)

    done = install(made, tmp_path / "env")

    assert done.returncode == 5
    assert "GLD-M008" in done.stderr
    assert not (tmp_path / "env").exists()


def test_the_sum_that_came_by_another_way_is_held_to(
    made: Path, tmp_path: Path
) -> None:
    told = hashlib.sha256((made / "SHA256SUMS").read_bytes()).hexdigest()
    bill = made / "SBOM.cdx.json"
    bill.write_text(bill.read_text() + "\n")
    sums = made / "SHA256SUMS"
    lines = sums.read_text().splitlines()
    new = hashlib.sha256(bill.read_bytes()).hexdigest()
    lines = [f"{new}  {bill.name}" if bill.name in line else line for line in lines]
    sums.write_text("\n".join(lines) + "\n")  # all fits together again

    changed = install(made, tmp_path / "env", digest=told)
    unasked = install(made, tmp_path / "env")

    assert (changed.returncode, "GLD-M008" in changed.stderr) == (5, True)
    assert unasked.returncode == 0
    assert "not compared: SHA256SUMS is " in unasked.stdout


def test_a_missing_wheel_ends_with_5(made: Path, tmp_path: Path) -> None:
    (made / "wheels" / "beta-1.0-py3-none-any.whl").unlink()

    assert install(made, tmp_path / "env").returncode == 5


def test_a_wheel_changed_together_with_its_sum_is_refused_by_its_requirement(
    made: Path, tmp_path: Path
) -> None:
    """pip compares the hash in requirements.txt as well, and installs nothing."""
    wheel = made / "wheels" / "beta-1.0-py3-none-any.whl"
    old = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pack("beta", "1.0", {"beta/__init__.py": b"WORD = 'evil'\n"},
         {"METADATA": b"Metadata-Version: 2.1\nName: beta\nVersion: 1.0\n"},
         made / "wheels")  # fmt: skip
    new = hashlib.sha256(wheel.read_bytes()).hexdigest()
    sums = made / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, new))

    done = install(made, tmp_path / "env")

    assert done.returncode != 0
    assert not (tmp_path / "env" / "bin" / "hello").exists()


def test_an_older_glibc_is_told_before_anything_is_made(
    made: Path, tmp_path: Path
) -> None:
    script = made / "install.sh"
    script.write_text(script.read_text().replace('"2.17"', '"9.99"'))

    done = install(made, tmp_path / "env")

    assert done.returncode == 2
    assert "is older than" in done.stderr
    assert not (tmp_path / "env").exists()


def test_another_python_is_named(made: Path, tmp_path: Path) -> None:
    script = made / "install.sh"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    text = script.read_text()
    script.write_text(text.replace(f'[ "$found" = "{here}" ]', '[ "$found" = "3.99" ]'))

    done = install(made, tmp_path / "env")

    assert done.returncode == 2
    assert "GLD-M007" in done.stderr


def test_what_the_other_machine_needs_is_stated_first(made: Path) -> None:
    text = (made / "README.txt").read_text()

    first = text.splitlines()[2:9]
    assert "THE OTHER MACHINE NEEDS" in first[0]
    for word in ("glibc", "Python", "GPU driver"):
        assert any(word in line for line in first)
    digest = hashlib.sha256((made / "SHA256SUMS").read_bytes()).hexdigest()
    assert digest in text


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


def test_the_same_wheels_give_the_same_bundle(made: Path, tmp_path: Path) -> None:
    wheels_in(tmp_path / "again" / "wheels")
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


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(1200)
def test_all_of_guilder_is_bundled_installed_offline_and_shows_its_demo(
    tmp_path: Path,
) -> None:
    made = tmp_path / "bundle"
    fetched = subprocess.run(
        [sys.executable, "-m", "guilder", "bundle", str(made)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode and "GLD-C153" in fetched.stderr:
        pytest.skip("pip can fetch nothing here")
    assert fetched.returncode == 0, fetched.stderr
    place, python = ordinary(tmp_path)
    before = (*cut_off(), *place)
    printed = fetched.stdout.split("SHA256SUMS is ")[1].split()[0]
    wheel = next((made / "wheels").glob("numpy-*.whl"))
    data = wheel.read_bytes()
    wheel.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    spoilt = install(made, tmp_path / "own/env", before=before, python=python)
    wheel.write_bytes(data)

    done = install(
        made, tmp_path / "own/env", before=before, python=python, digest=printed
    )
    assert done.returncode == 0, done.stderr
    assert (spoilt.returncode, "GLD-M008" in spoilt.stderr) == (5, True)

    def guilder(*words: str) -> subprocess.CompletedProcess[str]:
        home = str(tmp_path / "own")
        return subprocess.run(
            [*before, f"{home}/env/bin/guilder", *words],
            capture_output=True, text=True, check=False, cwd=home,
            env={"PATH": "/usr/bin:/bin", "HOME": home, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    demo = guilder("demo", "--json", "--out", "demo")
    checked = guilder(
        "client", "check", "--offline", "--site", "demo/sites/site-1/site.toml"
    )

    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout.splitlines()[-1])["reports_verified"]
    assert checked.returncode == 0, checked.stdout
    assert "READY" in checked.stdout


def cut_off() -> tuple[str, ...]:
    """Without any network but loopback, where this user may have that."""
    if not cut():
        return ()
    shell = 'ip link set lo up 2>/dev/null; exec "$0" "$@"'
    return (*(cut() if os.getuid() else CUT[:2]), "sh", "-c", shell)


def ordinary(folder: Path) -> tuple[tuple[str, ...], str]:
    """How to become an ordinary user with a folder of its own, and its Python."""
    own = folder / "own"
    own.mkdir()
    here = [str(number) for number in sys.version_info[:2]]
    asked = [SYSTEMS, "-c", "import sys; print(*sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if os.getuid() or not shutil.which("setpriv") or found.stdout.split() != here:
        return (), sys.executable
    os.chown(own, NOBODY, NOBODY)
    for path in (folder, *folder.parents):
        if str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o111)
    return (*AS_NOBODY,), SYSTEMS


def test_root_is_not_needed(made: Path, tmp_path: Path) -> None:
    """Installed as the user nobody, where this test may become that user."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        assert install(made, tmp_path / "env").returncode == 0
        return
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(made, place / "bundle")
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for parent in place.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    asked = [*AS_NOBODY, SYSTEMS, "-c", "import sys; print(*sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.stdout.split() != [str(number) for number in sys.version_info[:2]]:
        pytest.skip("another user has no such Python here")

    done = install(place / "bundle", place / "env", before=AS_NOBODY, python=SYSTEMS)

    assert done.returncode == 0, done.stderr
    assert (place / "env" / "bin" / "hello").stat().st_uid == NOBODY
