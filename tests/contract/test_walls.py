"""Which room may import which third party, and what no room may do at all.

import-linter holds the floors between our own packages; it cannot look inside
an external package, so the walls around parts of flwr are held here.
"""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "server", "client", "simulations", "deploy")

# Third party -> the files that may import it. A file may also enter a wall that
# is higher: who may use flwr's private modules may use its public ones.
FLWR_PRIVATE = (
    "server/guilder_server/hub.py",
    "server/guilder_server/fleet.py",
    "server/guilder_server/links.py",
    "server/guilder_server/objects.py",
    "client/guilder_client/calls.py",
    "client/guilder_client/node.py",
    "shared/guilder_shared/pieces.py",
    "client/guilder_client/disclosure.py",  # reads what the node sends
    "client/guilder_client/rehearsal.py",  # stands in for the server
    "simulations/guilder_simulations/inprocess.py",
)
FLWR_PUBLIC = (
    *FLWR_PRIVATE,
    "server/guilder_server/app.py",
    "server/guilder_server/grid.py",
    "client/guilder_client/app.py",
    "shared/guilder_shared/wire.py",
)
WALLS = {
    "grpc": (
        "*/control.py",
        "*/enrol.py",
        "*/join.py",
        "shared/guilder_shared/proto/*",
    ),
    "opacus": ("shared/guilder_shared/privacy/*", "shared/guilder_shared/training/*"),
    "typer": ("*/commands.py", "*/*_commands.py", "*/cli.py"),
}
PUBLIC_FLWR_MODULES = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
CODE_CARRIERS = (
    "pickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "torch.hub",
    "torch.package",
    "torch.serialization",
)
# Collectives of torch that pickle what they are given.
OBJECT_CARRIERS = (
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
)
# With weights_only they are safe, and there is still no need for them: safetensors.
TORCH_LOADERS = ("torch.load", "torch.jit.load", "torch.hub.load", "torch.export.load")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module a file imports: by statement, or by name at run time.

    `from flwr import app` gives `flwr.app`; `from flwr.app import Message`
    gives `flwr.app`; `import_module("flwr.app")` gives `flwr.app`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if "." in node.module:
                yield node.module
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called, first = ast.unparse(node.func), node.args[0]
            is_import = called.endswith(("import_module", "__import__"))
            if is_import and isinstance(first, ast.Constant):
                yield str(first.value)


def is_part_of(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def flwr_trespasses(path: str, tree: ast.AST) -> list[str]:
    """The flwr modules this file imports but may not."""
    found = []
    for module in imports(tree):
        if not is_part_of(module, "flwr"):
            continue
        is_public = any(is_part_of(module, public) for public in PUBLIC_FLWR_MODULES)
        if path not in (FLWR_PUBLIC if is_public else FLWR_PRIVATE):
            found.append(module)
    return found


def trespasses(path: str, tree: ast.AST, package: str) -> list[str]:
    """What this file imports of `package` from outside its wall."""
    if any(fnmatch(path, allowed) for allowed in WALLS[package]):
        return []
    return [module for module in imports(tree) if is_part_of(module, package)]


def smuggled_code(tree: ast.AST) -> list[str]:
    """Whatever could turn bytes or text into running code."""
    found = [
        module
        for module in imports(tree)
        if module == "torch.load" or any(is_part_of(module, c) for c in CODE_CARRIERS)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in TORCH_LOADERS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr in OBJECT_CARRIERS:
            found.append(node.attr)
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in ("eval", "exec", "compile"):
                found.append(ast.unparse(node.func))
            found += [
                "allow_pickle"
                for keyword in node.keywords
                if keyword.arg == "allow_pickle"
                and ast.unparse(keyword.value) != "False"
            ]
    return found


def other_peoples_code(path: str, tree: ast.AST) -> list[str]:
    """Where entry points of other packages are found, and code is loaded from a file.

    One room may: `recipes.py`, which compares what is installed with an allowed wheel.
    """
    if path == "shared/guilder_shared/recipes.py":
        return []
    doors = ("importlib.metadata.entry_points", "importlib.util.module_from_spec")
    names = {door.rpartition(".")[2] for door in doors} | {"exec_module", "run_path"}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.Attribute) and node.attr in names)
    ]


def trees(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    for path in sources(*folders):
        yield name_of(path), ast.parse(path.read_text("utf-8"), name_of(path))


def test_flwr_is_entered_only_through_its_doors() -> None:
    found = {path: flwr_trespasses(path, tree) for path, tree in trees(*ROOMS)}

    assert {path: modules for path, modules in found.items() if modules} == {}


@pytest.mark.parametrize("package", WALLS)
def test_a_third_party_stays_behind_its_wall(package: str) -> None:
    found = {path: trespasses(path, tree, package) for path, tree in trees(*ROOMS)}

    assert {path: modules for path, modules in found.items() if modules} == {}


def test_nothing_turns_bytes_into_code() -> None:
    """Tests are free to: an attack may have to make what a product must not read."""
    everything = trees(*ROOMS, "benchmarks")
    found = {path: smuggled_code(tree) for path, tree in everything}

    assert {path: names for path, names in found.items() if names} == {}


def test_code_of_other_packages_is_loaded_by_one_room_alone() -> None:
    found = {path: other_peoples_code(path, tree) for path, tree in trees(*ROOMS)}

    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "entry_points(group='x')[0].load()",
        "importlib.metadata.entry_points()",
        "spec.loader.exec_module(module)",
        "runpy.run_path(path)",
    ],
)
def test_a_second_door_for_other_peoples_code_is_seen(line: str) -> None:
    assert other_peoples_code("client/guilder_client/turn.py", ast.parse(line)) != []


def test_no_import_is_relative() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in trees(*ROOMS, "tests", "benchmarks")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]

    assert found == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("server/guilder_server/rounds.py", "from flwr.app import Message"),
        ("server/guilder_server/rounds.py", "def run():\n    import flwr"),
        ("shared/guilder_shared/tasks.py", "import_module('flwr.serverapp')"),
        ("server/guilder_server/app.py", "from flwr.supercore import tasks"),
        ("server/guilder_server/app.py", "from flwr import server"),
    ],
)
def test_the_wall_around_flwr_sees_a_trespasser(path: str, line: str) -> None:
    assert flwr_trespasses(path, ast.parse(line)) != []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("server/guilder_server/app.py", "from flwr.app import Message"),
        ("shared/guilder_shared/wire.py", "from flwr import app"),
        ("server/guilder_server/hub.py", "import flwr.supercore.tasks as t"),
    ],
)
def test_the_wall_around_flwr_has_doors(path: str, line: str) -> None:
    assert flwr_trespasses(path, ast.parse(line)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "weights = torch.load(path)",
        "distributed.broadcast_object_list(model)",
        "weights = torch.load(path, weights_only=True)",
        "module = torch.jit.load(path)",
        "torch.hub.load('a', 'b')",
        "from torch.serialization import load",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_smuggled_code_is_seen(line: str) -> None:
    assert smuggled_code(ast.parse(line)) != []


@pytest.mark.parametrize(
    "line", ["model.eval()", "re.compile('a')", "np.load(f, allow_pickle=False)"]
)
def test_honest_code_is_not_taken_for_smuggled(line: str) -> None:
    assert smuggled_code(ast.parse(line)) == []
