"""The files a person edits: read strictly, and every mistake told at once.

`files` is the door; `checking` finds what is wrong, `expectations` words what was
expected, `mistakes` tells it, `toml_lines` knows where it stands. This room knows no
field of any of the three files.
"""
