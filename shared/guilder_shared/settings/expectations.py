"""What belongs at one place of a file, in words, read from its JSON Schema.

The schema is the one `guilder config schema` prints, so an error and an editor say
the same. This module checks nothing: pydantic does.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from guilder_shared.settings.mistakes import dotted
from guilder_shared.settings.toml_lines import KeyPath

Schema = dict[str, Any]

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
URL_PATTERN = r"^https://[A-Za-z0-9._\[\]:-]{1,255}/?$"
# No control character, and none that changes the direction of writing: these texts
# are shown to the officer who approves them.
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+$"

_PATTERNS = {
    NAME_PATTERN: "a name: at most 63 small letters, digits, - and _",
    DIGEST_PATTERN: "the digest of a study: 64 digits of 0-9 and a-f",
    URL_PATTERN: 'an address like "https://fl.example.org:8443"',
    TEXT_PATTERN: "a text on one line",
}


class Expectations:
    """What one kind of file may hold.

    Args:
        schema: A JSON Schema as pydantic writes it (`$defs`, `oneOf` with a
            discriminator, `anyOf` with null).
    """

    def __init__(self, schema: Schema) -> None:
        self._root = schema

    def keys_at(self, path: KeyPath, raw: object) -> tuple[str, ...]:
        """The keys a table may hold; empty where names are free or it is no table."""
        return tuple(self._at(path, raw).get("properties", {}))

    def words(self, path: KeyPath, raw: object) -> str:
        """What belongs at `path`, as in "a number above 0 and at most 100"."""
        return _words(self._at(path, raw)) or "what belongs here"

    def name_words(self, path: KeyPath, raw: object) -> str:
        """What a key of the table at `path` must look like."""
        schema = self._at(path, raw)
        pattern = next(iter(schema.get("patternProperties", {})), None)
        return _text_words(schema.get("propertyNames", {"pattern": pattern}))

    def meaning(self, path: KeyPath, raw: object) -> str:
        """The one line of meaning of the key at `path`; empty if it has none."""
        return str(self._at(path, raw).get("description", "")).partition("\n")[0]

    def near(self, path: KeyPath, raw: object) -> str:
        """The dotted key that was probably meant by an unknown one, or empty.

        The same key in another table comes before a similar key in this one.
        """
        *parent, unknown = path
        elsewhere = [key for key in self._all_keys(self._root) if key[-1] == unknown]
        if elsewhere:
            return dotted(elsewhere[0])
        siblings = self.keys_at(tuple(parent), raw)
        close = difflib.get_close_matches(str(unknown), siblings, n=1, cutoff=0.6)
        return dotted((*parent, close[0])) if close else ""

    def _at(self, path: KeyPath, raw: object) -> Schema:
        """The schema of one place, following what `raw` says its kind is."""
        schema = self._resolved(self._root, raw)
        for part in path:
            raw = _step(raw, part)
            schema = self._resolved(_child(schema, part), raw)
        return schema

    def _resolved(self, schema: Schema, raw: object) -> Schema:
        """Follow `$ref`, a union with null, and a tagged union; keep descriptions."""
        outer = {key: schema[key] for key in ("description",) if key in schema}
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._resolved(self._root["$defs"][name], raw) | outer
        variants = [
            each for each in schema.get("anyOf", []) if each.get("type") != "null"
        ]
        if len(variants) == 1:
            return self._resolved(variants[0], raw) | outer
        tag = schema.get("discriminator")
        if tag:
            target = tag["mapping"].get(_step(raw, tag["propertyName"]))
            if target:
                return self._resolved({"$ref": target}, raw) | outer
        return schema

    def _all_keys(self, schema: Schema, above: KeyPath = ()) -> Iterator[KeyPath]:
        """Every key with a fixed place, from the top table down."""
        for key, child in self._resolved(schema, {}).get("properties", {}).items():
            yield (*above, key)
            yield from self._all_keys(child, (*above, key))


def _step(raw: object, part: str | int) -> object:
    if isinstance(raw, dict):
        return raw.get(part)
    if isinstance(raw, list) and isinstance(part, int) and part < len(raw):
        return raw[part]
    return None


def _child(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        items = schema.get("items", {})
        return items if isinstance(items, dict) else {}
    child = schema.get("properties", {}).get(part)
    if child is None:  # a table whose keys are free has one schema for all of them
        child = next(iter(schema.get("patternProperties", {}).values()), None)
    if child is None:
        child = schema.get("additionalProperties")
    return child if isinstance(child, dict) else {}


def _words(schema: Schema) -> str:
    """One schema in words; empty for a schema that says nothing."""
    if "enum" in schema:
        return f"one of {listed(schema['enum'])}"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_words, schema["anyOf"])))
    plain = {
        "integer": f"a whole number{_bounds(schema)}",
        "number": f"a number{_bounds(schema)}",
        "boolean": "true or false",
        "array": f"a list{_counts(schema, 'Items', 'entries')}",
        "object": f"a table{_counts(schema, 'Properties', 'keys')}",
        "string": _text_words(schema),
    }
    return plain.get(schema.get("type", ""), "a table" if "oneOf" in schema else "")


def listed(values: Sequence[object]) -> str:
    """Values as a person lists them: `"a", "b" or "c"`."""
    words = [json.dumps(value) for value in values]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _text_words(schema: Schema) -> str:
    if schema.get("format") == "path":
        return "a path in quotes"
    words = _PATTERNS.get(schema.get("pattern", ""), "a text in quotes")
    return f"{words}{_counts(schema, 'Length', 'characters')}"


def _bounds(schema: Schema) -> str:
    limits = {
        "above": schema.get("exclusiveMinimum"),
        "at least": schema.get("minimum"),
        "below": schema.get("exclusiveMaximum"),
        "at most": schema.get("maximum"),
    }
    words = [f"{word} {limit:,}" for word, limit in limits.items() if limit is not None]
    return f" {' and '.join(words)}" if words else ""


def _counts(schema: Schema, what: str, words: str) -> str:
    low, high = schema.get(f"min{what}"), schema.get(f"max{what}")
    if low and high:
        return f" of {low:,} to {high:,} {words}"
    if low:
        return f" of at least {low:,} {words}"
    return f" of at most {high:,} {words}" if high else ""
