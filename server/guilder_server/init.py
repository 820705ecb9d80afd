"""A consortium's first files: the server's, or for a trial all of them on one machine.

`init_server` makes an authority and the first admin; sites join later with keys of
their own. `init_local` also makes every site's folder, for trying, for tests and for a
consortium on one machine. The files are meant to be read and edited by people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from guilder_server.register import Register
from guilder_server.settings import ServerFile
from guilder_shared import authority, certificates, drafts, durable
from guilder_shared.errors import StudyError
from guilder_shared.identity import SigningKey, write_private
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
ENROLMENT_TOML = """\
[enrolment]                          # sites and persons join by invitation
issuing_key = "issuing.key"          # signs members' certificates
issuing_certificate = "issuing.pem"
log_key = "log.key"                  # signs the log of who belongs here
{port}
"""
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


def init_server(
    folder: Path,
    *,
    host: str,
    port: int,
    control_port: int | None = None,
    enrolment_port: int | None = None,
    passphrase: bytes | None = None,
) -> str:
    """Write `folder/server`: an authority, the server's certificate, the first admin.

    Sites and persons join afterwards, each with keys of their own.

    Args:
        folder: Made if missing; keys that are there already are never overwritten.
        host: Where sites and persons reach the server.
        port: For sites, persons, and joining.
        control_port: For `guilder run` and renewals, if it is to be another.
        enrolment_port: For joining, if it is to be another.
        passphrase: Encrypts the root's and the issuing key; None leaves them readable
            by their owner alone.

    Returns:
        The pin: SHA-256 of the root's public key.

    Raises:
        EnrolmentError: There are keys already (GLD-E004).
    """
    server = folder / "server"
    server.mkdir(mode=0o700, parents=True, exist_ok=True)
    hosts = list(dict.fromkeys([host, "localhost", "127.0.0.1", "::1"]))
    authority.make_authority(server, hosts, passphrase)
    SigningKey.generate().save(server / "log.key")
    before, after = _server_toml(host, port, control_port).split("[operator]")
    own = "" if enrolment_port is None else f"port = {enrolment_port}\n"
    text = before + ENROLMENT_TOML.format(port=own) + "[operator]" + after
    text = text.replace("operator.key", "admin.key").replace("operator.p", "admin.p")
    (server / "server.toml").write_text(text, "utf-8")
    return _appoint_admin(ServerFile.load(server / "server.toml"), passphrase)


def _appoint_admin(settings: ServerFile, passphrase: bytes | None) -> str:
    """Certify the first admin, as the first entries of the log."""
    assert settings.enrolment is not None
    assert settings.operator is not None
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(settings.operator.key, drafts.pem_key(key))
    register = Register.open(
        settings.server.storage, settings.enrolment, settings.keys.authority, passphrase
    )
    try:
        request = authority.make_request(key, "admin")
        chain = register.appoint("admin", "admin", request)
        durable.write(settings.operator.certificate, b"".join(chain))
        return register.pin
    finally:
        register.close()


def _server_toml(host: str, port: int, control_port: int | None) -> str:
    bind = host if host in ("127.0.0.1", "localhost", "::1") else "0.0.0.0"  # noqa: S104
    control = "" if control_port is None else CONTROL_TOML.format(port=control_port)
    return SERVER_TOML.format(host=host, bind=bind, port=port, control=control)


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
    text = _server_toml(host, port, control_port)
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
