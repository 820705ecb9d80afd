"""The server file: two ports, paths from its folder, public rows by dataset."""

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


def test_one_port_for_both_is_refused(path: Path) -> None:
    with pytest.raises(FileError) as caught:
        ServerFile.load(path, ("server.control_port=8443",))

    (mistake,) = caught.value.mistakes
    assert (mistake.error_id, mistake.key) == ("GLD-C013", "server.control_port")


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
