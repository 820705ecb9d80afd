"""What TLS says of a certificate's dates, which is what a wrong clock looks like.

Neither side can tell a certificate that has run out from a clock that is wrong: a
person is told this machine's time, and compares. It opens no connection.
"""

import ssl
import time
from typing import Final

from guilder_shared.errors import NetworkError

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED
OTHER_TIMES: Final = (9, 10)
CLOSED: Final = "closed after the handshake"  # a server of ours says no more than that
# Which may be of dates.
REFUSALS: Final = ("CERTIFICATE_EXPIRED", "BAD_CERTIFICATE", CLOSED)
SET_IT: Final = "Set the clock, best by NTP (`timedatectl set-ntp true`)"


def moment() -> str:
    """This machine's time."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def is_of_dates(error: ssl.SSLCertVerificationError) -> bool:
    """Whether all that is wrong with a certificate are its dates, by our clock."""
    return error.verify_code in OTHER_TIMES


def other_time(error: ssl.SSLCertVerificationError, place: str) -> NetworkError | None:
    """The error of a server whose certificate our clock does not allow (GLD-N135).

    Args:
        error: Why the handshake ended.
        place: The server, as the person wrote it.

    Returns:
        None if something else is wrong with the certificate.
    """
    if not is_of_dates(error):
        return None
    return NetworkError(
        "GLD-N135",
        f"the {error.verify_message} at {place}, and this machine says {moment()}",
        why="Nothing was sent. It may be the right server, seen by a wrong clock.",
        fix=f"{SET_IT}. If it is right, tell the operator that the server's "
        "certificate is not.",
    )


def refusal(alert: str, fix: str) -> dict[str, str]:
    """Why the other side ended TLS, and what to do: with the clocks, if they matter.

    Args:
        alert: With which it did, as OpenSSL names it, or CLOSED.
        fix: What to do if both clocks are right.

    Returns:
        `why` and `fix` of an error.
    """
    if not alert.endswith(REFUSALS):
        return {"fix": fix}
    return {
        "why": "By the other side's clock the certificate has perhaps run out, or is "
        f"not good yet; this machine says {moment()}.",
        "fix": f"Compare the clocks of both machines. If they are right: {fix}",
    }
