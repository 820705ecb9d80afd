"""The server process: hub and control channel open, runs going on, until stopped."""

import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from cryptography import x509

from guilder_server import chronicle, roster
from guilder_server.control import ControlServer
from guilder_server.hub import Hub
from guilder_server.members import Member
from guilder_server.register import Register
from guilder_server.service import Service
from guilder_server.settings import ServerFile, ServerKeys
from guilder_server.sightings import Sightings
from guilder_shared import certificates, tls
from guilder_shared.claims import claimed
from guilder_shared.errors import GuilderError

log = logging.getLogger(__name__)
RENEWAL_S = 3600.0  # between two looks


def run_server(
    settings: ServerFile, stop: threading.Event, passphrase: bytes | None = None
) -> None:
    """Serve until `stop`; open runs are left as they are, to be gone on with.

    Both ports and the storage are this process's own before anything is served.

    Raises:
        NetworkError: A port is taken. EnrolmentError: a key or certificate is wrong.
        RunFailed: Another server has the storage (GLD-R030), or it cannot be written
            (GLD-R031).
        IntegrityError: The log of members is lost (GLD-I103) or was changed.
    """
    with claimed(settings.server.storage):
        register = _open_register(settings, passphrase)
        try:
            _serve(settings, stop, register)
        finally:
            if register is not None:
                register.close()


def _open_register(settings: ServerFile, passphrase: bytes | None) -> Register | None:
    """The members, where sites enrol; the folder of the sites is written from them."""
    if settings.enrolment is None:
        return None
    chronicle.demand_there(settings.server.storage)
    register = Register.open(
        settings.server.storage, settings.enrolment, settings.keys.authority, passphrase
    )
    register.renew_server(settings.keys.certificate)
    roster.write(settings.sites.folder, register.members())
    return register


def _serve(
    settings: ServerFile, stop: threading.Event, register: Register | None
) -> None:
    keys = settings.keys
    sites = certificates.roster(settings.sites.folder)

    @contextlib.contextmanager
    def open_grid(run_id: str) -> Iterator[Any]:
        try:
            yield hub.grid(run_id)
        finally:
            hub.close_run(run_id)

    service = Service(settings, open_grid)
    sightings = Sightings.open(settings.server.storage)
    context = tls.server_context(
        tls.KeyFiles(keys.key, keys.certificate, keys.authority)
    )
    hub = Hub(
        (settings.server.host, settings.server.port),
        context,
        {name: site.node_key for name, site in sites.items()},
        remembered=service.heads.word,
        heard=sightings.note,
    )
    if register is not None:
        register.listen(lambda _, name, member: admit_or_expel(hub, name, member))
        register.listen(
            lambda *_: roster.write(settings.sites.folder, register.members())
        )
        renewing = (register, keys, context, stop)
        threading.Thread(target=_keep_certificate, args=renewing, daemon=True).start()
    control = ControlServer(
        settings,
        service,
        register,
        hub.attended,
        lambda run_id: service.waits(run_id) or hub.awaited(run_id),
        hub.online,
        sightings.all,
        hub.relays.known,
    )
    control.start()
    hub.start(control.behind_the_public_port())
    service.start()
    log.info("serving %d sites on port %d", len(sites), hub.port)
    threading.Thread(target=_warm_up, daemon=True, name="warm-up").start()
    sightings.keep(stop)
    control.stop()
    service.stop()
    hub.stop()
    sightings.save()


def _keep_certificate(
    register: Register,
    keys: ServerKeys,
    context: ssl.SSLContext,
    stop: threading.Event,
) -> None:
    """Renew what the server shows, while it runs; gRPC looks at the file itself."""
    while not stop.wait(RENEWAL_S):
        try:
            if register.renew_server(keys.certificate):
                context.load_cert_chain(keys.certificate, keys.key)
                log.info("the server's certificate was renewed")
        except (GuilderError, OSError) as error:
            log.error("the server's certificate was not renewed: %s", error)


def admit_or_expel(hub: Hub, name: str, member: Member) -> None:
    """Let a site in or shut it out at once, with the connections it has open."""
    is_in = name in hub.site_names().values()
    if is_in and member.state != "active":
        hub.revoke(name)
    elif not is_in and member.state == "active" and member.role == "site":
        certificate = x509.load_pem_x509_certificate(member.certificate.encode())
        hub.admit(name, certificates.public_pem(certificate))


def _warm_up() -> None:
    """Import what the first run needs, while nobody waits."""
    import torch  # noqa: F401

    from guilder_shared.training import evaluate  # noqa: F401
