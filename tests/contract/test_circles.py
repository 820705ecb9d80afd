"""No module needs itself: imports run one way, those for types alone included."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "server", "client", "simulations", "deploy")
Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module's dotted name and file, without the generated stubs."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                continue
            parts = path.relative_to(ROOT / room).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Our own modules that a module names in an import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner
                elif node.module in known:
                    yield node.module


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """Modules of which each needs the other, group by group."""

    def reached(start: str) -> set[str]:
        seen, todo = set[str](), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    far = {name: reached(name) for name in graph}
    return sorted(
        {
            tuple(sorted(other for other in far[name] if name in far[other]))
            for name in graph
            if name in far[name]
        }
    )


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = modules()
    known = set(files)
    graph = {
        name: set(imported(ast.parse(path.read_text("utf-8")), known)) - {name}
        for name, path in files.items()
    }

    assert circles(graph) == []


def test_a_circle_is_seen_even_if_one_arc_is_for_types_alone() -> None:
    known = {"a", "b", "c"}
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import A"
    graph = {
        "a": set(imported(ast.parse("import b"), known)),
        "b": set(imported(ast.parse(text), known)),
        "c": set(imported(ast.parse("def f():\n    import a"), known)),
    }

    assert circles(graph) == [("a", "b")]
