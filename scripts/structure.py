"""Measure the structure of a Python package: rooms, arrows between them, floors, circles, sizes.

    python scripts/structure.py [--json] [PACKAGE_FOLDER ...]

Imports are read from the syntax tree, those inside functions and of type checkers too. A room is what stands at the
top of a package: a sub-package, or a loose module; `__init__` and `__main__` are doors, no rooms.
An arrow is a pair of rooms of which the first imports the second.
A floor is how many arrows lie below a room, at most, once the arrows upwards are left out. Arrows upwards are the
fewest that one has to leave out, so that no circle remains.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

REPO = Path(__file__).parents[1]
Arrow = tuple[str, str]
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)


@dataclass(frozen=True)
class Function:
    file: str
    name: str
    lines: int
    complexity: int
    """McCabe's number as radon counts it: 1, and 1 for each branch, loop, handler, assertion and operand more."""


@dataclass(frozen=True)
class Structure:
    """One package."""

    package: str
    rooms: tuple[str, ...]
    loose: tuple[str, ...]
    arrows: tuple[Arrow, ...]
    upwards: tuple[Arrow, ...]
    floors: int
    circles: tuple[tuple[str, ...], ...]
    """Of modules, anywhere in the package."""
    lines: int
    longest: Function
    most_complex: Function


def packages(repository: Path = REPO) -> list[Path]:
    """Every package of a checkout."""
    found = [*repository.glob("*/src/*/__init__.py"), *repository.glob("*/*/src/*/__init__.py")]
    return sorted(file.parent for file in found)


def measure(package: Path) -> Structure:
    modules = _modules(package)
    links = {arrow for name, tree in modules.items() for arrow in _links(name, tree, modules, package.name)}
    rooms = sorted({_room(name, package.name) for name in modules} - {""})
    arrows = sorted(_lifted(links, package.name))
    upwards = fewest_upwards(arrows)
    measured = functions(package)
    return Structure(
        package=package.name,
        rooms=tuple(rooms),
        loose=tuple(room for room in rooms if (package / f"{room}.py").is_file()),
        arrows=tuple(arrows),
        upwards=tuple(upwards),
        floors=floors(rooms, set(arrows) - set(upwards)),
        circles=tuple(sorted(tuple(sorted(group)) for group in circles(links))),
        lines=sum(len(file.read_text(encoding="utf-8").splitlines()) for file in package.rglob("*.py")),
        longest=max(measured, key=lambda f: f.lines, default=Function("", "", 0, 0)),
        most_complex=max(measured, key=lambda f: f.complexity, default=Function("", "", 0, 0)),
    )


# --- imports ----------------------------------------------------------------------------------


def _modules(package: Path) -> dict[str, ast.Module]:
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all absolute imports; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _links(name: str, tree: ast.Module, modules: Mapping[str, ast.Module], package: str) -> Iterator[Arrow]:
    for target in imported(tree):
        if target.split(".")[0] != package:
            continue
        found = next(prefix for prefix in _prefixes(target) if prefix in modules)
        if found != name:
            yield name, found


def _prefixes(dotted: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    parts = dotted.split(".")
    yield from (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _room(module: str, package: str) -> str:
    """The room that a module stands in; empty for the package's doors."""
    room = module.removeprefix(package).removeprefix(".").split(".")[0]
    return "" if room == "__main__" else room


def _lifted(links: Iterable[Arrow], package: str) -> set[Arrow]:
    """Arrows between rooms. The package's own `__init__` is no room."""
    pairs = ((_room(a, package), _room(b, package)) for a, b in links)
    return {(a, b) for a, b in pairs if a and b and a != b}


# --- order ------------------------------------------------------------------------------------


def circles(arrows: Iterable[Arrow]) -> list[set[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components, by reachability)."""
    below: dict[str, set[str]] = {}
    for a, b in arrows:
        below.setdefault(a, set()).add(b)
    reach = {node: _reach(node, below) for node in below}
    groups: list[set[str]] = []
    for node in below:
        group = {other for other in reach[node] if node in reach.get(other, set())}
        if group and group not in groups:
            groups.append(group)
    return groups


def _reach(start: str, below: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = below.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def fewest_upwards(arrows: Iterable[Arrow]) -> list[Arrow]:
    """The fewest arrows without which there is no circle. Tries all sets, the small ones first."""
    every = sorted(arrows)
    inside = [(a, b) for a, b in every if any({a, b} <= group for group in circles(every))]
    for count in range(len(inside) + 1):
        for removed in combinations(inside, count):
            if not circles(set(every) - set(removed)):
                return list(removed)
    raise AssertionError("without arrows there is no circle")


def floors(rooms: Iterable[str], arrows: Iterable[Arrow]) -> int:
    """How many floors the rooms stand on: the longest way down, in rooms."""
    below: dict[str, set[str]] = {room: set() for room in rooms}
    for a, b in arrows:
        below[a].add(b)
    height: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((of(under) for under in below[room]), default=0)
        return height[room]

    return max((of(room) for room in below), default=0)


# --- functions --------------------------------------------------------------------------------


def functions(package: Path) -> list[Function]:
    """Every function of a package."""
    return [f for file in sorted(package.rglob("*.py")) for f in _functions(file, package.parent)]


def _functions(file: Path, root: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(str(file.relative_to(root)), node.name, lines, _complexity(node))


def _complexity(function: ast.AST) -> int:
    count = 1
    for node in ast.walk(function):
        count += isinstance(node, BRANCHES)
        count += len(node.ifs) if isinstance(node, ast.comprehension) else 0
        count += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        count += len(node.cases) - 1 if isinstance(node, ast.Match) else 0
    return count


# --- for people -------------------------------------------------------------------------------


def _line(found: Structure) -> str:
    longest, complex_ = found.longest, found.most_complex
    return (
        f"{found.package}: {len(found.rooms)} rooms, {len(found.loose)} loose modules, {len(found.arrows)} arrows, "
        f"{found.floors} floors, {len(found.upwards)} arrows upwards, {len(found.circles)} circles of modules, "
        f"{found.lines} lines; longest function {longest.lines} lines ({longest.file}: {longest.name}), "
        f"most complex {complex_.complexity} ({complex_.file}: {complex_.name})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of packages [all of this checkout]")
    parser.add_argument("--json", action="store_true", help="everything, arrow by arrow")
    given = parser.parse_args()
    found = [measure(folder.resolve()) for folder in given.folders or packages()]
    if given.json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=1)
    else:
        print(*map(_line, found), sep="\n")


if __name__ == "__main__":
    main()
