"""What a caller of the work port is told when its request is refused: an id and a word.

The status says what a node does next; the id has a page; the word says which rule it
was. This module knows no request.
"""

IDS = {
    400: "GLD-N125",
    401: "GLD-N121",
    403: "GLD-N120",
    404: "GLD-N124",
    408: "GLD-N127",
    409: "GLD-N123",
    413: "GLD-N122",
}
NOT_A_SITE = "GLD-N126"


class RefusedError(Exception):
    """A request that is answered with a refusal.

    Args:
        status: Of HTTP.
        word: Which rule it was, of a fixed set; nothing that the caller sent.
    """

    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status, self.word = status, word


def told(status: int, word: str = "", error_id: str | None = None) -> bytes:
    """The body of a refusal; a status that refuses nothing, such as 503, has no id."""
    return f"{error_id or IDS.get(status, '')} {word}".strip().encode()
