"""The letter to IT: one page with all that a firewall or proxy needs to know.

It reads site.toml and the authority's certificate; it opens no connection.
"""

import socket

from cryptography.hazmat.primitives.hashes import SHA256

from guilder.doctor.hops import place_of
from guilder_client.settings import SiteFile
from guilder_shared.certificates import load_certificate

LETTER = """\
Subject: outbound connection for federated learning, {host}:{port}

Please allow one outbound connection from our machine:

  from         {source} (this machine: {machine})
  to           {host}, port {port}, TCP
  protocol     TLS 1.3 with client certificates, HTTP/1.1 inside
  direction    outbound only; nothing listens on our side, no port is opened
  when         always; a connection stays open, and is opened again when it breaks
  how much     a few requests a minute when idle; in a study the model's size each
               way in every round (a small table model: some kilobytes)
  proxy        {proxy}

Please exempt {host}:{port} from TLS inspection. Both sides believe one private
authority only and refuse any other certificate:

  authority    {authority}
  SHA-256      {fingerprint}

What it is for: our institution takes part in studies of a consortium. Rows of our data
do not leave; what leaves are updates of a model with noise added, within a budget that
our data-protection officer signs. Nothing is installed or run from outside.

How to see that it works: guilder client check --site {site}
"""


def firewall_request(settings: SiteFile, path: str) -> str:
    """The letter, to be sent as it is.

    Args:
        settings: Of this site.
        path: Of its site.toml, for the last line.

    Raises:
        EnrolmentError: The authority's certificate cannot be read (GLD-E006).
    """
    place = place_of(settings.site.server, settings.proxy)
    authority = load_certificate(settings.keys.authority)
    digest = authority.fingerprint(SHA256()).hex().upper()
    proxy = "none is set here; if one is needed, tell us its address"
    if place.proxy:
        proxy = f"{place.next_name}, by CONNECT to {place.name}"
    return LETTER.format(
        host=place.host,
        port=place.port,
        source=_own_address(place.host, place.port),
        machine=socket.gethostname(),
        proxy=proxy,
        authority=authority.subject.rfc4514_string(),
        fingerprint=":".join(digest[i : i + 2] for i in range(0, len(digest), 2)),
        site=path,
    )


def _own_address(host: str, port: int) -> str:
    """This machine's address on the way there; no packet is sent."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "the address of this machine"
