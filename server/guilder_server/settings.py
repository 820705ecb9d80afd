"""The server file: its public address, its ports, where runs and site keys lie.

Written by the consortium's operator. It opens no file but itself, and it holds
nothing about any site's data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from guilder_shared.settings.files import (
    File,
    FilePath,
    Frozen,
    Name,
    TableFile,
    Text,
    Url,
    load_toml,
)
from guilder_shared.settings.mistakes import Contradiction


class Server(Frozen):
    """Where the server listens and keeps its runs."""

    url: Url = Field(description="the address that sites use")
    host: Text = Field(description="address to listen on; 127.0.0.1 = this machine")
    port: int = Field(ge=0, le=65_535, description="for sites; 0 = any free port")
    control_port: int = Field(
        ge=0, le=65_535, description="for `guilder run`; 0 = any free port"
    )
    storage: FilePath = Field(description="folder of the run store and the run folders")


class ServerKeys(Frozen):
    """Key files of the server process."""

    key: FilePath = Field(description="private key of the TLS certificate")
    certificate: FilePath = Field(description="TLS certificate, PEM")
    authority: FilePath = Field(description="the consortium's authority, PEM")


class OperatorKeys(Frozen):
    """Key files with which `guilder run` on this machine speaks to the server."""

    key: FilePath = Field(description="private key of the operator's certificate")
    certificate: FilePath = Field(description="the operator's certificate, PEM")


class Sites(Frozen):
    """Which sites may connect."""

    folder: FilePath = Field(description="one certificate per site, NAME.pem")


class ServerFile(File):
    """`server.toml`, whole and checked; its paths are absolute."""

    server: Server
    keys: ServerKeys
    sites: Sites
    operator: OperatorKeys | None = Field(
        default=None, description="left out where studies are submitted elsewhere"
    )
    holdout: dict[Name, TableFile] = Field(
        default_factory=dict,
        max_length=1_000,
        description="[holdout.NAME]: public rows that measure models of a dataset",
    )

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a server file; see `settings.load_toml` for its errors.

        Raises:
            FileError: As there, and GLD-C013: both ports are the same.
        """
        return load_toml(path, cls, overrides)

    @classmethod
    def contradictions(cls, parts: Mapping[str, Any]) -> list[Contradiction]:
        """The two ports differ."""
        server: Server | None = parts.get("server")
        if server is None or server.port == 0 or server.port != server.control_port:
            return []
        return [
            Contradiction(
                ("server", "control_port"),
                f"is {server.control_port}, as [server] port is",
                "Give the two different ports.",
            )
        ]
