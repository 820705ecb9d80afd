"""Why a server cannot be reached, found out by one plain TLS connection.

gRPC tells a missing server, a foreign authority and a refused certificate apart in
its log only. This module speaks no gRPC and sends nothing but the handshake.
"""

import socket
import ssl
from pathlib import Path

from guilder_shared import clocks, tls
from guilder_shared.certificates import load_certificate, load_tls_key
from guilder_shared.errors import NetworkError
from guilder_shared.tunnel import address

ANSWER_S = 5.0  # for the connection, then for the handshake
REFUSAL_S = 0.5  # TLS 1.3 tells a refusal after the handshake


def operator_context(key: Path, certificate: Path, authority: Path) -> ssl.SSLContext:
    """TLS 1.3 as the operator, believing our own authority alone.

    Raises:
        EnrolmentError: A key or certificate is missing, open to others or run out.
    """
    load_tls_key(key)
    load_certificate(authority)
    tls.check_dates(load_certificate(certificate), certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cafile=str(authority))
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def unreachable(host: str, port: int, context: ssl.SSLContext) -> NetworkError:
    """Try to connect as gRPC would, and name the first thing that fails.

    Args:
        host: The server's name or address.
        port: Its control port.
        context: Our certificate, and the authority we believe.

    Returns:
        GLD-N050 nobody answers; N051 the server is not one we believe; N135 by our
        clock alone; N052 it does not believe us; N056 it answered this time.
    """
    place = address(host, port)
    try:
        plain = socket.create_connection((host, port), ANSWER_S)
    except OSError as error:
        return NetworkError(
            "GLD-N050",
            f"no server answers at {place} ({error.strerror or error})",
            fix="Is it started (`guilder server start`), and is this its address?",
        )
    try:
        with plain, context.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(REFUSAL_S)
            if not secure.recv(1):  # HTTP/2 begins with the server's settings
                return _refused(place, clocks.CLOSED)
    except ssl.SSLCertVerificationError as error:
        return clocks.other_time(error, place) or NetworkError(
            "GLD-N051",
            f"the server at {place} shows no certificate of our authority for "
            f"this address ({error.verify_message})",
            fix="Compare ca.pem with the server's; never go on without.",
        )
    except TimeoutError:
        pass  # slow, yet neither side refused the other
    except OSError as error:
        return _refused(place, getattr(error, "reason", None) or str(error.strerror))
    return NetworkError(
        "GLD-N056",
        f"the server at {place} was away and answers again",
        fix="Ask again; see `guilder run list`.",
    )


def _refused(place: str, reason: str) -> NetworkError:
    return NetworkError(
        "GLD-N052",
        f"the server at {place} refuses our certificate, or speaks no TLS ({reason})",
        **clocks.refusal(
            reason, "use the operator's key and certificate made for this server."
        ),
    )
