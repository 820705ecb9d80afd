"""The server file: one port or two, paths from its folder, public rows by dataset."""

from pathlib import Path

import pytest

from guilder_server.settings import ServerFile
from guilder_shared.settings.mistakes import FileError

TEXT = """\
schema = 1

[server]
url = "https://fl.example.org:8443"
host = "0.0.0.0"
port = 8443
control_port = 8444
storage = "state"

[keys]
key = "server.key"
certificate = "server.pem"
authority = "ca.pem"

[sites]
folder = "sites"

[holdout.card-payments]
kind = "parquet"
path = "holdout.parquet"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(TEXT)
    return path


def test_a_server_file_is_read_with_paths_from_its_folder(path: Path) -> None:
    server = ServerFile.load(path)

    assert server.server.storage == path.parent / "state"
    assert server.sites.folder == path.parent / "sites"
    assert server.holdout["card-payments"].path == path.parent / "holdout.parquet"
    assert server.operator is None


@pytest.mark.parametrize("line", ["", "control_port = 8443"])
def test_one_port_may_serve_both(path: Path, line: str) -> None:
    path.write_text(TEXT.replace("control_port = 8444", line))

    server = ServerFile.load(path).server

    assert server.one_port
    assert (server.public_control_port, server.control_address) == (
        8443,
        ("127.0.0.1", 0),
    )


def test_a_port_of_its_own_is_listened_on_as_it_stands(path: Path) -> None:
    server = ServerFile.load(path).server

    assert not server.one_port
    assert (server.public_control_port, server.control_address) == (
        8444,
        ("0.0.0.0", 8444),
    )


def test_both_ports_may_be_left_to_chance(path: Path) -> None:
    overrides = ("server.port=0", "server.control_port=0")

    assert ServerFile.load(path, overrides).server.port == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.port", "65536"),
        ("server.port", "-1"),
        ("server.host", '"a\\u001bb"'),
        ("server.url", "fl.example.org"),
        ("holdout.card-payments.kind", "xlsx"),
    ],
)
def test_what_a_server_must_not_say_is_refused(
    path: Path, key: str, value: str
) -> None:
    with pytest.raises(FileError) as caught:
        ServerFile.load(path, (f"{key}={value}",))

    (mistake,) = caught.value.mistakes
    assert (mistake.error_id, mistake.key) == ("GLD-C012", key)
