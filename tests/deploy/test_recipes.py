"""Own recipes: written, packed, installed by a site itself, and allowed by hash.

Each runs in processes of its own, because code that is loaded stays loaded.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from guilder_server.init import LocalData, init_local

# What a site does with an offer, in a process that sees the installed package.
OFFER = """
import json, sys
from pathlib import Path
from guilder_client import policy
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import reports, tasks
from guilder_shared.messages import Offer
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

site = Site.open(SiteFile.load(Path(sys.argv[1])))
study = Study.load(Path(sys.argv[2]))
answer = policy.consider(site, Offer("run", study.canonical(), accounting.solve(study)))
told = {"verdict": str(answer.verdict), "reason": answer.reason,
        "loaded": "guilder_recipe_late" in sys.modules}
if answer.grant_id:
    report = reports.build(site.ledger)
    told["software"] = report["studies"][0]["software"]
    path = reports.write(site.ledger, Path(sys.argv[1]).parent / "reports")
    told["page"] = path.with_name(path.name.replace(".json", ".html")).read_text()
    told["verified"] = reports.verify(path).ok
print(json.dumps(told))
"""
# Whether its policy lets the recipe in: nothing heavy is loaded for a refusal.
PERMIT = """
import json, sys
from pathlib import Path
from guilder_client import policy
from guilder_client.settings import SiteFile
from guilder_shared.errors import GuilderError
from guilder_shared.study import Study

study = Study.load(Path(sys.argv[2]))
try:
    policy.permit(SiteFile.load(Path(sys.argv[1])), study)
    reason = ""
except GuilderError as error:
    reason = error.brief()
loaded = "guilder_recipe_late" in sys.modules
print(json.dumps({"reason": reason, "loaded": loaded}))
"""


def guilder(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-m", "guilder", *words],
        capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip


class Bench:
    """A recipe's package, its wheel, a place where it is installed, and a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = guilder("recipe", "new", "late", "--dir", str(folder))
        assert made.returncode == 0, made.stderr
        self.package = folder / "guilder-recipe-late"
        packed = guilder("recipe", "pack", str(self.package), "--out", str(folder))
        assert packed.returncode == 0, packed.stderr
        (self.wheel,) = folder.glob("*.whl")
        self.hash = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        assert self.hash in packed.stdout
        self.place = folder / "installed"
        with zipfile.ZipFile(self.wheel) as archive:  # what pip does with a wheel
            archive.extractall(self.place)
        init_local(
            folder, ["a"], host="127.0.0.1", port=1, control_port=2,
            data=LocalData(dataset="card-payments", smallest_cohort=2),
        )  # fmt: skip
        self.site = folder / "sites" / "a" / "site.toml"
        rows = "amount,hour,fraud\n" + "12.5,3,0\n99.0,23,1\n" * 20
        (self.site.parent / "data.csv").write_text(rows)

    def allow(self, **changes: str) -> None:
        """Put the lines into site.toml, and have the officer sign its policy anew."""
        lines = guilder("recipe", "allow", str(self.wheel)).stdout
        for old, new in changes.items():
            lines = lines.replace(getattr(self, old, old), new)
        self.recipes()
        with self.site.open("a") as file:
            file.write("\n" + lines)

    def recipes(self) -> None:
        from guilder.consortium import Consortium

        text = self.site.read_text()
        self.site.write_text(text.replace('"tabular-classification"', '"late"'))
        Consortium(self.folder, ["a"]).sign("a")

    def offer(self, child: str = OFFER) -> Any:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.place)}
        study = str(self.package / "study.toml")
        done = subprocess.run(
            [sys.executable, "-c", child, str(self.site), study],
            capture_output=True, text=True, check=False, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("recipe"))


@pytest.fixture
def bench(made: Bench, tmp_path: Path) -> Bench:
    """A copy: each test changes its own."""
    shutil.copytree(made.folder, tmp_path / "bench")
    copy = object.__new__(Bench)
    copy.folder = tmp_path / "bench"
    copy.hash = made.hash
    for name in ("package", "wheel", "place", "site"):
        own = copy.folder / getattr(made, name).relative_to(made.folder)
        setattr(copy, name, own)
    return copy


def test_an_allowed_recipe_is_loaded_by_the_policy(bench: Bench) -> None:
    bench.allow()

    assert bench.offer(PERMIT) == {"reason": "", "loaded": True}


@pytest.mark.slow  # the whole self-test, a report and its verification
def test_an_allowed_recipe_runs_and_the_report_prints_its_hash(bench: Bench) -> None:
    bench.allow()

    told = bench.offer()

    assert told["verdict"] == "accepted", told
    assert told["verified"]
    recipe = told["software"]["recipe"]
    assert recipe == {
        "package": "guilder-recipe-late", "version": "1.0.0", "sha256": bench.hash,
    }  # fmt: skip
    assert len(told["software"]["installed"]) == 64
    assert bench.hash in told["page"]


@pytest.mark.attack("a server", "code that the site did not allow", "GLD-S067")
def test_an_installed_recipe_that_nobody_allowed_is_not_even_loaded(
    bench: Bench,
) -> None:
    bench.recipes()

    told = bench.offer(PERMIT)

    assert told["reason"].startswith("GLD-S067")
    assert not told["loaded"]


def test_a_recipe_that_is_not_installed_is_unknown(bench: Bench) -> None:
    bench.recipes()
    shutil.rmtree(bench.place)

    assert bench.offer(PERMIT)["reason"].startswith("GLD-C060")


@pytest.mark.parametrize(
    "attack",
    ["one line", "one more file", "another wheel", "another hash", "another version"],
)
@pytest.mark.attack(
    "who changed the installed code",
    "a crafted bundle: a recipe that is not the allowed wheel",
    "GLD-S068",
)
def test_code_that_is_not_the_allowed_wheel_is_not_loaded(
    bench: Bench, attack: str
) -> None:
    changes = {
        "another hash": {"hash": "0" * 64},
        "another version": {"1.0.0": "1.0.1"},
    }
    bench.allow(**changes.get(attack, {}))
    module = bench.place / "guilder_recipe_late"
    if attack == "one line":
        with (module / "__init__.py").open("a") as file:
            file.write("import os\n")
    elif attack == "one more file":
        (module / "more.py").write_text("")
    elif attack == "another wheel":
        with bench.wheel.open("ab") as file:
            file.write(b" ")

    told = bench.offer(PERMIT)

    assert told["reason"].startswith("GLD-S068"), told
    assert not told["loaded"]


@pytest.mark.slow  # the whole self-test
def test_a_recipe_that_mixes_rows_is_refused_by_the_self_test(bench: Bench) -> None:
    """The mean over the batch in place of one loss a row."""
    file = bench.package / "guilder_recipe_late" / "__init__.py"
    text = file.read_text()
    mixed = text.replace(
        "    return binary_cross_entropy_with_logits(\n",
        "    outputs = outputs - outputs.mean()\n"
        "    return binary_cross_entropy_with_logits(\n",
    )
    assert mixed != text
    file.write_text(mixed)
    bench.wheel.unlink()
    guilder("recipe", "pack", str(bench.package), "--out", str(bench.folder))
    shutil.rmtree(bench.place)
    with zipfile.ZipFile(bench.wheel) as archive:
        archive.extractall(bench.place)
    bench.allow()

    told = bench.offer()

    assert told["verdict"] == "refused-by-policy"
    assert told["reason"][:7] == "GLD-P07", told


def test_a_package_of_anybody_cannot_take_guilders_own_name(bench: Bench) -> None:
    points = next(bench.place.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[guilder.recipes]\ntabular-classification = os:sep\n")
    child = (
        "from guilder_shared import recipes, tasks\n"
        "assert recipes.admit({}, 'tabular-classification', who='a') is None\n"
        "recipes.trust_installed('tabular-classification')\n"
        "print(tasks.recipe('tabular-classification').data)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child],
        capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(bench.place)},
    )  # fmt: skip

    assert done.stdout == "table\n", done.stderr


@pytest.mark.slow  # a whole simulation
def test_a_researcher_simulates_with_it_as_it_is_installed(bench: Bench) -> None:
    done = guilder(
        "simulate", str(bench.package / "study.toml"), "--json",
        "--out", str(bench.folder / "run"), path=bench.place,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "auc" in json.loads(done.stdout.splitlines()[-1])["metrics"]


def test_the_same_files_are_packed_to_the_same_bytes(
    bench: Bench, tmp_path: Path
) -> None:
    guilder("recipe", "pack", str(bench.package), "--out", str(tmp_path / "again"))

    assert (tmp_path / "again" / bench.wheel.name).read_bytes() == (
        bench.wheel.read_bytes()
    )


@pytest.mark.parametrize("name", ["late", "tabular-classification", "Late", "../late"])
def test_a_name_that_will_not_do_is_refused(bench: Bench, name: str) -> None:
    done = guilder("recipe", "new", name, "--dir", str(bench.folder))

    assert done.returncode == 2
    assert done.stderr.startswith("GLD-C152")


def test_installed_recipes_are_listed_and_not_loaded(bench: Bench) -> None:
    init = bench.place / "guilder_recipe_late" / "__init__.py"
    init.write_text("raise SystemExit(99)\n")

    done = guilder("recipe", "list", "--json", path=bench.place)

    listed = {each["name"]: each["package"] for each in json.loads(done.stdout)}
    assert listed["late"] == "guilder-recipe-late"
    assert listed["tabular-classification"] == "guilder"
