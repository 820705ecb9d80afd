"""The server file: its public address, its ports, where runs and site keys lie.

Written by the consortium's operator. It opens no file but itself, and it holds
nothing about any site's data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from pydantic import Field

from guilder_shared.settings.files import (
    File,
    FilePath,
    Frozen,
    Name,
    OwnRecipe,
    TableFile,
    Text,
    Url,
    load_toml,
    tables_in,
)

OPTION: Final = "--server"


class Server(Frozen):
    """Where the server listens and keeps its runs."""

    url: Url = Field(description="the address that sites use")
    host: Text = Field(description="address to listen on; 127.0.0.1 = this machine")
    port: int = Field(ge=0, le=65_535, description="for sites; 0 = any free port")
    control_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="for `guilder run`; the sites' port serves it too if left out; "
        "0 = any free port",
    )
    storage: FilePath = Field(description="folder of the run store and the run folders")
    consent_s: float = Field(
        default=3600.0,
        ge=0,
        le=30 * 86_400,
        description="how long a run waits, at least, for people at sites to consent",
    )

    @property
    def one_port(self) -> bool:
        """Whether work and control share the public port, told apart by ALPN."""
        return self.control_port is None or self.control_port == self.port > 0

    @property
    def control_address(self) -> tuple[str, int]:
        """Where the control channel listens: behind a shared port on loopback only."""
        if self.one_port or self.control_port is None:
            return ("127.0.0.1", 0)
        return (self.host, self.control_port)

    @property
    def public_control_port(self) -> int:
        """The port that `guilder run` calls; 0 if nobody can know it."""
        return self.port if self.control_port is None else self.control_port


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


class Enrolment(Frozen):
    """How sites and persons join: by invitation."""

    port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="for joining; the sites' port serves it too if left out; "
        "0 = any free port",
    )
    issuing_key: FilePath = Field(description="signs members' certificates")
    issuing_certificate: FilePath = Field(description="of that key, PEM")
    log_key: FilePath = Field(description="signs the log of who belongs here")


class ServerFile(File):
    """`server.toml`, whole and checked; its paths are absolute."""

    option: ClassVar[str] = OPTION
    server: Server
    keys: ServerKeys
    sites: Sites
    operator: OperatorKeys | None = Field(
        default=None, description="left out where studies are submitted elsewhere"
    )
    enrolment: Enrolment | None = Field(
        default=None, description="left out where sites are certificates in a folder"
    )
    recipe: dict[Name, OwnRecipe] = Field(
        default_factory=dict,
        max_length=1_000,
        description="[recipe.NAME]: recipes of others that may run, by their wheel",
    )
    holdout: dict[Name, TableFile] = Field(
        default_factory=dict,
        max_length=1_000,
        description="[holdout.NAME]: public rows that measure models of a dataset",
    )

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a server file; see `settings.load_toml` for its errors."""
        return load_toml(path, cls, overrides)


class Console(Frozen):
    """Where a person's computer finds the server, and with which key."""

    url: Url = Field(description="the server's control address")
    key: FilePath = Field(description="private key of this person's certificate")
    certificate: FilePath = Field(description="this person's certificate, PEM")
    authority: FilePath = Field(description="the consortium's authority, PEM")


class ConsoleFile(File):
    """`operator.toml`: what `guilder run join` writes on another computer."""

    option: ClassVar[str] = OPTION
    control: Console

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read it; see `settings.load_toml` for its errors."""
        return load_toml(path, cls, overrides)


def load_console(path: Path) -> ServerFile | ConsoleFile:
    """What tells how to reach the server: server.toml, or a person's file.

    Raises:
        FileError: As `ServerFile.load`.
    """
    is_persons = "control" in tables_in(path, OPTION)
    return (ConsoleFile if is_persons else ServerFile).load(path)
