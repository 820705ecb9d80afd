"""The files a person edits: read strictly, and every mistake told at once.

Study, site and server file share this room: frozen pydantic models on one side,
TOML with lines and `--set` on the other. It knows no field of any of the three.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from guilder_shared.settings import toml_lines
from guilder_shared.settings.checking import Checker, Source, right_parts
from guilder_shared.settings.expectations import (
    DIGEST_PATTERN,
    NAME_PATTERN,
    TEXT_PATTERN,
    URL_PATTERN,
)
from guilder_shared.settings.mistakes import (
    Contradiction,
    ContradictionError,
    FileError,
    Mistake,
    dotted,
    shown,
)
from guilder_shared.settings.toml_lines import KeyPath

SCHEMA = 1
FIX_SCHEMA = "Write schema = 1 as the first line, or install the Guilder it is for."
LARGEST_BYTES = 4 << 20  # 10,000 columns take about 1 MiB

T = TypeVar("T")
FileT = TypeVar("FileT", bound="File")


def _from_folder(value: object, info: ValidationInfo) -> object:
    """Read a path as relative to its file's folder, which `load_toml` passes on."""
    if not isinstance(value, str) or not value:
        return value  # pydantic refuses it: strictly, a text is no path
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / Path(value).expanduser()


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Text = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
Url = Annotated[str, Field(pattern=URL_PATTERN)]
FilePath = Annotated[Path, BeforeValidator(_from_folder)]
Listed = Annotated[tuple[T, ...], Field(strict=False)]  # TOML and JSON have lists


class Frozen(BaseModel):
    """A part of a file a person edits: immutable, typed strictly, no unknown key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class OwnRecipe(Frozen):
    """A recipe of others that may run here: which package, and exactly which wheel."""

    package: Name = Field(description="as it is installed")
    version: Text = Field(description="exactly this one")
    wheel: FilePath = Field(description="the wheel that was installed; keep it")
    sha256: Digest = Field(description="of the wheel; `guilder recipe allow` prints it")


class TableFile(Frozen):
    """A table on disk, and how its columns are called there."""

    kind: Literal["csv", "parquet", "npz"] = Field(
        description="how the file is written"
    )
    path: FilePath = Field(description="the file; relative to this file's folder")
    map: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=10_000,
        description="column of the study = column of the file, where they differ",
    )


class File(Frozen):
    """A whole file; its first line is `schema = 1`.

    Attributes:
        option: With which commands are told where it is; empty if it is an argument.
    """

    option: ClassVar[str] = ""
    schema_version: Literal[1] = Field(alias="schema", description="always 1 for now")

    @classmethod
    def contradictions(cls, parts: Mapping[str, Any]) -> list[Contradiction]:
        """What is wrong between keys that are each right.

        Args:
            parts: The fields that are right so far; others are missing, so that
                these mistakes are told together with theirs.
        """
        del parts
        return []

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        found = self.contradictions(parts)
        if found:
            raise ContradictionError(found)
        return self


def load_toml(path: Path, model: type[FileT], overrides: Sequence[str] = ()) -> FileT:
    """Read a TOML file, apply `--set` overrides, and check all of it.

    Args:
        path: The file; paths inside it are relative to its folder.
        model: Which of the three files it is.
        overrides: `a.b=value`; the value is TOML, or a text as it stands.

    Raises:
        FileError: With every mistake of the file. GLD-C001 it cannot be read,
            C002 it is no UTF-8, C003 no TOML, C004 another schema, C005 an override
            that names no key, C010 unknown key, C011 missing key, C012 wrong value,
            C013 values that contradict each other.
    """
    text = _read(path, model.option)
    raw = _parse(path, text)
    written: dict[KeyPath, str] = {}
    for override in overrides:
        written[_set(raw, override)] = override
    source = Source(path.name, toml_lines.find(text), written)
    return check(raw, model, source, folder=path.parent.absolute())


def tables_in(path: Path, option: str = "") -> set[str]:
    """The top keys of a TOML file, to tell one kind of file from another.

    Args:
        path: The file.
        option: As `File.option`.

    Raises:
        FileError: It cannot be read, or is no TOML; ids as in `load_toml`.
    """
    return set(_parse(path, _read(path, option)))


def load_json(data: bytes, model: type[FileT], name: str) -> FileT:
    """Read a file that travelled as JSON, from someone who may be hostile.

    Args:
        data: UTF-8 JSON; refused unread above 4 MiB.
        model: Which of the three files it is.
        name: What to call it in errors, as in "the study offered".

    Raises:
        FileError: GLD-C020 it is no JSON object, C004 to C013 as in `load_toml`.
    """
    try:
        if len(data) > LARGEST_BYTES:
            raise ValueError(f"{len(data):,} bytes, at most {LARGEST_BYTES:,}")
        raw = json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        what = f"no JSON that Guilder reads ({shown(str(error))[1:-1]})"
        _fail("GLD-C020", name, what, "Ask its sender for their version of Guilder.")
    return check(raw, model, Source(name))


def check(
    raw: object, model: type[FileT], source: Source, *, folder: Path | None = None
) -> FileT:
    """Turn a raw table into its model, or tell every mistake in it.

    Raises:
        FileError: GLD-C004, C010 to C013, and ids of the model's own rules.
    """
    version = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or version is not SCHEMA:
        what = f"is {shown(version)}" if version is not None else "missing"
        what += f"; this version of Guilder understands {SCHEMA}"
        _fail("GLD-C004", source.where(("schema",)), what, FIX_SCHEMA, "schema")
    context = {"folder": folder or Path()}
    try:
        return model.model_validate(raw, context=context)
    except ValidationError as error:
        contradictions: list[Contradiction] = []
        if not any(each["loc"] == () for each in error.errors()):
            contradictions = model.contradictions(
                right_parts(raw, model, error, context)
            )
        checker = Checker(raw, source, _schema(model))
        raise FileError(checker.mistakes(error, contradictions)) from None


@lru_cache(maxsize=64)  # 20 ms each, which every bad study would cost a server
def _schema(model: type[File]) -> dict[str, Any]:
    return model.model_json_schema()


def _fail(error_id: str, where: str, what: str, fix: str, key: str = "") -> NoReturn:
    raise FileError([Mistake(error_id, where, key, what, fix)]) from None


def _read(path: Path, option: str) -> str:
    """The file as text, line ends made plain."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        other = f", or name another: {option} FILE" if option else ""
        fix = f"Check the path and who may read it{other}."
        _fail("GLD-C001", str(path), what, fix)
    if len(data) > LARGEST_BYTES:
        what = f"larger than {LARGEST_BYTES:,} bytes"
        _fail("GLD-C001", str(path), what, "Point to a settings file, not to data.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"not UTF-8 (byte {error.start + 1})"
        _fail("GLD-C002", f"{path.name}:{line}", what, "Save the file as UTF-8.")


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _fail("GLD-C003", *_syntax(path, str(error), text))
    except RecursionError:
        _fail("GLD-C003", path.name, "nested too deeply", "Flatten it.")


def _syntax(path: Path, problem: str, text: str) -> tuple[str, str, str]:
    """Where and why a text is no TOML; `tomllib` names the line, or the end."""
    what, _, place = problem.rpartition(" (at ")
    line = re.search(r"line (\d+)", place)
    number = int(line[1]) if line else text.count("\n") + 1
    # A key written twice is found at the end of its line, whatever that line holds.
    twice = "Cannot overwrite" in what or "Cannot declare" in what
    if twice:
        return f"{path.name}:{number}", f"written twice: {what}", "Keep one of the two."
    fix = 'Texts stand in quotes ("bank"), tables in brackets ([data]).'
    return f"{path.name}:{number}", f"no TOML: {what or problem}", fix


def _set(raw: dict[str, Any], override: str) -> KeyPath:
    """Write one `--set a.b=value` into the raw table and say where."""
    key, equals, value = override.partition("=")
    where = f"--set {shown(override)[1:-1]}"
    path = _key(key)
    if not equals or not path or not override.isprintable():
        _fail("GLD-C005", where, "not KEY=VALUE", "Write --set privacy.epsilon=2")
    place = raw
    for depth, part in enumerate(path[:-1], start=1):
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            what = f"{dotted(path[:depth])} is a value, not a table"
            _fail("GLD-C005", where, what, f"Use --set {dotted(path[:depth])}=…")
    try:
        place[path[-1]] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        place[path[-1]] = value
    return path


def _key(text: str) -> tuple[str, ...]:
    """The parts of a dotted key as TOML reads it; empty if it is none."""
    try:
        node: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: tuple[str, ...] = ()
    while isinstance(node, dict):
        ((part, node),) = node.items()
        path = (*path, part)
    return path


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is written twice")
    return table


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
