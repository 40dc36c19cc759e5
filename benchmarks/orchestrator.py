"""What the orchestrator itself takes while it runs 50 and 200 small jobs: processor time, its share, memory.

    python benchmarks/orchestrator.py --save

`lary-orch run` over many sets of four pairs of images: an extraction for each split and a probe for each set, as
processes of this machine, with lines of text and with bars on a (pseudo) terminal. Its own processor time and memory
are read from /proc until it ends; the share is of all processor time, jobs included. Read the difference of the two
sizes: both hold the start, planning and the table.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, child, report
from PIL import Image

COMMAND = str(Path(sys.executable).with_name("lary-orch"))
JOBS = 3
"""Of a set: two splits, one probe."""
CARD = """
key: {key}
title: drawn
task: classification
columns: {{input: image, source: src_img, target: tgt_img}}
metadata: rows_{{split}}.csv
media: media
labels: {{column: label}}
license: none
source: synthetic
"""
PROTOCOL = """
key: one-epoch
title: as little as can be
select_on: evaluated
class_ids: train
seeds: [0]
classify: {width: 8, depth: 1, heads: 1, optimisers: [[1.0e-2, 0.0]], epochs: 1, batch_size: 4, label_smoothing: 0.0,
  balanced: false, autocast: none}
regress: {head: mlp}
"""
TICKS = os.sysconf("SC_CLK_TCK")


def make_sets(root: Path, sets: int) -> None:
    rng = np.random.default_rng(0)
    (root / "data/media").mkdir(parents=True)
    (root / "cards").mkdir()
    (root / "one-epoch.yaml").write_text(PROTOCOL)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / f"data/media/{number}.png")
    for split in ("train", "val"):
        lines = "".join(f"{n}.png,{(n + 1) % 4}.png,{n % 2}\n" for n in range(4))
        (root / f"data/rows_{split}.csv").write_text("src_img,tgt_img,label\n" + lines)
    for number in range(sets):
        (root / f"cards/{_key(number)}.yaml").write_text(CARD.format(key=_key(number)))


def _key(number: int) -> str:
    return f"set-{number:03d}"


def run(root: Path, sets: int, *, bars: bool) -> dict[str, float]:
    """One run in a new workspace."""
    keys = ",".join(map(_key, range(sets)))
    command = [COMMAND, "run", "-m", "frame-diff", "-d", keys, "--protocol", str(root / "one-epoch.yaml")]
    command += ["--no-control", "--catalog", str(root / "cards"), "--data-dir", str(root / "data")]
    command += ["--runtime", "process", "--env", "current", "--device", "cpu", "--cpu-slots", "2", "--workers", "1"]
    with tempfile.TemporaryDirectory() as workspace, tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        terminal = _terminal() if bars else None
        out = said if terminal is None else terminal
        command += ["--workspace", workspace]
        with child(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said) as process:
            own = _followed(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if terminal is not None:
            os.close(terminal)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    total = usage.ru_utime + usage.ru_stime
    found = {
        "wall_s": time.perf_counter() - start,
        "all_processor_s": total,
        **own,
        "share": own["processor_s"] / total,
    }
    return {name: round(value, 4) for name, value in found.items()}


def _terminal() -> int:
    """A terminal of 120 columns, whose output is thrown away."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    return theirs


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 1 << 16):
            pass
    except OSError:  # its other end is closed
        os.close(fd)


def _followed(pid: int) -> dict[str, float]:
    """Own processor time and peak memory of a process, up to a tenth of a second before its end."""
    processor, peak = 0.0, 0.0
    while True:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            break
        if fields[0] == "Z":
            break
        processor = (int(fields[11]) + int(fields[12])) / TICKS
        peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), peak)
        time.sleep(0.1)
    return {"processor_s": processor, "peak_mib": peak}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sets", type=int, nargs=2, default=(17, 67))
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_sets(Path(folder), max(options.sets))
        for way, bars in {"lines": False, "bars": True}.items():
            few, many = ({"jobs": sets * JOBS} | run(Path(folder), sets, bars=bars) for sets in sorted(options.sets))
            jobs = many["jobs"] - few["jobs"]
            each = {name: round((many[name] - few[name]) / jobs, 5) for name in ("processor_s", "all_processor_s")}
            figures[way] = {"few": few, "many": many, "each_job": each}
            figures[way]["each_job"]["share"] = round(each["processor_s"] / each["all_processor_s"], 4)
            print(way, figures[way], file=sys.stderr, flush=True)
    report("orchestrator", figures, options.save)


if __name__ == "__main__":
    main()
