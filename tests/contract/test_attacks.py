"""The counted list of attacks: each in a test that asserts its id, and on one page.

The marks are read from the sources, so that a test which is skipped or renamed away
cannot stay in the list, and nothing is in the page that no test does.
"""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "attacks.md"
FEWEST = 25
ROW = re.compile(
    r"\| ([^|]+) \| ([^|]+) \| `(GLD-[A-Z]\d{3})` \| \[(\w+)\]\(([^)]+)\) \|"
)


@dataclass(frozen=True, order=True)
class Attack:
    """One mark: who attacks, how, what it is refused with, and where that is seen."""

    by: str
    name: str
    error_id: str
    test: str
    path: str


@dataclass(frozen=True)
class Found:
    """What one test module has: its attacks, and those whose id is not asserted."""

    attacks: tuple[Attack, ...]
    unasserted: tuple[str, ...]
    num_marks: int


def marks_in(node: ast.AST) -> list[ast.Call]:
    return [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.attack"
    ]


def read(path: Path) -> Found:
    tree = ast.parse(path.read_text("utf-8"))
    attacks, unasserted = [], []
    for test in ast.walk(tree):
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        marks = marks_in(test)
        inside = {id(part) for mark in marks for part in ast.walk(mark)}
        said = [
            each.value
            for each in ast.walk(test)
            if isinstance(each, ast.Constant)
            and isinstance(each.value, str | bytes)
            and id(each) not in inside
        ]
        words = " ".join(w if isinstance(w, str) else w.decode("latin-1") for w in said)
        for mark in marks:
            by, name, error_id = (ast.literal_eval(word) for word in mark.args)
            place = f"../{path.relative_to(ROOT)}"
            attacks.append(Attack(by, name, error_id, test.name, place))
            if error_id not in words:
                unasserted.append(f"{path.name}: {test.name}: {error_id}")
    return Found(tuple(attacks), tuple(unasserted), len(marks_in(tree)))


FOUND = [read(path) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
ATTACKS = sorted(attack for found in FOUND for attack in found.attacks)


def test_every_mark_stands_on_a_test_and_its_id_is_asserted_there() -> None:
    strays = [found for found in FOUND if found.num_marks != len(found.attacks)]
    unasserted = [line for found in FOUND for line in found.unasserted]

    assert strays == []
    assert unasserted == []


def test_there_are_as_many_named_attacks_as_were_promised() -> None:
    names = Counter((attack.by, attack.name) for attack in ATTACKS)

    assert [name for name, num in names.items() if num > 1] == []
    assert len(names) >= FEWEST


def test_every_id_has_a_page() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "errors").glob("GLD-*.md")}

    assert {attack.error_id for attack in ATTACKS} - pages == set()


def test_the_page_lists_these_attacks_and_no_others() -> None:
    text = PAGE.read_text("utf-8")
    rows = [Attack(*row) for row in ROW.findall(text)]

    missing = [
        f"| {a.by} | {a.name} | `{a.error_id}` | [{a.test}]({a.path}) |"
        for a in ATTACKS
        if a not in rows
    ]
    assert missing == [], "rows for docs/attacks.md:\n" + "\n".join(missing)
    assert [row for row in rows if row not in ATTACKS] == []
    assert f"{len(ATTACKS)} attacks" in text
