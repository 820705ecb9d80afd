"""Sampling, noise, clipping, accounting and the ledger: the promise, kept."""
