"""What a CUDA device makes of this project, in at most eight minutes, without network, weights or media.

    python benchmarks/gpu.py --env current --name h100

Networks have random weights at their released sizes (families, whose sizes lie in checkpoints, those of a self test),
clips are drawn in memory. For every installed key and for float32, TF32 (which no job uses) and bfloat16: rows a
second through the worker's encode path and through the bare network, share of what large matrix products reach on the
device, memory, the largest batch, differences to the CPU's float32, memory that runs out for real, copies. Then two
workers on one device, probes' epochs compared with their bare steps, training steps. Writes
`benchmarks/results/gpu-NAME.json`, prints a table and what fell short. What is not installed is skipped by name, and
so is what there is no time for.

Needs torch, transformers, numpy, opencv, safetensors, tensorstore and PyYAML; the rest (`pip install --target FOLDER`,
see benchmarks/README.md) may lie in a folder on PYTHONPATH. `--device cpu --size toy` tries the script itself.
"""

import argparse
import datetime
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# Read by cuBLAS when it starts, as in a job.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import gpu_models
import gpu_parts
import torch
from common import RESULTS, child, machine

LEAST_SHARE = 0.90
"""Of the bare network, that a worker has to reach."""
SHARE_OF_TIME = {"models": 0.66, "two workers": 0.10, "probes": 0.12, "training": 0.12}


class OutOfTime(BaseException):
    """A part took longer than it was given. No Exception: the worker takes those for faults of rows."""


class Kit:
    """One run: its device, its time, and what it found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.toy = options, options.size == "toy"
        self.device = torch.device(options.device)
        self.effort = gpu_parts.Effort(1, 0.0) if self.toy else gpu_parts.Effort(5, 0.15)
        self.began, self.limit_s = time.monotonic(), options.minutes * 60
        self.figures: dict[str, Any] = {"models": {}}
        self.short: list[str] = []
        """What fell short."""
        self.skipped: dict[str, str] = {}
        self.matmul: dict[str, float] = {}

    def left(self) -> float:
        return self.began + self.limit_s - time.monotonic()

    def part(self, name: str, seconds: float, work: Callable[[], Any]) -> Any:
        """What `work` gives, or None: skipped by name where something is missing, fails or takes too long."""
        if seconds < 1:
            self.skipped[name] = "no time left"
            return None
        print(f"{name} (at most {seconds:.0f} s)", file=sys.stderr, flush=True)
        try:
            with _at_most(seconds):
                return work()
        except ImportError as error:
            self.skipped[name] = f"{error.name or error} is not installed"
        except OutOfTime:
            self.skipped[name] = f"took longer than its {seconds:.0f} s"
        except Exception as error:  # noqa: BLE001 - one part's fault must not cost the others
            self.skipped[name] = f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    running = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *running)
        signal.signal(signal.SIGALRM, before)


# --- models ---------------------------------------------------------------------------------------


def measure_models(kit: Kit) -> None:
    entries = [one for one in gpu_models.installed() if not kit.options.key or one.key in kit.options.key]
    until = kit.began + kit.limit_s * SHARE_OF_TIME["models"]
    for at, entry in enumerate(entries):
        seconds = (until - time.monotonic()) / (len(entries) - at)
        os.environ["LARY_IMAGE"] = entry.image
        found = kit.figures["models"][entry.key] = {}
        kit.part(entry.key, seconds, lambda e=entry, f=found, s=seconds: measure_model(kit, e, f, time.monotonic() + s))
        if not found:
            del kit.figures["models"][entry.key]


def measure_model(kit: Kit, entry: gpu_models.Installed, found: dict[str, Any], until: float) -> None:
    """All of one key, what is worth most first; `found` keeps what was done when time runs out."""
    model, size = gpu_models.make(entry, toy=kit.toy)
    rows = 2 if kit.toy else model.card.batch_size
    found |= {"size": size, "parameters": sum(map(_parameters, vars(model).values())), "batch": rows}
    host = gpu_models.inputs(model, rows)
    results: dict[str, Any] = {}
    for name, dtype in gpu_parts.PRECISIONS.items():
        if kit.device.type == "cpu" and name == "tf32":
            continue
        there = gpu_models.on_device(model, size, kit.device, dtype)
        with gpu_parts.precision(name):
            ways = gpu_parts.Ways(there, host, kit.device)
            found[name] = _of_precision(kit, ways, name, found)
            results[name] = gpu_parts.Ways(there, host[: gpu_parts.COMPARED], kit.device, "float32").worker()
            if name != "tf32":
                seconds = (until - time.monotonic()) / 6
                most = 2 * rows if kit.toy else 4096
                found[name] |= gpu_parts.largest_batch(ways, found[name]["worker_rows_per_s"], seconds, most)
            if name == "fp32":
                found["out_of_memory"] = _halving(kit, ways, found[name]["peak_bytes"])
                found["copies"] = gpu_parts.copies(ways, kit.effort) if kit.device.type == "cuda" else None
        del there, ways
    _compare(kit, model, host, results, found, until)


def _parameters(value: Any) -> int:
    return sum(p.numel() for p in value.parameters()) if isinstance(value, torch.nn.Module) else 0


def _of_precision(kit: Kit, ways: gpu_parts.Ways, name: str, found: dict[str, Any]) -> dict[str, Any]:
    own = gpu_parts.rates(ways, kit.effort)
    if "flops_a_row" not in found:
        found["flops_a_row"] = gpu_parts.flops_a_row(ways)
    if name in kit.matmul:
        own["share_of_matmul"] = round(own["bare_rows_per_s"] * found["flops_a_row"] / kit.matmul[name], 4)
    own["peak_bytes"] = gpu_parts.peak_bytes(ways)
    return own


def _halving(kit: Kit, ways: gpu_parts.Ways, of_all: int | None) -> Any:
    if len(ways.rows) < 2:
        return {"skipped": "a batch of one row"}
    if of_all is None:
        return gpu_parts.halving(ways, gpu_parts.FewRows(ways, 1))
    one = gpu_parts.Ways(ways.model, ways.inputs[:1], kit.device)
    of_one = gpu_parts.peak_bytes(one) or 0
    return gpu_parts.halving(ways, gpu_parts.LittleMemory(kit.device, of_one, of_all))


def _compare(
    kit: Kit, model: Any, host: torch.Tensor, results: dict[str, Any], found: dict[str, Any], until: float
) -> None:
    expected_s = 3 * gpu_parts.COMPARED * found["flops_a_row"] / kit.matmul["cpu"]
    if expected_s > until - time.monotonic():
        found["differences"] = {"skipped": f"the CPU needs about {expected_s:.0f} s for {gpu_parts.COMPARED} rows"}
        return
    wanted = gpu_parts.reference(model, host)
    found["differences"] = {name: gpu_parts.differences(own, wanted, name) for name, own in results.items()}


# --- two workers on one device --------------------------------------------------------------------


def two_workers(kit: Kit, seconds: float) -> dict[str, Any]:
    """Rows a second of one process, and of two at the same time on this device, of the key that computes most."""
    weight = {key: one.get("flops_a_row", 0) for key, one in kit.figures["models"].items()}
    key = max(weight, key=weight.__getitem__)
    command = [sys.executable, __file__, "--child", key, "--device", kit.options.device, "--size", kit.options.size]
    command += ["--seconds", str(0.05 if kit.toy else min(5.0, seconds / 6))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with child(command, **pipes) as first, child(command, **pipes) as second:
        children = [first, second]
        for each in children:
            _line_of(each)
        (one,), two = _together(children[:1]), _together(children)
    return {"key": key, "one_rows_per_s": one, "two_rows_per_s": two, "gain": round(sum(two) / one, 3)}


def _together(children: list[Any]) -> list[float]:
    for each in children:
        each.stdin.write("go\n")
        each.stdin.flush()
    return [float(_line_of(each)) for each in children]


def _line_of(worker: Any) -> str:
    line = str(worker.stdout.readline())
    if not line:
        raise RuntimeError(f"a worker ended with exit code {worker.wait()}; its message is above")
    return line


def one_of_two(options: argparse.Namespace) -> None:
    """One of the two: `ready`, then for each line a run of so many seconds and its rows a second."""
    entry = next(one for one in gpu_models.installed() if one.key == options.child)
    os.environ["LARY_IMAGE"] = entry.image
    toy, device = options.size == "toy", torch.device(options.device)
    if toy:
        torch.set_num_threads(1)
    model, size = gpu_models.make(entry, toy=toy)
    host = gpu_models.inputs(model, 2 if toy else model.card.batch_size)
    ways = gpu_parts.Ways(gpu_models.on_device(model, size, device, torch.float32), host, device)
    with gpu_parts.precision("fp32"):
        ways.worker()
        print("ready", flush=True)
        for _ in sys.stdin:
            rows, start = 0, time.perf_counter()
            while time.perf_counter() - start < options.seconds:
                ways.worker(4)
                rows += 4 * len(ways.rows)
            print(round(rows / (time.perf_counter() - start), 2), flush=True)


# --- probes and training --------------------------------------------------------------------------


def probes(kit: Kit) -> dict[str, Any]:
    """Epochs of both probes from memory and from files beside their bare steps on the device."""
    import probe_reading

    rows, rounds = (4, 1) if kit.toy else (2048, 3)
    return {kind: probe_reading.epochs(kind, rows, rounds, kit.device) for kind in ("classify", "regress")}


def training(kit: Kit, image: str, recipe: str) -> dict[str, Any]:
    """Steps a second of the training loop and of the bare model."""
    import train

    os.environ["LARY_IMAGE"] = image
    return train.steps_of(recipe, kit.device.type, toy=kit.toy)


def measure_others(kit: Kit) -> None:
    """Each within its share of the time."""
    parts: dict[str, Callable[[float], Any]] = {
        "two workers": lambda seconds: two_workers(kit, seconds),
        "probes": lambda _: probes(kit),
    }
    recipes = {"lara": "moto-demo"} if kit.toy else {"lara": "moto-small", "latentvla": "univla-lam-small-one"}
    for image, recipe in recipes.items():
        parts[f"training {recipe}"] = lambda _, i=image, r=recipe: training(kit, i, r)
    for name, work in parts.items():
        kind, _, recipe = name.partition(" ") if name.startswith("training") else (name, "", "")
        if kind in kit.options.without:
            kit.skipped[name] = "not asked for"
            continue
        seconds = min(kit.left(), kit.limit_s * SHARE_OF_TIME[kind] / (len(recipes) if recipe else 1))
        found = kit.part(name, seconds, lambda w=work, s=seconds: w(s))
        if found is not None and recipe:
            kit.figures.setdefault("training", {})[recipe] = found
        elif found is not None:
            kit.figures[kind.replace(" ", "_")] = found


# --- what is written and said ---------------------------------------------------------------------


def judge(kit: Kit) -> None:
    """Fill `short` by what was measured."""
    for key, one in kit.figures["models"].items():
        for name in gpu_parts.PRECISIONS:
            share = one.get(name, {}).get("share_of_bare", 1)
            # A self test's network is smaller than what the interpreter costs.
            if share < LEAST_SHARE and one["parameters"] and one["size"] == gpu_models.FULL:
                kit.short.append(f"{key} {name}: the worker reaches {share} of the bare network, not {LEAST_SHARE}")
            difference = one.get("differences", {}).get(name, {})
            if difference.get("within_bounds") is False:
                kit.short.append(f"{key} {name}: differs from the CPU's float32 beyond its bound: {difference}")
        ran_out = one.get("out_of_memory", {})
        if "batch" in ran_out and not (ran_out["halved_to"] and ran_out["all_rows"]):
            kit.short.append(f"{key}: memory that ran out did not end in smaller batches with all rows: {ran_out}")
    for kind, one in (kit.figures.get("probes") or {}).items():
        for name, goal in (("memory", 1.15), ("files", 1.3)):
            if one["over_compute"][name] > goal:
                kit.short.append(f"probe {kind}: an epoch from {name} takes {one['over_compute'][name]} of bare steps")
    for recipe, one in (kit.figures.get("training") or {}).items():
        if one["ratio"] < LEAST_SHARE:
            kit.short.append(f"training {recipe}: the loop reaches {one['ratio']} of the bare model's steps")


def table(kit: Kit) -> Iterator[str]:
    head = ("key", "size", "prec", "batch", "worker/s", "bare/s", "share", "of matmul", "MiB", "largest", "rms to CPU")
    rows = [head]
    for key, one in kit.figures["models"].items():
        for name in gpu_parts.PRECISIONS:
            if name in one:
                rows.append((key, one["size"], name, *_cells(one[name], one.get("differences", {}).get(name, {}))))
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(own: dict[str, Any], difference: dict[str, Any]) -> Iterator[str]:
    yield str(own["batch"])
    yield from (f"{own[f'{way}_rows_per_s']:.1f}" for way in ("worker", "bare"))
    yield f"{own['share_of_bare']:.2f}"
    yield f"{own['share_of_matmul']:.2f}" if "share_of_matmul" in own else "-"
    yield f"{own['peak_bytes'] / 2**20:.0f}" if own["peak_bytes"] else "-"
    more = "" if own.get("beyond") == "memory ran out" else "+"
    yield f"{own['largest_batch']}{more}" if "largest_batch" in own else "-"
    yield f"{difference['relative_rms']:.1e}" if "relative_rms" in difference else "-"


def say(kit: Kit, path: Path) -> None:
    print("\n".join(table(kit)))
    for name in ("two_workers", "probes", "training"):
        if kit.figures.get(name):
            print(f"{name.replace('_', ' ')}: {json.dumps(kit.figures[name])}")
    print(f"skipped: {len(kit.skipped)}" if kit.skipped else "skipped: nothing")
    for name, why in kit.skipped.items():
        print(f"  {name}: {why}")
    print(f"fell short: {len(kit.short)}" if kit.short else "fell short: nothing of what was measured")
    for line in kit.short:
        print(f"  {line}")
    print(f"took {kit.figures['seconds']} s; written to {path}")


def document(kit: Kit) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": kit.device.type, "torch": torch.__version__, "size": kit.options.size}
    if kit.device.type == "cuda":
        found = torch.cuda.get_device_properties(kit.device)
        facts |= {"device": found.name, "memory_gib": round(found.total_memory / 2**30, 1)}
        facts |= {"capability": f"{found.major}.{found.minor}", "cuda": torch.version.cuda}
    head = {"benchmark": "gpu", "date": datetime.date.today().isoformat(), "machine": machine(), **facts}
    tera = {name: round(flops / 1e12, 3) for name, flops in kit.matmul.items()}
    bounds = {"relative_rms": gpu_parts.BOUNDS, "equal_codes": gpu_parts.EQUAL_CODES, "share_of_bare": LEAST_SHARE}
    return {**head, "matmul_tflops": tera, "bounds": bounds, **kit.figures, "skipped": kit.skipped, "short": kit.short}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all; the document that is written. What comes last gets what time is left."""
    kit = Kit(options)
    side = 128 if kit.toy else 8192
    kit.matmul["cpu"] = gpu_parts.matmul_flops(torch.device("cpu"), min(side, 2048), 0)["fp32"]
    kit.matmul |= gpu_parts.matmul_flops(kit.device, side if kit.device.type == "cuda" else 128, 0 if kit.toy else 0.5)
    measure_models(kit)
    measure_others(kit)
    kit.figures["seconds"] = round(time.monotonic() - kit.began, 1)
    judge(kit)
    found = document(kit)
    path = (options.out or RESULTS) / f"gpu-{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    say(kit, path)
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=["current"], default="current", help="the interpreter that runs this")
    parser.add_argument("--name", help="of the result: gpu-NAME.json [the device's]")
    parser.add_argument("--minutes", type=float, default=8.0, help="that it may take at most [8]")
    parser.add_argument("--key", action="append", help="of a model; repeatable [all that are installed]")
    parser.add_argument("--without", action="append", default=[], choices=["two workers", "probes", "training"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--out", type=Path, help="folder of the result [benchmarks/results]")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} sees no CUDA device; --device cpu --size toy tries the script alone")
    if options.name is None:
        name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
        options.name = "-".join(name.lower().split())
    return options


def main() -> None:
    options = parse()
    one_of_two(options) if options.child else run(options)


if __name__ == "__main__":
    main()
