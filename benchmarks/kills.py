"""Kills processes of a run at random moments until it has ended, and holds its stores to those of an undisturbed one.

    python benchmarks/kills.py --kills 200                    processes, in the running interpreter
    python benchmarks/kills.py --kills 40 --runtime docker    containers; the images are built

One round: a fresh workspace, the same command again and again, and at a random moment SIGKILL to one of its processes:
the orchestrator, a worker, a decode process (also one that just starts) or a probe. The round ends with the command's
exit code 0; then every file of every store is compared byte for byte, every failed row is counted as lost, and the
scores must be equal. Needs psutil.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from common import report

REPO = Path(__file__).parents[1]
REQUEST = ("-m", "frame-diff", "-m", "random-vit", "-d", "demo_motion", "--protocol", "smoke", "--shard-rows", "16")
LONGEST_S = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", choices=["process", "docker"], default="process")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    kills: Counter[str] = Counter()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lary-kills-") as scratch:
        undisturbed = Workspace(Path(scratch) / "undisturbed", given.runtime)
        seconds = undisturbed.run_whole()
        expected, scores = undisturbed.stores(), undisturbed.scores()
        while kills.total() < given.kills:
            workspace = Workspace(Path(scratch) / "killed", given.runtime)
            before = kills.total()
            workspace.run_killed(draw, seconds, kills, given.kills)
            stores = workspace.stores()
            rounds.append({
                "kills": kills.total() - before,
                "files": len(expected),
                "files_that_differ": sorted(name for name, digest in expected.items() if stores.get(name) != digest),
                "files_more": sorted(stores.keys() - expected.keys()),
                "rows_lost": workspace.failed_rows(),
                "scores_equal": workspace.scores() == scores,
            })  # fmt: skip
            print(json.dumps(rounds[-1]), file=sys.stderr)
            shutil.rmtree(workspace.root)
    report(f"kills-{given.runtime}", {"kills": dict(kills), "rounds": rounds}, given.save)
    faults = ("files_that_differ", "files_more", "rows_lost")
    if any(any(map(each.get, faults)) or not each["scores_equal"] for each in rounds):
        sys.exit(1)


class Workspace:
    """One workspace, and the command that fills it."""

    def __init__(self, root: Path, runtime: str) -> None:
        self.root = root
        self._runtime = runtime
        options = ["--runtime", runtime, *(("--env", "current") if runtime == "process" else ())]
        self._command = [sys.executable, "-m", "lary_orch", "run", *REQUEST, *options, "--workspace", str(root)]

    def run_whole(self) -> float:
        """Seconds of an undisturbed run."""
        start = time.monotonic()
        subprocess.run(self._command, check=True, capture_output=True)
        return time.monotonic() - start

    def run_killed(self, draw: random.Random, seconds: float, kills: Counter[str], most: int) -> None:
        """Run to the end, against kills; the last call is left alone once `most` were made."""
        code = None
        while code != 0:
            with self._start() as orchestrator:
                while orchestrator.poll() is None and kills.total() < most:
                    # Many moments are early: processes start, locks are taken, the first shards are written.
                    time.sleep(draw.choice([0.1, 0.5, 1.0]) * draw.random() * seconds / 3)
                    if kind := self._kill(draw, orchestrator):
                        kills[kind] += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    orchestrator.wait(LONGEST_S)
                code = orchestrator.poll()
                if code is None:
                    sys.exit(f"the run hangs: {self._command}")

    @contextlib.contextmanager
    def _start(self) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.root.with_name("said.txt")).open("ab") as said:
            orchestrator = subprocess.Popen(self._command, stdout=said, stderr=said, start_new_session=True)
        try:
            yield orchestrator
        finally:
            orchestrator.kill()
            orchestrator.wait()

    def _kill(self, draw: random.Random, orchestrator: "subprocess.Popen[bytes]") -> str | None:
        """SIGKILL to a process of one kind of those that live; kinds are drawn alike."""
        by_kind: dict[str, list[psutil.Process]] = {}
        for process in self._processes(orchestrator):
            with contextlib.suppress(psutil.Error):
                by_kind.setdefault(_kind(process.cmdline()), []).append(process)
        by_kind.pop("", None)
        if not by_kind:
            return None
        kind = draw.choice(sorted(by_kind))
        try:
            draw.choice(by_kind[kind]).kill()
        except psutil.Error:
            return None
        return kind

    def _processes(self, orchestrator: "subprocess.Popen[bytes]") -> list[psutil.Process]:
        try:
            parent = psutil.Process(orchestrator.pid)
            return [parent, *parent.children(recursive=True), *self._in_containers()]
        except psutil.Error:
            return []

    def _in_containers(self) -> list[psutil.Process]:
        if self._runtime != "docker":
            return []
        own = subprocess.run(
            ["docker", "ps", "--quiet", "--filter", f"label=lary.owner={self.root}"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        found = []
        for container in own:
            top = subprocess.run(["docker", "top", container, "-o", "pid"], capture_output=True, text=True, check=False)
            for pid in top.stdout.split()[1:]:
                with contextlib.suppress(psutil.Error, ValueError):
                    found.append(psutil.Process(int(pid)))
        return found

    def stores(self) -> dict[str, str]:
        """sha256 of every file below the stores; locks are no part of a store."""
        latents = self.root / "latents"
        files = (path for path in latents.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(latents)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def failed_rows(self) -> int:
        state = subprocess.run(
            [sys.executable, "-m", "lary_orch", "status", "--json", "--workspace", str(self.root)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return sum(store["rows_failed"] for store in json.loads(state.stdout)["stores"])

    def scores(self) -> dict[str, Any]:
        """By result: its values."""
        found = sorted((self.root / "results").rglob("result.json"))
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in found]
        return {
            f"{doc['model']}/{doc['control']}": {split: score["value"] for split, score in doc["splits"].items()}
            for doc in documents
        }


def _kind(command: list[str]) -> str:
    line = " ".join(command)
    kinds = {
        "lary_worker.child": "decode process",
        "lary_worker extract": "worker",
        "lary_probe": "probe",
        "lary_orch": "orchestrator",
    }
    return next((kind for part, kind in kinds.items() if part in line), "")


if __name__ == "__main__":
    os.chdir(REPO)
    main()
