"""Container files, checked by their text: nothing here can build or start one."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
INSTRUCTIONS = {
    "FROM", "ARG", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT",
    "CMD",
}  # fmt: skip
# Of the Compose specification; a key that is misspelt is ignored by some versions.
SERVICE_KEYS = {
    "image", "build", "user", "read_only", "tmpfs", "cap_drop", "security_opt",
    "restart",
    "stop_grace_period", "init", "pids_limit", "mem_limit", "networks", "command",
    "hostname", "volumes", "depends_on",
}  # fmt: skip
TOP_KEYS = {"name", "services", "networks", "x-guilder"}


def instructions(name: str) -> list[tuple[str, str]]:
    """Instruction and rest of each line, comments gone and continuations joined."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / name).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def compose() -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def command_exists(words: list[str]) -> bool:
    import click
    import typer

    from guilder.cli import app

    command: Any = typer.main.get_command(app)
    for word in words:
        if isinstance(command, click.Group):
            command = command.commands.get(word)
            if command is None:
                return False
    flags = {flag for param in command.params for flag in param.opts}
    return all(word in flags for word in words if word.startswith("--"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_built_in_two_steps_and_runs_without_root(name: str) -> None:
    lines = instructions(name)
    words = [word for word, _ in lines]

    assert set(words) <= INSTRUCTIONS
    assert words.count("FROM") == 2
    last = words[words.index("FROM", 1) :]
    assert "USER" in last
    assert last.index("USER") < last.index("ENTRYPOINT")
    (user,) = [rest for word, rest in lines if word == "USER"]
    assert user == "10001:10001"
    runs = [rest for word, rest in lines if word == "RUN"]
    assert all("curl" not in run and "sudo" not in run for run in runs)
    assert not any(word == "ADD" for word in words)  # it fetches and unpacks
    for image in (rest for word, rest in lines if word == "FROM"):
        assert re.match(r"python:3\.11-slim-bookworm( AS build)?$", image)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_command_of_an_image_exists(name: str) -> None:
    lines = dict(instructions(name))

    assert json.loads(lines["ENTRYPOINT"]) == ["guilder"]
    assert command_exists(json.loads(lines["CMD"]))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_installs_is_pinned(name: str) -> None:
    runs = " ".join(rest for word, rest in instructions(name) if word == "RUN")

    assert "--constraint /src/constraints.txt" in runs


def test_every_service_is_hardened_and_spelt_right() -> None:
    found = compose()

    assert set(found) <= TOP_KEYS
    assert set(found["services"]) == {"server", "north", "harbour", "st-anna"}
    for name, service in found["services"].items():
        service.pop("<<", None)
        assert set(service) <= SERVICE_KEYS, name
        assert service["read_only"] is True
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in service  # nothing is reached from outside the network
        assert "privileged" not in service
        assert command_exists(service["command"]), name
        assert set(service["networks"]) <= set(found["networks"])
    assert found["networks"]["consortium"]["internal"] is True
    assert (FOLDER / found["x-guilder"]["build"]["dockerfile"]).exists() or (
        ROOT / found["x-guilder"]["build"]["dockerfile"]
    ).exists()


def test_each_container_sees_one_folder_and_no_other_sites_keys() -> None:
    folders = [s["volumes"] for s in compose()["services"].values()]

    assert all(len(each) == 1 for each in folders)
    assert len({each[0] for each in folders}) == len(folders)


def test_the_commands_before_the_first_start_make_what_compose_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own line is run; then each mounted folder and host is there."""
    from typer.testing import CliRunner

    from guilder.cli import app

    page = (FOLDER / "README.md").read_text()
    (line,) = [x for x in page.splitlines() if x.startswith("guilder server init")]
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, shlex.split(line)[1:])

    assert done.exit_code == 0, done.output
    base = tmp_path / "deploy" / "docker"
    for service in compose()["services"].values():
        place = base / service["volumes"][0].partition(":")[0]
        assert place.is_dir()
        names = {path.name for path in place.iterdir()}
        assert names & {"site.toml", "server.toml"}
    site = (base / "consortium/sites/north/site.toml").read_text()
    assert "https://server:" in site
    server = (base / "consortium/server/server.toml").read_text()
    assert 'host = "0.0.0.0"' in server
