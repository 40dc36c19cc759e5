"""The arrows of docs/design.md: who may import whom, and what stays out of the orchestrator."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPO = Path(__file__).parents[1]
OURS = {
    "lary_schema": set(),
    "lary_policy": {"lary_schema"},
    "lary_arm": {"lary_schema", "lary_policy", "lary_demo"},
    "lary_worker": {"lary_schema"},
    "lary_trainer": {"lary_schema", "lary_worker", "lary_policy"},
    "lary_parts": {"lary_schema", "lary_worker", "lary_trainer", "lary_policy"},
    "lary_probe": {"lary_schema"},
    "lary_terminal": {"lary_schema"},
    "lary_results": {"lary_schema", "lary_terminal"},
    "lary_demo": {"lary_schema"},
    "lary_libero": {"lary_schema", "lary_policy"},
    "lary_conformance": {"lary_schema", "lary_demo", "lary_orch"},
    "lary_doctor": {"lary_schema", "lary_terminal", "lary_demo", "lary_orch"},
    "lary_slurm": {"lary_schema", "lary_terminal", "lary_results", "lary_doctor", "lary_orch"},
    "lary_study": {"lary_schema", "lary_terminal", "lary_results", "lary_orch"},
    "lary_evaluate": {"lary_schema", "lary_terminal", "lary_results", "lary_orch"},
    "lary_orch": {"lary_schema", "lary_terminal", "lary_results", "lary_demo"},
}
MODEL_IMAGE = {"lary_schema", "lary_policy", "lary_worker", "lary_trainer", "lary_parts"}
"""What the package of a model image may import of ours."""
UNSAFE = ("allow_pickle=True", "weights_only=False", "pickle.load", "pickle.Unpickler")
CONVERTER = "shared/worker/src/lary_worker/convert.py"
"""The one module that may unpickle."""


def packages() -> list[Path]:
    return sorted(p.parent for p in REPO.glob("*/src/*/__init__.py")) + sorted(
        p.parent for p in REPO.glob("*/*/src/*/__init__.py")
    )


def imports(package: Path) -> Iterator[tuple[Path, str]]:
    """(file, top-level package) of every import, also those inside functions."""
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield file, node.module.split(".")[0]


@pytest.mark.parametrize("package", packages(), ids=lambda p: p.name)
def test_arrows_point_one_way(package: Path) -> None:
    allowed = OURS.get(package.name, MODEL_IMAGE) | {package.name}
    wrong = {(str(f.relative_to(REPO)), name) for f, name in imports(package) if name.startswith("lary_")}
    assert {(f, n) for f, n in wrong if n not in allowed} == set()


def test_the_orchestrator_knows_no_tensors() -> None:
    found = {name for _, name in imports(REPO / "orchestrator/src/lary_orch")}
    assert found & {"torch", "zarr", "tensorstore", "pandas", "transformers", "av", "numpy", "PIL"} == set()


def test_every_image_is_a_folder_with_its_card_and_project() -> None:
    folders = {p.parent.parent.parent for p in REPO.glob("images/*/src/*/image.yaml")}
    assert REPO / "images/baseline" in folders
    assert REPO / "images/probe" in folders
    assert [f for f in folders if not (f / "pyproject.toml").is_file()] == []


def test_nothing_unpickles_outside_the_converter() -> None:
    found = {
        (str(file.relative_to(REPO)), word)
        for package in packages()
        for file in package.rglob("*.py")
        for word in UNSAFE
        if word in file.read_text(encoding="utf-8")
    }
    assert {file for file, _ in found} <= {CONVERTER}


# --- inside a package -------------------------------------------------------------------------


def _structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", REPO / "scripts/structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


STRUCTURE = _structure()


@cache
def measured(package: Path) -> Any:
    return STRUCTURE.measure(package)


@pytest.mark.parametrize("package", packages(), ids=lambda p: p.name)
def test_no_circle_inside_a_package(package: Path) -> None:
    found = measured(package)
    assert list(found.circles) == []
    assert list(found.upwards) == []


def test_the_rooms_of_the_orchestrator() -> None:
    """The figures to hold; scripts/structure.py says what each is."""
    found = measured(REPO / "orchestrator/src/lary_orch")
    assert set(found.rooms) == {
        *("cli", "catalog", "plan", "run", "runtimes", "weights"),
        *("workspace", "cache"),
    }
    assert set(found.loose) == {"workspace", "cache"}
    assert len(found.arrows) <= 50
    assert found.floors <= 8
    assert found.lines <= 7500
    assert found.longest.lines < 45
    assert found.most_complex.complexity < 15


PINNED = {"lary_schema/metadata.py: _refuse_swallowed"}
"""Sources that stand in fingerprints of stores that exist (`lary_worker.sources`): a change would make them anew."""


@pytest.mark.parametrize("package", packages(), ids=lambda p: p.name)
def test_no_function_is_long_or_tangled(package: Path) -> None:
    found = {f"{f.file}: {f.name}": f for f in STRUCTURE.functions(package)}
    assert [name for name, f in found.items() if f.lines > 45] == []
    assert {name for name, f in found.items() if f.complexity > 15} <= PINNED


@pytest.mark.parametrize(
    "name", ["terminal", "results", "demo", "conformance", "doctor", "slurm", "study", "evaluate", "policy"]
)
def test_functions_of_what_left_the_orchestrator(name: str) -> None:
    found = measured(REPO / f"shared/{name}/src/lary_{name}")
    assert found.longest.lines < 45
    assert found.most_complex.complexity < 15


def test_conformance_needs_no_planner() -> None:
    rooms = set()
    for file in (REPO / "shared/conformance/src").rglob("*.py"):
        for name in STRUCTURE.imported(ast.parse(file.read_text(encoding="utf-8"))):
            if name.startswith("lary_orch."):
                rooms.add(name.split(".")[1])
    assert rooms <= {"catalog", "cli", "runtimes", "weights", "workspace"}


def test_the_measure_itself() -> None:
    """On a package of four rooms: a circle of two, one above, one below."""
    arrows = [("top", "a"), ("a", "b"), ("b", "a"), ("b", "low")]
    assert STRUCTURE.circles(arrows) == [{"a", "b"}]
    assert STRUCTURE.fewest_upwards(arrows) == [("a", "b")]
    assert STRUCTURE.floors(["top", "a", "b", "low", "alone"], set(arrows) - {("b", "a")}) == 4
    tree = ast.parse("def f(x):\n    if x and x > 1:\n        return [y for y in x if y]\n    return 0 if x else 1\n")
    assert STRUCTURE._complexity(tree.body[0]) == 6
