"""Pack the stand-alone verifiers from a checkout, without installing Guilder.

`python deploy/pack_verifier.py OUT.pyz` or `OUT.html`; what an installed Guilder does
by `guilder privacy verifier`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from guilder import packing

if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    write = packing.pack_page if out.suffix == ".html" else packing.pack_program
    write(out)
