"""From pydantic's errors to mistakes with file, line, key, near match and fix.

This module reads no file and decides nothing: what is wrong, pydantic and the
models' own rules have said already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from guilder_shared.settings import toml_lines
from guilder_shared.settings.expectations import Expectations, listed
from guilder_shared.settings.mistakes import (
    Contradiction,
    ContradictionError,
    Mistake,
    dotted,
    shown,
)
from guilder_shared.settings.toml_lines import KeyPath

MOST_TOLD = 50  # a hostile study may hold ten thousand
Error = Mapping[str, Any]  # one of pydantic's error details


@dataclass(frozen=True)
class Source:
    """Where a raw table was read, so that a mistake can say where it stands.

    Attributes:
        name: `study.toml`, or what else was read.
        lines: Line of each key; empty for what is no text file.
        overrides: The `--set` that wrote each key.
    """

    name: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`study.toml:14`, or the `--set` that wrote this key."""
        override = self._override(path)
        if override:
            return f"--set {shown(override)[1:-1]}"
        line = toml_lines.nearest(self.lines, path)
        return f"{self.name}:{line}" if line else self.name

    def order(self, path: KeyPath) -> tuple[int, int]:
        """Mistakes of the file come by line, then those of `--set` as given."""
        override = self._override(path)
        place = list(self.overrides.values()).index(override) + 1 if override else 0
        return place, toml_lines.nearest(self.lines, path) or 0

    def _override(self, path: KeyPath) -> str:
        for written, text in self.overrides.items():
            made_above = written[: len(path)] == path and path not in self.lines
            if made_above or path[: len(written)] == written:
                return text
        return ""


class Checker:
    """Turns one failed check into mistakes.

    Args:
        raw: The table that was checked.
        source: Where it was read.
        schema: The JSON Schema of its model.
    """

    def __init__(
        self, raw: dict[str, Any], source: Source, schema: dict[str, Any]
    ) -> None:
        self._raw = raw
        self._source = source
        self._expected = Expectations(schema)

    def mistakes(
        self, error: ValidationError, contradictions: Sequence[Contradiction]
    ) -> list[Mistake]:
        """Every mistake, in the order of the file.

        A missing key that is there under a similar, unknown name is told once.
        """
        found: list[tuple[KeyPath, Mistake]] = []
        for each in error.errors(include_url=False)[:MOST_TOLD]:
            found += self._told(each)
        found += [self._contradiction((), each) for each in contradictions]
        meant = {
            self._expected.near(path, self._raw)
            for path, mistake in found
            if mistake.error_id == "GLD-C010"
        }
        kept = [
            (path, mistake)
            for path, mistake in found
            if not (mistake.error_id == "GLD-C011" and mistake.key in meant)
        ]
        kept.sort(key=lambda each: self._source.order(each[0]))
        return [mistake for _, mistake in kept]

    def _told(self, error: Error) -> list[tuple[KeyPath, Mistake]]:
        path = self._path(error)
        context = error.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, ContradictionError):
            return [self._contradiction(path, each) for each in cause.found]
        if "discriminator" in context:
            path = (*path, context["discriminator"].strip("'"))
        if error["loc"][-1:] == ("[key]",):
            return [(path, self._name(path))]
        match error["type"]:
            case "extra_forbidden":
                mistake = self._unknown(path)
            case "missing" | "union_tag_not_found":
                mistake = self._missing(path)
            case "union_tag_invalid":
                mistake = self._tag(path, context)
            case _:
                mistake = self._value(path, error["input"])
        return [(path, mistake)]

    def _unknown(self, path: KeyPath) -> Mistake:
        near = self._expected.near(path, self._raw)
        siblings = ", ".join(self._expected.keys_at(path[:-1], self._raw))
        what = f"unknown key (did you mean {near}?)" if near else "unknown key"
        fix = f"Write {near}." if near else f"Remove it. Known here: {siblings}."
        return self._mistake("GLD-C010", path, what, fix)

    def _missing(self, path: KeyPath) -> Mistake:
        words = self._expected.words(path, self._raw)
        what = f"missing; it is {words}"
        return self._mistake("GLD-C011", path, what, f"Add it{self._meaning(path)}.")

    def _value(self, path: KeyPath, value: object) -> Mistake:
        given = shown(value)
        if isinstance(value, dict | list):
            given = (
                f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
            )
        what = f"is {given}, not {self._expected.words(path, self._raw)}"
        return self._mistake("GLD-C012", path, what, f"Change it{self._meaning(path)}.")

    def _name(self, path: KeyPath) -> Mistake:
        words = self._expected.name_words(path[:-1], self._raw)
        return self._mistake("GLD-C012", path, f"this key is not {words}", "Rename it.")

    def _tag(self, path: KeyPath, context: Mapping[str, Any]) -> Mistake:
        tags = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        what = f"is {shown(context['tag'])}, not {listed(tags)}"
        return self._mistake("GLD-C012", path, what, "Change it.")

    def _contradiction(
        self, above: KeyPath, found: Contradiction
    ) -> tuple[KeyPath, Mistake]:
        path = (*above, *found.key)
        return path, self._mistake(found.error_id, path, found.what, found.fix)

    def _mistake(self, error_id: str, path: KeyPath, what: str, fix: str) -> Mistake:
        return Mistake(error_id, self._source.where(path), dotted(path), what, fix)

    def _meaning(self, path: KeyPath) -> str:
        meaning = self._expected.meaning(path, self._raw)
        return f": {meaning}" if meaning else ""

    def _path(self, error: Error) -> KeyPath:
        """The error's place without the union tags that pydantic puts into it."""
        path: KeyPath = ()
        here: object = self._raw
        *parents, last = error["loc"] or ("",)
        for part in parents:
            in_table = isinstance(here, dict) and part in here
            if in_table or (isinstance(here, list) and isinstance(part, int)):
                here = here[part]  # type: ignore[index]
                path = (*path, part)
        is_key = error["type"] == "missing" or (
            last in here if isinstance(here, dict) else isinstance(last, int)
        )
        return (*path, last) if is_key else path


def right_parts(
    raw: Mapping[str, Any], model: type[BaseModel], error: ValidationError, context: Any
) -> dict[str, Any]:
    """The tables of a file that are right although the file is not.

    Rules between tables are tried on these, so that their mistakes are told in the
    same breath.
    """
    from pydantic import TypeAdapter

    wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
    parts: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key not in wrong and key in raw:
            adapter: TypeAdapter[Any] = TypeAdapter(info.annotation or Any)
            parts[name] = adapter.validate_python(raw[key], context=context)
        elif key not in wrong:
            parts[name] = info.get_default(call_default_factory=True)
    return parts
