"""`guilder client check` and `server check`, as a person types them."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder.consortium import Consortium, free_ports
from guilder_server.init import LocalData, init_local

SECRET = "SECRET-CELL"
STUDY = """\
schema = 1
[study]
name = "t"
recipe = "tabular-classification"
purpose = "test"
[data]
kind = "table"
dataset = "d"
target = "y"
person = "who"
[data.columns]
x = { kind = "number", low = 0, high = 1 }
k = { kind = "category", values = ["a", "b"] }
[model]
name = "logistic"
[training]
rounds = 4
local_steps = 1
sample_rate = 1.0
learning_rate = 1.0
[privacy]
unit = "record"
mechanism = "site-noise"
epsilon = 2.0
delta = 1e-6
clip_norm = 1.0
[aggregation]
min_sites = 2
spare_turns = 1
[evaluation]
on = "none"
"""
CLEAN = "who,x,k,y\n" + "".join(f"p{i},0.{i},{'ab'[i % 2]},{i % 2}\n" for i in range(9))
ODD = (
    "who,x,k,y\n"
    + f"p1,0.5,{SECRET},1\n" * 40
    + "".join(f"p{i},{i},a,0\n" for i in range(2, 30))
    + f",{SECRET},b,7\n" * 20
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A consortium's folder; no server runs."""
    port, control = free_ports(2)
    init_local(
        tmp_path, ["a", "b"], host="127.0.0.1", port=port, control_port=control,
        data=LocalData(dataset="d", public_size=9),
    )  # fmt: skip
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "sites" / "a" / "data.csv").write_text(CLEAN)
    return tmp_path


def check(home: Path, *words: str) -> tuple[int, Any]:
    site = ["--site", str(home / "sites" / "a" / "site.toml"), "--json"]
    done = CliRunner().invoke(app, ["client", "check", *site, *words])
    return done.exit_code, json.loads(done.stdout)


def ids(told: Any, *states: str) -> set[str]:
    return {f["id"] for f in told["findings"] if f["state"] in (states or ("wrong",))}


def test_a_site_without_its_server_is_not_ready_and_says_which_step_failed(
    home: Path,
) -> None:
    code, told = check(home)

    assert (code, told["ready"], told["exit_code"]) == (3, False, 3)
    assert ids(told) == {"GLD-N091"}
    for each in told["findings"]:
        assert each["state"] in ("ok", "skipped") or (each["why"] and each["fix"])


def test_a_site_with_its_server_and_study_is_ready(home: Path) -> None:
    with Consortium(home, ["a", "b"]) as consortium:
        consortium.start("server")
        consortium.control().close()
        code, told = check(home, "--study", str(home / "study.toml"))
        server = CliRunner().invoke(
            app,
            ["server", "check", "--server", str(home / "server/server.toml"), "--json"],
        )

    assert (code, ids(told)) == (0, set()), told
    parts = {each["part"] for each in told["findings"]}
    assert parts == {
        "network", "time", "keys", "machine", "versions", "privacy", "data",
    }  # fmt: skip
    said = "\n".join(each["what"] for each in told["findings"])
    assert "self-test passed" in said
    assert "budget people: epsilon 6 of 6 left" in said
    assert "d: 9 rows, 4 columns, 9 persons" in said
    assert server.exit_code == 0, server.stdout
    running = [f["what"] for f in json.loads(server.stdout)["findings"]]
    assert any("this server is running" in what for what in running)


def shape(line: str) -> str:
    """A line of a report without numbers, names of hosts and folders."""
    line = re.sub(r"[0-9a-f]{16}|\d[\d.:-]*|/\S+", "#", line)
    return re.sub(r"fl\.example\.org(:#)?", "#", line).replace(":#", "#")


def test_the_report_on_the_engineers_page_is_what_a_site_sees(home: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/site-engineer.md").read_text()
    command, *promised = (
        page.split("$ guilder client check")[1].split("```")[0].splitlines()
    )
    with Consortium(home, ["a", "b"]) as consortium:
        consortium.start("server")
        consortium.control().close()
        words = command.replace("site.toml", str(home / "sites/a/site.toml"))
        words = words.replace("study.toml", str(home / "study.toml"))
        done = CliRunner().invoke(app, ["client", "check", *words.split()])

    seen = [shape(line) for line in done.stdout.splitlines()]
    assert seen == [shape(line) for line in promised], done.stdout


def test_a_data_report_counts_and_holds_no_cell(home: Path) -> None:
    (home / "sites" / "a" / "data.csv").write_text(ODD)

    code, told = check(home, "--offline", "--study", str(home / "study.toml"))

    assert code == 0, told  # rows never stop a study
    found = {f["id"]: f["what"] for f in told["findings"] if f["state"] == "warning"}
    assert set(found) >= {f"GLD-D06{n}" for n in (0, 1, 2, 3, 4, 5)}
    assert "20 rows name no person" in found["GLD-D061"]
    assert "20 of 88 cells are missing" in found["GLD-D062"]
    assert "up to 40 rows" in found["GLD-D064"]
    assert SECRET not in json.dumps(told)
    strict, _ = check(home, "--offline", "--strict")
    assert strict in (0, 1)


def test_what_the_policy_refuses_ends_with_four(home: Path) -> None:
    path = home / "study.toml"
    path.write_text(STUDY.replace("epsilon = 2.0", "epsilon = 9.0"))

    code, told = check(home, "--offline", "--study", str(path))

    assert (code, ids(told)) == (4, {"GLD-S003"})


def test_a_changed_ledger_ends_with_five(home: Path) -> None:
    check(home, "--offline")
    ledger = home / "sites" / "a" / "state" / "ledger.db"
    data = bytearray(ledger.read_bytes())
    place = data.index(b'"officer"')
    data[place + 13] ^= 1
    ledger.write_bytes(data)

    code, told = check(home, "--offline")

    assert code == 5
    assert all(each.startswith("GLD-I") for each in ids(told))


def test_it_works_beside_a_running_client(home: Path) -> None:
    with Consortium(home, ["a", "b"]) as consortium:
        consortium.start("server")
        consortium.start("a")
        consortium.control().close()
        log = consortium.log("a")
        for _ in range(600):
            if "is online" in log.read_text():
                break
            time.sleep(0.05)
        code, told = check(home)

    said = [each["what"] for each in told["findings"]]
    assert code == 0, told
    assert any(what.endswith("the client is running") for what in said)


@pytest.mark.slow  # a server, an invitation, keys made by the site
def test_members_who_joined_are_looked_at_on_both_sides(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = ["server", "init", "--dir", str(tmp_path), "--port", str(port)]
    assert CliRunner().invoke(app, words).exit_code == 0
    server = ["--server", str(tmp_path / "server" / "server.toml")]
    before = CliRunner().invoke(app, ["server", "check", "--json", *server])
    with Consortium(tmp_path, []) as consortium:
        consortium.start("server")
        consortium.control().close()
        invited = CliRunner().invoke(
            app, ["server", "invite", "north", "--json", *server]
        )
        token = json.loads(invited.stdout)["token"]
        words = ["client", "join", token, "--dir", str(tmp_path / "site")]
        joined = CliRunner().invoke(app, words)
        after = CliRunner().invoke(app, ["server", "check", "--json", *server])

    assert joined.exit_code == 0, joined.output
    assert before.exit_code == 0, before.stdout
    assert "GLD-S066" not in after.stdout
    said = [each["what"] for each in json.loads(after.stdout)["findings"]]
    assert any(what.startswith("site north is good until") for what in said), said
    assert any(what.startswith("the log of members is intact") for what in said)

    log = tmp_path / "server" / "state" / "members.db"
    data = bytearray(log.read_bytes())
    data[data.rindex(b'"north"') + 1] ^= 1
    log.write_bytes(data)
    changed = CliRunner().invoke(app, ["server", "check", "--json", *server])
    assert changed.exit_code == 5, changed.stdout


def test_a_missing_key_and_a_missing_file_are_named(home: Path) -> None:
    (home / "sites" / "a" / "site.key").unlink()
    (home / "sites" / "a" / "data.csv").unlink()

    code, told = check(home, "--offline")

    assert code == 3
    assert "GLD-E001" in ids(told)
    assert "GLD-D001" in ids(told, "warning")


def test_the_letter_to_it_names_all_that_a_firewall_must_know(home: Path) -> None:
    site = home / "sites" / "a" / "site.toml"
    port = site.read_text().split("https://127.0.0.1:")[1].split('"')[0]
    done = subprocess.run(
        [sys.executable, "-m", "guilder", "client", "check", "--firewall-request",
         "--site", str(site)],
        capture_output=True, text=True, check=True,
        env={"HTTPS_PROXY": "http://name:secret@proxy.example.org:3128"},
    )  # fmt: skip

    letter = done.stdout

    for part in (f"127.0.0.1, port {port}, TCP", "TLS 1.3", "outbound only", "SHA-256"):
        assert part in letter
    assert letter.startswith("Subject: ")
    assert "secret" not in letter
    assert letter.count(":") > 31  # a fingerprint of 32 bytes


def test_a_server_whose_port_another_program_has_is_not_ready(home: Path) -> None:
    file = home / "server" / "server.toml"
    port = int(file.read_text().split("\nport = ")[1].split()[0])
    with socket.create_server(("127.0.0.1", port)) as other:
        other.settimeout(1)
        done = CliRunner().invoke(app, ["server", "check", "--server", str(file)])

    assert done.exit_code == 3, done.stdout
    assert "GLD-N001" in done.stdout
    assert "NOT READY: 1 wrong" in done.stdout
