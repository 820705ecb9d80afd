"""Write docs/map.md: every module, in the words with which it opens.

`python deploy/rooms.py` writes it anew; `--check` compares. It imports nothing of ours.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "map.md"
LONGEST = 110  # characters; a longer sentence ends at its colon
ROOMS = {
    "Server": "server/guilder_server",
    "Client": "client/guilder_client",
    "Shared": "shared/guilder_shared",
    "Simulations": "simulations/guilder_simulations",
    "Deploy": "deploy/guilder",
    "Deploy: a verifier that stands alone": "deploy/guilder_verifier",
}
HEAD = """\
# Map of rooms

Every module, in the words with which it opens; `python deploy/rooms.py` writes it.
Imports go down, never up, and never between server and client: `guilder` →
`guilder_simulations` → `guilder_server` | `guilder_client` → `guilder_shared`.

A round as a walk: `server/app` → `rounds` → `cohort` → *wire* → `client/node` → `app` →
`turn` → `policy` → `ledger` → `data/source` → `training/fit` → `sealed` → *wire* →
`aggregate` → `runstore`.
"""


def sentence(path: Path) -> str:
    """The first sentence of a module; without what follows a colon if it is long."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    opening = " ".join(text.split("\n\n")[0].split())
    found = re.match(r".*?[.!?](?=\s|$)", opening)
    first = (found[0] if found else opening).rstrip(".")
    if len(first) > LONGEST:
        first = re.split(r"[:;] ", first)[0]
    return first.replace("|", "\\|")


def modules(folder: Path) -> dict[str, Path]:
    """Names and files of a package's modules, without generated ones."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if path.stem == "__init__":
            name = name.removesuffix("__init__")
        if name and not path.stem.endswith(("_pb2", "_pb2_grpc")) and sentence(path):
            found[name] = path
    return found


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, folder in ROOMS.items():
        rows = [
            f"| `{name}` | {sentence(path)} |\n"
            for name, path in modules(ROOT / folder).items()
        ]
        head = f"## {title}\n`{folder}/`\n\n| module | what it is for |\n|---|---|\n"
        parts.append(head + "".join(rows))
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
