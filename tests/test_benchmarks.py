"""`make benchmarks`: what is compared, and what counts as moved."""

import ast
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`benchmarks/all.py`, with results and scripts of its own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    own = {path.stem for path in BENCHMARKS.glob("*.py")}
    for name in own & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module("all")
    for name in own & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "all.py"))
    return module


def test_times_and_ratios_are_compared_and_nothing_else(again: ModuleType) -> None:
    document = {
        "machine": {"load": [3.0], "memory_s": 5},
        "rows": 512,
        "rounds": 3,
        "write": {"store": {"wall_s": 1.0, "wall_min_s": 0.5, "processor_s": 2}, "npz_over_store": {"wall": 8.0}},
        "frame-diff": {"share": 0.9, "share_range": [0.8, 1.0], "rows_per_s": {"median": 7.0, "range": [1, 2]}},
        "equal_s": True,
    }
    assert dict(again.figures(document)) == {
        "write.store.wall_s": 1.0,
        "write.store.processor_s": 2.0,
        "write.npz_over_store.wall": 8.0,
        "frame-diff.share": 0.9,
        "frame-diff.rows_per_s.median": 7.0,
    }


@pytest.mark.parametrize(
    ("before", "now", "is_moved"),
    [(1.0, 1.5, False), (1.5, 1.0, False), (1.0, 1.51, True), (1.51, 1.0, True), (0.0, 0.1, True), (0.0, 0.0, False)],
)
def test_what_counts_as_moved(again: ModuleType, before: float, now: float, is_moved: bool) -> None:
    assert bool(list(again.moved({"a_s": before}, {"a_s": now}))) == is_moved


def test_every_saved_result_of_a_listed_script_has_something_to_compare(again: ModuleType) -> None:
    for script in again.SCRIPTS:
        assert (BENCHMARKS / f"{script}.py").is_file()
        path = BENCHMARKS / "results" / f"{script}.json"
        if path.is_file():
            assert dict(again.figures(json.loads(path.read_text()))), script


def test_every_script_is_run_again_or_left_out_for_a_reason(again: ModuleType) -> None:
    left_out = {name for names in again.LEFT_OUT for name in names.split(", ")}
    written = {path.stem for path in BENCHMARKS.glob("*.py") if "report(" in path.read_text()}
    assert written - {"common"} == ({*again.SCRIPTS} | left_out) & written
    assert not left_out & set(again.SCRIPTS)


@cache
def defined(module: str) -> set[str]:
    """Names at the top level of a module of ours, and the modules below it; nothing is imported but packages."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    path = Path(spec.origin)
    found = {other.stem for other in path.parent.glob("*")} if path.name == "__init__.py" else set[str]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                found |= {alias.asname or alias.name for alias in names}
    return found


def test_what_scripts_import_of_the_bench_is_there() -> None:
    """A benchmark is run once in a while: a renamed function is noticed here."""
    for path in sorted(BENCHMARKS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lary_"):
                assert {alias.name for alias in node.names} <= defined(node.module or ""), path.name


OLDER = {"extract", "planning", "scale", "train"}
"""Results from before both clocks, ranges and the load were kept: a script that is saved again leaves this list."""


def names_in(document: Any) -> set[str]:
    if not isinstance(document, dict):
        return set()
    return set(document).union(*map(names_in, document.values()))


def test_what_is_saved_says_how_it_was_measured(again: ModuleType) -> None:
    without = set()
    for name in again.SCRIPTS:
        document = json.loads((BENCHMARKS / f"results/{name}.json").read_text())
        names = " ".join(names_in(document))
        told = {"cpu", "cores", "load", "load_before"} <= set(document["machine"])
        clocks = "wall" in names and "processor" in names and ("_range" in names or "_min_s" in names)
        if not (told and clocks and document.get("rounds", 0) >= 3):
            without.add(name)
    assert without == OLDER


def script(folder: Path, document: dict[str, Any] | None) -> None:
    """A benchmark that prints this, or fails."""
    code = (
        "raise SystemExit('no ffmpeg here')" if document is None else f"print('noise'); print({json.dumps(document)!r})"
    )
    (folder / "one.py").write_text(code)


def test_a_script_is_run_again_and_compared(again: ModuleType, tmp_path: Path) -> None:
    old = {"machine": {"cpu": "x", "cores": 2}, "a_s": 1.0, "gone_s": 1.0}
    script(tmp_path, old)
    assert list(again.compare("one", save=False)) == ["there is nothing to compare it with"]
    (tmp_path / "one.json").write_text(json.dumps(old))
    assert list(again.compare("one", save=False)) == ["nothing moved"]
    script(tmp_path, {"machine": {"cpu": "x", "cores": 8}, "a_s": 9.0, "new_s": 1.0})
    assert list(again.compare("one", save=False)) == [
        "another machine: x x 2 -> x x 8",
        "a_s: 1 -> 9",
        "gone_s: no longer measured",
        "new_s: new",
    ]
    script(tmp_path, None)
    assert list(again.compare("one", save=False)) == ["did not run: no ffmpeg here"]


def test_no_script_has_the_name_of_an_installed_module() -> None:
    """Their folder stands first on the path of each: another package's import would get the script."""
    elsewhere = [folder for folder in sys.path if Path(folder).resolve() != BENCHMARKS]
    names = {path.stem for path in BENCHMARKS.glob("*.py")}

    def installed(name: str) -> bool:
        """A folder without `__init__.py`, such as this repository's orchestrator/, is found too, and has no origin."""
        found = PathFinder.find_spec(name, elsewhere)
        return found is not None and found.origin is not None

    assert {name for name in names if installed(name)} == set()
    assert installed("coverage")


BENCHMARK = """
import sys
from common import child, run

ENDLESS = "import time; print('begun', flush=True); time.sleep(600)"
START = [sys.executable, "-S", "-c", ENDLESS]
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ENDLESS
{common}
{lines}
"""
WAYS = {
    "run": "run(START)",
    "a block": "with child(START) as process: process.wait()",
    "two": "with child(START), child(START) as one: one.wait()",
    "one that does not listen": "run([*START[:-1], STUBBORN])",
}


@pytest.mark.parametrize(
    ("way", "number"),
    [*((way, signal.SIGTERM) for way in WAYS), ("run", signal.SIGINT), ("a block", signal.SIGHUP)],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_a_benchmark_started_ends_with_it(tmp_path: Path, way: str, number: signal.Signals) -> None:
    """The pipe's other end is the children's alone, once the benchmark has gone."""
    script = tmp_path / "one.py"
    script.write_text(BENCHMARK.format(common="import common; common.ENDS_WITHIN_S = 0.2", lines=WAYS[way]))
    ours = {
        "env": os.environ | {"PYTHONPATH": str(BENCHMARKS)},
        "stderr": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
    }
    with subprocess.Popen([sys.executable, "-S", str(script)], start_new_session=True, **ours) as benchmark:
        assert benchmark.stdout is not None
        begun = b""
        while begun.count(b"begun") < (2 if way == "two" else 1):
            begun += os.read(benchmark.stdout.fileno(), 100)
        benchmark.send_signal(number)
        assert benchmark.wait(60) in (128 + number, -number)
        # Without an interval: what still ran would hold the pipe open for ten minutes.
        assert select.select([benchmark.stdout], [], [], 60)[0]
        assert benchmark.stdout.read().strip() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda value: value.name)
def test_what_is_just_being_started_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """The signal comes when the process is there, and nobody has it yet."""
    late = f"""
import os, subprocess
class Late(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.kill(os.getpid(), {int(number)})
subprocess.Popen = Late
"""
    script = tmp_path / "one.py"
    script.write_text(BENCHMARK.format(common=late, lines=WAYS["run"]))
    done = subprocess.run(
        [sys.executable, "-S", str(script)],
        check=False, env=os.environ | {"PYTHONPATH": str(BENCHMARKS)}, stdout=subprocess.PIPE, timeout=280,
    )  # fmt: skip
    assert done.returncode == 128 + number


def test_every_benchmark_starts_others_by_what_ends_them() -> None:
    starting = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
    for path in sorted(BENCHMARKS.glob("*.py")):
        tree = ast.parse(path.read_text())
        imported = [one.module for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        used = {
            one.attr
            for one in ast.walk(tree)
            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == "subprocess"
        }
        assert "subprocess" not in imported, path.name
        assert path.name == "common.py" or not used & starting, path.name


def test_a_child_is_run_as_by_subprocess(again: ModuleType) -> None:
    command = [sys.executable, "-c", "import sys; print(sys.stdin.read() or 'nothing'); sys.exit(3)"]
    done = again.common.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (3, "nothing\n", "")
    with pytest.raises(subprocess.CalledProcessError):
        again.common.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
