"""Pack `guilder_verifier` into one file that any Python from 3.9 on runs.

`python deploy/pack_verifier.py OUT.pyz`; the same source gives the same bytes.
"""

import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent / "guilder_verifier"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
MAIN = b"import sys\nfrom guilder_verifier.__main__ import main\nsys.exit(main())\n"


def pack(out: Path) -> None:
    """Write the file; an older one is replaced."""
    parts = {"__main__.py": MAIN}
    for path in sorted(FOLDER.glob("*.py")):
        parts[f"guilder_verifier/{path.name}"] = path.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as packed:
            for name, data in parts.items():
                packed.writestr(zipfile.ZipInfo(name, LONG_AGO), data)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
