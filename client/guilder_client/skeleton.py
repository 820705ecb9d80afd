"""The first site.toml of a site that joined, and the file of a person that did.

Meant to be read and filled in by the site's engineer; what is missing is said in it,
with the command that comes next. It opens no connection and reads no row.
"""

from pathlib import Path

from guilder_shared import durable
from guilder_shared.invitation import Token

SITE_TOML = """\
schema = 1

# 1. The officer makes a key elsewhere (`guilder privacy officer-key`) and hands over
#    officer.pub: put it beside this file.
# 2. Fill in [data.…] and [budget.…] below; take the # away.
# 3. guilder config check {path}
# 4. The officer signs what stands here: `guilder privacy budget --sign`.
# 5. guilder client check --site {path}, then guilder client start --site {path}

[site]
name = "{name}"
server = "{server}"
{control}state_dir = "state"                  # ledger and sealed replies; back it up

[keys]
key = "site.key"                     # made here; it never leaves
certificate = "site.pem"
authority = "ca.pem"
signing_key = "signing.key"          # signs the ledger; back it up with state
officer = "officer.pub"              # whose orders count; see [budget]

# Only if connections to the outside go through a proxy:
# [proxy]
# url = "http://proxy.example:3128"

# What a study calls card-payments is, here:
# [data.card-payments]
# kind = "parquet"                   # csv | parquet | npz
# path = "/data/payments.parquet"
# public_size = 20000                # rows, as all may know it: typed, never counted
# map = {{ amount = "amt_eur" }}       # the study's column = your column

[policy]
recipes = ["tabular-classification"]
largest_epsilon = 3.0                # most that one study may ask
smallest_cohort = 3                  # fewest sites in a round
accept = "ask"                       # a person decides on each study; or "auto"

# What may ever be learnt about these people, over all studies; counts once signed:
# [budget.cardholders]
# epsilon = 6.0
# delta = 1e-5
# datasets = ["card-payments"]
"""
CONSOLE_TOML = """\
schema = 1

[control]
url = "{control}"
key = "{name}.key"                   # made here; it never leaves
certificate = "{name}.pem"
authority = "ca.pem"
"""


def write(folder: Path, token: Token, server: str, control: str) -> Path:
    """Write site.toml, or operator.toml for a person; a file that is there stays.

    Returns:
        The file.
    """
    is_site = token.role == "site"
    path = folder / ("site.toml" if is_site else "operator.toml")
    if not path.exists():
        server, control = _quoted(server), _quoted(control)
        if is_site:
            own = f'control = "{control}"    # where the certificate is renewed\n'
            control = own if control != server else ""
        text = (SITE_TOML if is_site else CONSOLE_TOML).format(
            name=token.name, server=server, control=control, path=path
        )
        durable.write(path, text.encode())
    return path


def _quoted(url: str) -> str:
    """The URL as it may stand between quotes: a server could send anything."""
    return "".join(
        c for c in url[:300] if c.isascii() and c.isprintable() and c not in '"\\{}'
    )
