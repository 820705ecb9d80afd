"""`python -m guilder` is the command `guilder`."""

from guilder.cli import main

main()
