"""Privacy reports: built from a ledger, verified by anybody, offline."""
