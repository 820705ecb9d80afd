"""What a verifier found wrong, by the same ids as Guilder's own.

Only the class: who finds what is in the module that looks.
"""


class Finding(Exception):
    """Something that no correct Guilder would have written, or that was changed.

    Attributes:
        error_id: As in `docs/errors`, so that all verifiers can be compared.
        what: One sentence, with the number of the entry where there is one.
    """

    def __init__(self, error_id: str, what: str) -> None:
        super().__init__(f"{error_id}: {what}")
        self.error_id = error_id
        self.what = what
