"""`guilder config`: schemas for editors, and every mistake of a file at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.config_commands import app
from guilder_server.init import init_local
from guilder_shared.settings.mistakes import FileError

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def consortium(tmp_path: Path) -> Path:
    init_local(tmp_path, ["bank-a"], host="localhost", port=8443, control_port=8444)
    return tmp_path


@pytest.mark.parametrize("kind", ["study", "site", "server"])
def test_the_schema_of_each_file_is_json_schema(kind: str) -> None:
    schema = json.loads(run("schema", kind))

    assert schema["additionalProperties"] is False
    assert "schema" in schema["required"]


@pytest.mark.parametrize("kind", ["study", "site", "server"])
def test_every_key_of_each_file_has_one_line_of_meaning(kind: str) -> None:
    schema = json.loads(run("schema", kind))

    tables: dict[str, Any] = schema["$defs"]
    silent = [
        f"{table}.{key}"
        for table, body in tables.items()
        for key, field in body["properties"].items()
        if key != "kind" and not field.get("description")
    ]
    assert silent == []


def test_the_shipped_studies_are_right() -> None:
    studies = sorted(STUDIES.glob("*.toml"))

    assert studies
    assert all("without mistakes, digest" in run("check", str(one)) for one in studies)


def test_the_files_of_a_new_consortium_are_right_and_known_by_their_keys(
    consortium: Path,
) -> None:
    server = json.loads(run("check", str(consortium / "server/server.toml"), "--json"))
    site = json.loads(
        run("check", str(consortium / "sites/bank-a/site.toml"), "--json")
    )

    assert (server["kind"], server["ok"]) == ("server", True)
    assert (site["kind"], site["ok"]) == ("site", True)


def test_mistakes_are_raised_for_the_command_to_print(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("schema = 1\n[site]\nname = 'A'\n[policy]\nrecipes = 1\n")

    with pytest.raises(FileError) as caught:
        run("check", str(path))

    text = str(caught.value)
    assert "site.toml:3 site.name" in text
    assert "site.toml:5 policy.recipes" in text
    assert caught.value.exit_code == 2


def test_an_override_is_checked_like_the_file() -> None:
    path = str(STUDIES / "card-fraud.toml")

    with pytest.raises(FileError, match=r"--set privacy.epsilon=0"):
        run("check", path, "--set", "privacy.epsilon=0")
