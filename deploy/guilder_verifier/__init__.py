"""A second verifier of reports and ledgers: Python's standard library and nothing else.

Written from `docs/ledger.md`, it shares no line with Guilder and imports none of it, so
that an error in Guilder is not an error here too. It is packed into
`guilder-verify.pyz`, which any Python from 3.9 on runs. It opens no connection, writes
no file and computes no privacy loss distribution: that is left to `guilder privacy
verify`.
"""

FORMAT = 2  # of the ledgers it reads
