"""What a connection to the server failed of: for good, or only for now.

Raises what no further try would mend. It opens no connection and keeps nothing.
"""

import email.utils
import ssl
import time
from urllib.parse import urlsplit

import httpx

from guilder_shared import clocks
from guilder_shared.errors import EnrolmentError, NetworkError
from guilder_shared.plain_text import one_line
from guilder_shared.tunnel import is_this_machine

AHEAD_S = 5.0  # Flower's SYSTEM_TIME_TOLERANCE: a header signed later is refused
OLDEST_HEADER_S = 300.0


def judge_clock(date: str) -> None:
    """Raise if the server's clock says that ours is why it refused.

    Args:
        date: The `Date` header of its answer; one that cannot be read says nothing.

    Raises:
        NetworkError: GLD-N010, with the seconds.
    """
    try:
        server_s = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    ahead_s = time.time() - server_s
    if -OLDEST_HEADER_S < ahead_s < AHEAD_S:
        return
    word = "ahead of" if ahead_s > 0 else "behind"
    raise NetworkError(
        "GLD-N010",
        f"this machine's clock is {abs(ahead_s):.0f} s {word} the server's",
        why="The server takes no request signed at another time than its own.",
        fix=f"{clocks.SET_IT}, and start again.",
    )


def judge_proxy(error: Exception) -> None:
    """Raise if the proxy lets nobody pass without another password.

    Raises:
        NetworkError: GLD-N100.
    """
    if isinstance(error, httpx.ProxyError) and str(error).startswith("407"):
        raise NetworkError(
            "GLD-N100",
            f"the proxy on the way to the server refused: {cause_of(error)}",
            fix="See to user and password under [proxy] in site.toml.",
        )


def cause_of(error: Exception) -> str:
    """One line for the log: the kind of failure, and what a proxy or we said of it."""
    kind = type(error).__name__
    said = isinstance(error, httpx.ProxyError) or str(error).startswith("GLD-")
    return f"{kind} ({one_line(str(error), 80)})" if said else kind


def judge_tls(error: Exception, url: str) -> None:
    """Raise if TLS failed for good: a certificate was refused on either side.

    Raises:
        NetworkError: GLD-N135 its certificate is of another time than our clock's.
        EnrolmentError: GLD-E012 we do not believe the server, GLD-E014 it not us.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if (by_our_clock := clocks.other_time(cause, url)) is not None:
            raise by_our_clock
        raise EnrolmentError(
            "GLD-E012",
            f"{url} is not a server of this consortium: {cause.verify_message}",
            fix="Check the address, and that ca.pem came from the server's operator.",
        )
    reason = getattr(cause, "reason", None) or ""
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        raise EnrolmentError(
            "GLD-E014",
            f"{url} refused this site's certificate: {reason}",
            **clocks.refusal(reason, "ask the operator for new keys."),
        )


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by its name or address alone."""
    return is_this_machine(urlsplit(url).hostname or "")
