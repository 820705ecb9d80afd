"""Key files and certificates: there, private, fitting, and good for how long.

It opens files and no connection.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from guilder.doctor.finding import Finding, fine, of, warning
from guilder_shared import tls
from guilder_shared.certificates import load_certificate
from guilder_shared.errors import GuilderError

SOON_DAYS: Final = 14


def check(keys: tls.KeyFiles, *, site: str | None = None) -> Iterator[Finding]:
    """One finding for a set of files.

    Args:
        keys: Key, certificate, authority.
        site: The name that the certificate must have; None for a server.
    """
    from guilder_shared.certificates import read_site

    try:
        tls.client_context(keys)  # reads, compares and dates all three
        certificate = load_certificate(keys.certificate)
        if site is not None and read_site(certificate).name != site:
            yield warning(
                "keys", "GLD-N098",
                f"the certificate is for {read_site(certificate).name!r}, [site] name "
                f"says {site!r}",
                why="The server knows this site by its certificate.",
                fix="Correct [site] name; studies are refused otherwise.",
            )  # fmt: skip
    except GuilderError as error:
        yield of("keys", error)
        return
    yield expiry(keys.certificate)


def expiry(path: Path) -> Finding:
    """How long the certificate in a file is good yet; it is good now."""
    return lasting(load_certificate(path), path.name)


def lasting(certificate: x509.Certificate, name: str) -> Finding:
    """How long a certificate is good yet; it is good now."""
    end = certificate.not_valid_after_utc
    left = end - datetime.datetime.now(datetime.UTC)
    told = f"{name} is good until {end:%Y-%m-%d}, {left.days} days"
    if left.days < SOON_DAYS:
        return warning(
            "keys", "GLD-N099", told,
            why="After that day every connection is refused.",
            fix="Ask the operator for a new certificate now.",
        )  # fmt: skip
    return fine("keys", told)
