"""The shape of the code: how long files and functions are, and that all is named."""

import ast
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "server", "client", "simulations", "deploy")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base"}
MOST_LINES = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    """Python files, without the generated stubs."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), name_of(path))


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_code_lines(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    docstring = function.body[0]
    return total - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def public_names(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Public functions and classes of a module, and their public methods."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from (
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                and not item.name.startswith("_")
                and "override" not in map(ast.unparse, item.decorator_list)
            )


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    too_long = {
        name_of(path): num_lines
        for path in sources(*ROOMS, "tests", "benchmarks")
        if (num_lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }

    assert too_long == {}


def test_functions_are_short() -> None:
    lengths = sorted(
        num_code_lines(function)
        for path in sources(*ROOMS)
        for function in functions(parse(path))
    )

    assert statistics.median(lengths) <= 12
    assert lengths[int(len(lengths) * 0.95)] <= 45


def test_no_file_or_folder_is_named_after_nothing() -> None:
    vague = [
        name_of(path)
        for path in sources(*ROOMS, "tests", "benchmarks")
        if BANNED_NAMES & set(name_of(path).removesuffix(".py").split("/"))
    ]

    assert vague == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in sources(*ROOMS, "benchmarks")
        if not ast.get_docstring(parse(path))
    ]

    assert silent == []


def test_every_public_name_says_what_it_promises() -> None:
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in sources(*ROOMS)
        for node in public_names(parse(path))
        if not ast.get_docstring(node)
    ]

    assert silent == []


def test_tests_are_no_package() -> None:
    """Two test files of one name may stand in two folders only without these."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_dependency_is_pinned_inside_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"]]
    asked += [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}

    wrong = []
    for line in asked:
        need = Requirement(line)
        pin = versions.get(canonicalize_name(need.name))
        if pin is None or not need.specifier.contains(pin):
            wrong.append(f"{line} is pinned to {pin}")

    assert wrong == []
    assert all("+" not in version for version in pins.values())  # no local builds
