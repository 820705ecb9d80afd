"""The self-test before every study, on made-up rows through the study's own code."""

from guilder_shared.training.selftest.verdict import CHECKS, Passed, ensure, run

__all__ = ["CHECKS", "Passed", "ensure", "run"]
