"""The two stand-alone verifiers, each packed into one file from its sources.

`guilder-verify.pyz` runs on any Python from 3.9 on, `verify.html` in any browser of
today; neither needs Guilder, a server or a network. The same sources give the same
bytes. Imports neither of them: they share no line with Guilder.
"""

import base64
import hashlib
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "guilder_verifier"
PAGE = FOLDER / "page"
PROGRAM, HTML = "guilder-verify.pyz", "verify.html"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
MAIN = b"import sys\nfrom guilder_verifier.__main__ import main\nsys.exit(main())\n"
# Each uses only what stands before it.
CHECKS = (
    "bytes",
    "hashes",
    "ed25519",
    "canonical",
    "files",
    "decimals",
    "renyi",
    "events",
    "floor",
    "shapes",
    "orders",
    "budgets",
    "replay",
    "figures",
    "consortium",
    "check",
)
SCREEN = ("texts", "page")


def pack(folder: Path) -> list[Path]:
    """Write both files into a folder, which is made; older ones are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    pack_program(folder / PROGRAM)
    pack_page(folder / HTML)
    return [folder / PROGRAM, folder / HTML]


def pack_program(out: Path) -> None:
    """Write the program for Python."""
    parts = {"__main__.py": MAIN}
    for path in sorted(FOLDER.glob("*.py")):
        parts[f"guilder_verifier/{path.name}"] = path.read_bytes()
    with out.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as packed:
            for name, data in parts.items():
                packed.writestr(zipfile.ZipInfo(name, LONG_AGO), data)


def pack_page(out: Path) -> None:
    """Write the page; its policy lets no other script run and nothing be fetched."""
    script, style = script_of((*CHECKS, *SCREEN)), _text("style.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    )
    html = _text("page.html")
    for name, part in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script)):
        html = html.replace(f"<!--{name}-->", part)
    out.write_bytes(html.encode())


def script_of(names: tuple[str, ...]) -> str:
    """The named sources in one closed scope."""
    parts = (_text(f"{name}.js").replace('"use strict";\n', "") for name in names)
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _text(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def _digest(part: str) -> str:
    digest = hashlib.sha256(part.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
