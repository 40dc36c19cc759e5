"""Whole runs on a real cluster: the main job, a kill, leaving and coming back, containers, probes over two nodes."""

import json
import os
import pty
import select
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm

SMOKE = ("--protocol", "smoke", "--no-control")
PROFILE = """
partition: debug
time: "10"
cpus: 1
memory: 1800M
tasks: {tasks}
settle_s: 10
"""


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _values(latents: Path) -> dict[str, bytes]:
    """A store's content, less what says where and when it was made."""
    return {name: data for name, data in _files(latents).items() if "/c/" in name}


def _options(folder: Path, tasks: int, more: str = "") -> tuple[str | Path, ...]:
    path = folder / "profile.yaml"
    path.write_text(PROFILE.format(tasks=tasks) + more)
    return ("--runtime", "slurm", "--profile", path)


def _scores(out: str) -> dict[str, float]:
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "scores"
    return {f"{score['model']} {score['dataset']}": score["value"] for score in last["scores"]}


@pytest.fixture(scope="session")
def here(bench: Any, once: Any) -> dict[str, Any]:
    """The same run on this machine: what its stores and scores have to be."""
    run = ("run", "-m", "frame-diff", "-d", "demo_motion", "--shard-rows", "16", *SMOKE)

    def make(folder: Path) -> None:
        options = ("--runtime", "process", "--env", "current", "--device", "cpu", "--latents", folder / "latents")
        (folder / "out").write_text(bench(*run, "--json", *options))
        shutil.rmtree(bench.workspace / "results")

    folder = once("slurm-here", make)
    return {"run": run, "values": _values(folder / "latents"), "scores": _scores((folder / "out").read_text())}


def test_an_array_cut_in_two_a_kill_and_the_same_bytes(bench: Any, cluster: Any, here: Any, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    command = (*here["run"], "--env", "current", "--latents", latents, *_options(tmp_path, tasks=10))
    planned = bench("plan", *command[1:])
    # MaxArraySize is 8: ten tasks of train are cut in two, the eight shards of val are not.
    assert [line for line in planned.splitlines() if "--array" in line] == [
        *("#SBATCH --array=0-7", "#SBATCH --array=0-1", "#SBATCH --array=0-7"),
    ]
    assert "'--dependency=afterok:<1>:<2>:<3>' --kill-on-invalid-dep=yes" in planned
    assert not cluster.queue()

    run = bench.start(*command, "--json")
    killed, again, last = None, [], ""
    for line in run.stdout:
        event = json.loads(line)
        last = line
        if event["event"] == "shard_done" and killed is None and _kill(event["job"]):
            killed = event["job"]
        elif "relaunched" in event.get("message", ""):
            again.append(event["job"])
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert killed is not None
    assert again == [killed]
    assert _scores(last) == here["scores"]
    assert _values(latents) == here["values"]
    _, err = bench.start(*command).communicate()
    assert "nothing to do" in err


def _kill(job: str) -> bool:
    """The worker of a task, as the kernel does it for want of memory; False where it has ended already."""
    killed = False
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "lary_worker" in words and any(f"/{job}/" in word for word in words):
            with suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)
                killed = True
    return killed


def test_left_and_found_again(bench: Any, cluster: Any, here: Any, tmp_path: Path) -> None:
    command = (*here["run"], "--env", "current", "--latents", tmp_path / "latents", *_options(tmp_path, tasks=2))
    _, err = (left := bench.start(*command, "--detach")).communicate(timeout=600)
    assert left.returncode == 0
    assert "goes on without us" in err
    state = json.loads(bench("status", "--json"))["cluster"]
    assert state["state"] == "open"
    assert len(state["tasks"]) == 5
    session = state["session"]
    assert len(cluster.queue()) >= 1
    # Without a terminal, a signal leaves the tasks where they are.
    second = bench.start(*command, "--json")
    second.stdout.readline()
    second.send_signal(signal.SIGTERM)
    _, err = second.communicate(timeout=600)
    assert second.returncode == 128 + signal.SIGTERM
    assert "are on the cluster already" in err
    assert cluster.queue()
    third = bench.start(*command, "--json")
    out, err = third.communicate(timeout=600)
    assert third.returncode == 0, err
    assert "are on the cluster already" in err
    assert _scores(out) == here["scores"]
    assert _values(tmp_path / "latents") == here["values"]
    state = json.loads(bench("status", "--json"))["cluster"]
    assert (state["session"], state["state"]) == (session, "ended")
    assert {(task["state"], task["attempt"]) for task in state["tasks"]} == {("done", 1)}


def test_cancel_leaves_nothing_in_the_queue(bench: Any, cluster: Any, here: Any, tmp_path: Path) -> None:
    command = (*here["run"], "--env", "current", "--latents", tmp_path / "latents", *_options(tmp_path, tasks=10))
    bench(*command, "--detach")
    run = bench.start(*command)
    for line in run.stderr:
        if "are on the cluster already" in line:
            break
    said = bench("cancel")
    assert "none of its tasks is in the queue" in said
    assert not cluster.queue()
    _, err = run.communicate(timeout=600)
    assert run.returncode == 128 + signal.SIGTERM, err
    assert not cluster.queue()
    assert json.loads(bench("status", "--json"))["cluster"]["state"] == "cancelled"


def test_ctrl_c_at_a_terminal_asks(bench: Any, cluster: Any, here: Any, tmp_path: Path) -> None:
    command = (*here["run"], "--env", "current", "--latents", tmp_path / "latents", *_options(tmp_path, tasks=2))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(bench.command, [str(word) for word in (bench.command, *command)], bench.environ)
    said = _read_until(terminal, "all jobs")
    while not cluster.queue():
        said += _read_until(terminal, "")
    os.write(terminal, b"\x03")
    said += _read_until(terminal, "[f]ollow on")
    assert cluster.queue()
    os.write(terminal, b"f\n")
    said += _read_until(terminal, "all jobs")
    os.write(terminal, b"\x03")
    said += _read_until(terminal, "[f]ollow on")
    os.write(terminal, b"c\n")
    said += _read_until(terminal, "stopped; the same command goes on from here")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGINT, said
    assert not cluster.queue()


def _read_until(terminal: int, text: str) -> str:
    said, end = "", time.monotonic() + 600
    while text not in said:
        assert time.monotonic() < end, said
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            try:
                said += os.read(terminal, 1 << 16).decode(errors="replace")
            except OSError:  # what Linux says at a terminal's end
                assert text in said, said
    return said


def test_two_nodes_train_a_probe_to_the_same_metrics(bench: Any, cluster: Any, here: Any, tmp_path: Path) -> None:
    options = _options(tmp_path, tasks=1, more="probe: {nodes: 2}\n")
    out = bench(*here["run"], "--env", "current", "--latents", tmp_path / "latents", *options, "--json")
    # Sums over a batch are taken in another order: one of the 128 rows may fall on the other side.
    assert _scores(out) == pytest.approx(here["scores"], abs=1.01 / 128)
    started = [json.loads(line) for line in out.splitlines() if '"started"' in line]
    assert len([event for event in started if event["unit"] == "steps"]) == 1


@pytest.mark.images
def test_podman_on_the_nodes(bench: Any, cluster: Any, here: Any, tmp_path: Path, podman: str) -> None:
    options = _options(tmp_path, tasks=2, more=podman)
    doctor = bench("doctor", *options)
    assert "launcher podman works" in doctor
    out = bench(*here["run"], "--latents", tmp_path / "latents", *options, "--json")
    assert _scores(out) == here["scores"]
    assert _values(tmp_path / "latents") == here["values"]
    found = max((bench.workspace / "results").rglob("result.json"), key=lambda path: path.stat().st_mtime_ns)
    result = json.loads(found.read_text())
    exported = json.loads((Path(os.environ["LARY_SLURM_IMAGES"]) / "probe.json").read_text())
    assert (result["probe_image"], result["probe_image_digest"]) == (exported["ref"], exported["id"])
