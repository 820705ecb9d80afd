"""Privacy reports: what a site's studies have cost, signed, for anyone to verify.

A report is computed from the ledger's entries alone and carries them, so that it can
be checked on a computer that has neither the ledger nor the data. Nothing here reads
rows, writes the ledger, or loads torch.
"""

from guilder_shared.reports.build import build
from guilder_shared.reports.consortium import verify_any
from guilder_shared.reports.verify import Verification, VerifiedStudy, verify
from guilder_shared.reports.write import write

__all__ = ["Verification", "VerifiedStudy", "build", "verify", "verify_any", "write"]
