"""A whole consortium's first files: keys, certificates, server.toml, a site.toml each.

For trying, for tests and for a consortium on one machine. The files are meant to be
read and edited by people. Keys are made here only; nothing is sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guilder_shared import certificates
from guilder_shared.errors import StudyError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer, make_key, put

SERVER_TOML = """\
schema = 1

[server]
url = "https://{host}:{port}"        # how sites reach this server
host = "{bind}"                      # the address it listens on
port = {port}                        # for sites and `guilder run`
{control}storage = "state"                    # runs: models, metrics, events

[keys]
key = "server.key"
certificate = "server.pem"
authority = "ca.pem"

[operator]
key = "operator.key"
certificate = "operator.pem"

[sites]
folder = "sites"                     # NAME.pem of each site that may connect

# Public rows on which the global model is measured (evaluation.on = "public-holdout"):
# [holdout.card-payments]
# kind = "parquet"
# path = "holdout.parquet"
"""
CONTROL_TOML = "control_port = {port}        # for `guilder run`, in place of port\n"
HOLDOUT_TOML = """
[holdout.{dataset}]
kind = "{kind}"
path = "{path}"
"""
SITE_TOML = """\
schema = 1

[site]
name = "{name}"
server = "https://{host}:{port}"
state_dir = "state"                  # the ledger and the sealed replies; back it up

[keys]
key = "site.key"
certificate = "site.pem"
authority = "ca.pem"
signing_key = "signing.key"
officer = "officer.pub"              # whose orders count; see [budget]

[data.{dataset}]                     # what a study calls {dataset} is, here:
kind = "{kind}"                      # csv | parquet
path = "{path}"
public_size = {public_size}          # rows, as all may know it: typed, never counted
# public_persons = 100               # persons, likewise; for studies of unit "person"

[policy]
recipes = ["tabular-classification"]
largest_epsilon = {epsilon}          # most that one study may ask
smallest_cohort = {smallest_cohort}  # fewest sites in a round
accept = "auto"                      # or "ask": a person decides on each study
allow_unprotected = {unprotected}    # studies without privacy

# A budget and a public size count once the officer has signed them:
# `guilder privacy budget --sign`.
[budget.people]                      # over all studies on these people, for ever
epsilon = {epsilon}
delta = {delta}
datasets = ["{dataset}"]
"""


@dataclass(frozen=True)
class LocalData:
    """What the first site.toml of every local site says about data and budget."""

    dataset: str = "my-dataset"
    kind: str = "csv"
    path: str = "data.csv"
    public_size: int = 1000
    public_persons: int | None = None
    epsilon: float = 6.0
    delta: float = 1e-5
    smallest_cohort: int = 2
    allow_unprotected: bool = False
    recipe: str = "tabular-classification"


def init_local(
    folder: Path,
    names: Sequence[str],
    *,
    host: str,
    port: int,
    control_port: int | None = None,
    data: LocalData | Mapping[str, LocalData] | None = None,
    holdout: str | None = None,
) -> None:
    """Write `folder/server`, `folder/sites/NAME` and `folder/officers/NAME`.

    Every site has an officer, whose key signs what its site.toml says first.

    Args:
        folder: Made if missing; keys that are there already are never overwritten.
        names: The sites.
        host: Where sites reach the server.
        port: For sites, and for the operator.
        control_port: For the operator, if it is to be another.
        data: What a site's file says about its data, one for all or one per name; to
            be edited by the site.
        holdout: A Parquet file of public rows, relative to `folder/server`.

    Raises:
        StudyError: No site is named.
        EnrolmentError: A name is malformed or double, or keys exist already.
    """
    if not names:
        raise StudyError("GLD-C084", "no site is named", fix="--local-sites a,b,c")
    certificates.init_local_sites(folder, names, [host])
    bind = host if host in ("127.0.0.1", "localhost", "::1") else "0.0.0.0"  # noqa: S104
    control = "" if control_port is None else CONTROL_TOML.format(port=control_port)
    text = SERVER_TOML.format(host=host, bind=bind, port=port, control=control)
    data = data or LocalData()
    of_site = data if isinstance(data, Mapping) else dict.fromkeys(names, data)
    if holdout is not None:
        dataset = of_site[names[0]].dataset
        text += HOLDOUT_TOML.format(dataset=dataset, kind="parquet", path=holdout)
    (folder / "server" / "server.toml").write_text(text, "utf-8")
    for name in names:
        lines = of_site[name]
        site = SITE_TOML.format(
            name=name,
            host=host,
            port=port,
            dataset=lines.dataset,
            kind=lines.kind,
            path=lines.path,
            public_size=lines.public_size,
            epsilon=lines.epsilon,
            delta=lines.delta,
            smallest_cohort=lines.smallest_cohort,
            unprotected=str(lines.allow_unprotected).lower(),
        )
        site = site.replace("tabular-classification", lines.recipe)
        if lines.public_persons is not None:
            persons = f"public_persons = {lines.public_persons}"
            site = site.replace("# public_persons = 100  ", persons)
        (folder / "sites" / name / "site.toml").write_text(site, "utf-8")
        _sign_orders(folder, name, lines)


def _sign_orders(folder: Path, name: str, lines: LocalData) -> None:
    """Make a site's officer, and let it sign what the site's first file says."""
    make_key(folder / "officers" / name)
    public = (folder / "officers" / name / "officer.pub").read_bytes()
    (folder / "sites" / name / "officer.pub").write_bytes(public)
    officer = Officer(
        SigningKey.load(folder / "officers" / name / "officer.key"), site=name
    )
    size = (lines.public_size, lines.public_persons)
    for order in (
        officer.budget("people", lines.epsilon, lines.delta, [lines.dataset]),
        officer.public_size(lines.dataset, *size),
        officer.rule(
            "site.toml",
            recipes=[lines.recipe],
            largest_epsilon=lines.epsilon,
            largest_delta=lines.delta / 2,
            smallest_cohort=lines.smallest_cohort,
            allow_unprotected=lines.allow_unprotected,
        ),
    ):
        put(order, folder / "sites" / name / "state" / "orders")
