"""`benchmarks/gpu.py` at toy size on the CPU: what it writes and says, what it skips, how it ends what hangs."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LACKING = "raise ImportError('No module named lary_trainer', name='lary_trainer')"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Output and document of a run where the trainer cannot be imported."""
    out = tmp_path_factory.mktemp("gpu")
    (out / "hidden/lary_trainer").mkdir(parents=True)
    (out / "hidden/lary_trainer/__init__.py").write_text(LACKING)
    command = [sys.executable, BENCHMARKS / "gpu.py", "--env", "current", "--device", "cpu", "--size", "toy"]
    command += ["--key", "frame-diff", "--key", "random-vit", "--key", "moto-demo-000000000000"]
    command += ["--without", "two workers", "--name", "toy", "--out", out, "--minutes", "30"]
    env = {**os.environ, "PYTHONPATH": str(out / "hidden"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((out / "gpu-toy.json").read_text())


def test_every_key_is_measured_in_every_precision(ran: tuple[str, dict[str, Any]]) -> None:
    models = ran[1]["models"]
    assert set(models) == {"frame-diff", "random-vit"}
    for one in models.values():
        for name in ("fp32", "bf16"):
            assert one[name]["worker_rows_per_s"] > 0
            assert one[name]["bare_rows_per_s"] > 0
            assert one[name]["largest_batch"] >= one["batch"]
            assert one["differences"][name]["within_bounds"]
        assert one["differences"]["fp32"]["largest"] == 0
        assert one["differences"]["bf16"]["largest"] > 0
    assert models["random-vit"]["parameters"] > 1e6
    assert models["random-vit"]["fp32"]["share_of_matmul"] > 0


def test_memory_that_runs_out_halves_the_batch_and_loses_no_row(ran: tuple[str, dict[str, Any]]) -> None:
    for one in ran[1]["models"].values():
        assert one["out_of_memory"]["halved_to"] == [1]
        assert one["out_of_memory"]["all_rows"]
        assert one["out_of_memory"]["largest_difference"] < 1e-4


def test_probes_are_compared_with_their_bare_steps(ran: tuple[str, dict[str, Any]]) -> None:
    for kind in ("classify", "regress"):
        assert {name: ratio > 0 for name, ratio in ran[1]["probes"][kind]["over_compute"].items()} == {
            "memory": True,
            "files": True,
        }


def test_what_is_missing_is_skipped_by_name(ran: tuple[str, dict[str, Any]]) -> None:
    output, found = ran
    assert found["skipped"] == {
        "moto-demo-000000000000": "lary_trainer is not installed",
        "training moto-demo": "lary_trainer is not installed",
        "two workers": "not asked for",
    }
    assert all(f"{name}: {why}" in output for name, why in found["skipped"].items())


def test_the_table_has_a_line_for_each_key_and_precision(ran: tuple[str, dict[str, Any]]) -> None:
    lines = [line.split()[:3] for line in ran[0].splitlines()]
    for key in ("frame-diff", "random-vit"):
        assert [key, "self-test", "fp32"] in lines
        assert [key, "self-test", "bf16"] in lines


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; what it imports of its folder is forgotten again."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    own = {path.stem for path in BENCHMARKS.glob("*.py")}
    for name in own & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    module = importlib.import_module("gpu")
    for name in own & set(sys.modules) - before:
        monkeypatch.delitem(sys.modules, name)
    return module


def kit(gpu: ModuleType, tmp_path: Path, minutes: float = 30) -> Any:
    arguments = ["--device", "cpu", "--size", "toy", "--minutes", str(minutes), "--out", str(tmp_path)]
    return gpu.Kit(gpu.parse(arguments))


def test_a_part_that_hangs_or_fails_costs_itself_alone(gpu: ModuleType, tmp_path: Path) -> None:
    own = kit(gpu, tmp_path)

    def hang() -> None:
        try:
            time.sleep(1000)
        except Exception:  # noqa: BLE001 - as the worker does with what a model raises
            pytest.fail("it was taken for a fault of a row")

    assert own.part("hangs", 1, hang) is None
    assert own.part("fails", 60, lambda: {}["key"]) is None
    assert own.part("works", 60, lambda: 7) == 7
    assert own.part("late", 0, lambda: 8) is None
    assert own.skipped == {
        "hangs": "took longer than its 1 s",
        "fails": "KeyError: 'key'",
        "late": "no time left",
    }


def test_two_workers_run_alone_and_together(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text("import sys\nprint('ready', flush=True)\nfor _ in sys.stdin: print(8.0, flush=True)\n")
    monkeypatch.setattr(gpu, "__file__", str(script))
    own = kit(gpu, tmp_path)
    own.figures["models"] = {"small": {"flops_a_row": 1.0}, "large": {"flops_a_row": 2.0}}
    found = gpu.two_workers(own, 60)
    assert found == {"key": "large", "one_rows_per_s": 8.0, "two_rows_per_s": [8.0, 8.0], "gain": 2.0}
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="exit code 3"):
        gpu.two_workers(own, 60)


def test_what_fell_short_is_said(gpu: ModuleType, tmp_path: Path) -> None:
    own = kit(gpu, tmp_path)
    good = {"parameters": 5, "size": "full", "fp32": {"share_of_bare": 0.95}}
    slow = {"fp32": {"share_of_bare": 0.5}}
    own.figures = {
        "models": {
            "slow": good | slow,
            "far": good | {"differences": {"fp32": {"within_bounds": False}}},
            "lost": good | {"out_of_memory": {"batch": 4, "halved_to": [], "all_rows": True}},
            "fine": good | {"differences": {"fp32": {"within_bounds": True}}},
            "no network": good | slow | {"parameters": 0},
            "self-test": good | slow | {"size": "self-test"},
        },
        "probes": {"classify": {"over_compute": {"memory": 1.2, "files": 1.2}}},
        "training": {"moto": {"ratio": 0.8}},
    }
    gpu.judge(own)
    assert [line.split(":")[0] for line in own.short] == [
        "slow fp32",
        "far fp32",
        "lost",
        "probe classify",
        "training moto",
    ]


def test_differences_have_bounds(gpu: ModuleType) -> None:
    parts: Any = importlib.import_module("gpu_parts")
    torch, np = parts.torch, parts.np
    tokens = torch.ones(2, 1, 1, 4)

    def compare(factor: float, codes: list[int], name: str) -> bool:
        rows = [parts.Encoded(r, tokens[r].numpy() * factor, np.array([[c]])) for r, c in enumerate(codes)]
        wanted = SimpleNamespace(tokens=tokens, indices=torch.tensor([[[1]], [[2]]]))
        return bool(parts.differences(rows, wanted, name)["within_bounds"])

    assert compare(1.0001, [1, 2], "fp32")
    assert not compare(1.01, [1, 2], "fp32")
    assert compare(1.01, [1, 2], "bf16")
    assert not compare(1.0, [1, 3], "bf16")
    assert not parts.differences([parts.Failure(row=0, reason="overflow", detail="x")], None, "fp32")["within_bounds"]
