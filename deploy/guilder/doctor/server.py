"""What the doctor looks at for a server, and in which order.

It binds the ports for a moment, or finds the server on them; no run is touched.
"""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from guilder.doctor import keys, machine, versions
from guilder.doctor.finding import Finding, fine, of, warning, wrong
from guilder_server import chronicle
from guilder_server.glance import DAMAGED, glance
from guilder_server.members import Members
from guilder_server.settings import Enrolment, ServerFile
from guilder_shared import certificates, tls
from guilder_shared.errors import GuilderError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal

ANSWER_S = 5.0


def check(settings: ServerFile) -> Iterator[Finding]:
    """Everything that a server needs for its sites."""
    files, server = settings.keys, settings.server
    own = tls.KeyFiles(files.key, files.certificate, files.authority)
    yield _public_name(server.url)
    for port in dict.fromkeys((server.port, server.control_port or server.port)):
        yield _port(server.host, port, own)
    yield from keys.check(own)
    if settings.operator is not None:
        operator = settings.operator
        yield from keys.check(
            tls.KeyFiles(operator.key, operator.certificate, files.authority)
        )
    if settings.enrolment is None:
        yield from _roster(settings.sites.folder)
    else:
        yield from _members(server.storage / chronicle.FILE, settings.enrolment)
    yield from machine.check(server.storage)
    yield from versions.check()
    yield from _runs(server.storage / "runs")


def _public_name(url: str) -> Finding:
    host = urlsplit(url).hostname or ""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except (socket.gaierror, UnicodeError):
        return wrong(
            "network", "GLD-N090", f"the name {host!r} of [server] url is unknown here",
            why="DNS does not know it yet, or it is misspelt; sites may see the same.",
            fix="Enter the name in DNS, or correct [server] url.",
            exit_code=3,
        )  # fmt: skip
    return fine("network", f"DNS {host} is {', '.join(sorted(found))}")


def _port(host: str, port: int, own: tls.KeyFiles) -> Finding:
    """Free, or served by this consortium's server already."""
    if port == 0:
        return fine("network", "port 0: any free port is taken at the start")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        return fine("network", f"port {port} of {host} is free")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_ours(host, port, own):
            return fine("network", f"port {port}: this server is running")
        what = error.strerror or type(error).__name__
        return wrong(
            "network",
            "GLD-N001",
            f"port {port} of {host} cannot be had: {what}",
            why="Another program has it, it needs a privilege, or the address is not "
            "this machine's.",
            fix="Stop the other program, or change [server] host and port.",
            exit_code=3,
        )


def _is_ours(host: str, port: int, own: tls.KeyFiles) -> bool:
    """Whether who listens shows a certificate of our authority."""
    there = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104
    try:
        context = tls.client_context(own)
        context.check_hostname = False
        with (
            socket.create_connection((there, port), ANSWER_S) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.version() is not None
    except (OSError, GuilderError):
        return False


def _members(path: Path, enrolment: Enrolment) -> Iterator[Finding]:
    """The signed log of who belongs here, and the certificates that count now."""
    try:
        chronicle.demand_there(path.parent)
        key = SigningKey.load(enrolment.log_key)
        journal = Journal.read(path, key.public_hex)
        entries = list(journal.entries())
        journal.close()
        yield keys.expiry(enrolment.issuing_certificate)
    except GuilderError as error:
        yield of("storage", error)
        return
    yield fine("storage", f"the log of members is intact, {len(entries)} entries")
    found = Members()
    for entry in entries:
        found.apply(entry)
    active = [each for each in found.members.values() if each.state == "active"]
    if not any(each.role == "site" for each in active):
        yield _nobody(str(path))
    for each in active:
        certificate = x509.load_pem_x509_certificate(each.certificate.encode())
        try:
            tls.check_dates(certificate, Path(f"{each.name}.pem"))
            yield keys.lasting(certificate, f"{each.role} {each.name}")
        except GuilderError as error:
            yield of("keys", error)


def _nobody(where: str) -> Finding:
    return warning(
        "keys", "GLD-S066", f"no site may connect yet, by {where}",
        why="Nobody was invited and has joined.",
        fix="guilder server invite SITE; see docs/operator.md.",
    )  # fmt: skip


def _roster(folder: Path) -> Iterator[Finding]:
    try:
        sites = certificates.roster(folder)
    except GuilderError as error:
        yield of("keys", error)
        return
    if not sites:
        yield _nobody(str(folder))
    for name in sites:
        try:
            tls.check_dates(
                certificates.load_certificate(folder / f"{name}.pem"),
                folder / f"{name}.pem",
            )
            yield keys.expiry(folder / f"{name}.pem")
        except GuilderError as error:
            yield of("keys", error)


def _runs(folder: Path) -> Iterator[Finding]:
    found = [glance(path.parent) for path in folder.glob("*/run.db")]
    damaged = [each for each in found if each["state"] == DAMAGED]
    for each in damaged:
        told = each["error"]
        yield wrong(
            "storage", told["id"], told["what"],
            why="A disk or another program changed it.", fix=told["fix"], exit_code=5,
        )  # fmt: skip
    yield fine("storage", f"{len(found) - len(damaged)} runs are in order")
