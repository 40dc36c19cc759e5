"""What a run of 1,000 tasks costs the login node: submission, status, memory. Needs the test cluster.

    tests/slurm/cluster-up DIR MaxArraySize=1001
    SLURM_CONF=DIR/slurm.conf python benchmarks/slurm.py --save

The tasks are held in the queue, so that nothing but the orchestrator is measured.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, child, report

CARD = """
key: held
title: clips that nobody looks at
task: classification
columns: {input: video}
metadata: held_{split}.csv
labels: {column: action}
license: none
source: synthetic
"""
COMMAND = str(Path(sys.executable).with_name("lary-orch"))


def write_csv(path: Path, rows: int) -> None:
    lines = (f'held,clip_{i:08d}.mp4,class {i % 7},"0,1,2,3"\n' for i in range(rows))
    path.write_text("dataset,video_path,action,sample_indices\n" + "".join(lines), encoding="utf-8")


def measure(command: list[str], leave_after_s: float | None = None) -> dict[str, float]:
    """Seconds and peak memory of a command; with `leave_after_s` it is ended by SIGTERM then."""
    start = time.perf_counter()
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with child(command, **nowhere) as process:
        if leave_after_s is not None:
            time.sleep(leave_after_s)
            process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (0 if leave_after_s is None else 128 + signal.SIGTERM):
        raise RuntimeError(f"{command}: exit {process.returncode}")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--follow-s", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cards").mkdir()
        (folder / "cards/held.yaml").write_text(CARD)
        write_csv(folder / "held_train.csv", options.tasks)
        write_csv(folder / "held_val.csv", 1)
        profile = {"time": "5", "memory": "100M", "tasks": options.tasks, "sbatch": ["--hold"]}
        (folder / "profile.yaml").write_text(json.dumps(profile))
        options = ["--workspace", f"{folder}/w", "--data-dir", name]
        run = [COMMAND, "run", "-m", "frame-diff", "-d", "held", "--catalog", f"{folder}/cards", *options]
        run += ["--runtime", "slurm", "--env", "current", "--profile", f"{folder}/profile.yaml", "--shard-rows", "1"]
        figures: dict[str, Any] = {"tasks": options.tasks}
        try:
            figures["plan, job folders, submission"] = measure([*run, "--no-control", "--detach"])
            figures["status"] = measure([COMMAND, "status", "--json", *options])
            figures[f"following for {options.follow_s:.0f} s"] = measure([*run, "--no-control"], options.follow_s)
        finally:
            figures["cancel"] = measure([COMMAND, "cancel", *options])
    report("slurm", figures, options.save)


if __name__ == "__main__":
    main()
