"""Several processes on one job: the numbers of one process, one voice, and one end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_schema.base import ContractError
from lary_schema.cards import DiffusionHead, ProtocolCard
from lary_schema.events import _Event
from lary_schema.launch import JOINED_BY, ProcessFailedError, _reserved_port, is_joined, launch
from lary_schema.results import ProbeResult

WithProtocol = Callable[..., ProtocolCard]


@pytest.fixture
def warm(warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a job are forks of one that has imported torch."""
    monkeypatch.setattr(sys, "executable", str(warm_python))


def command(toy: Any, job: Any) -> list[str]:
    path = toy.mounts.job / "job.json"
    path.write_text(job.to_json())
    return [sys.executable, "-m", "lary_probe", job.kind, "--job", str(path)]


def log(toy: Any) -> list[dict[str, float]]:
    """Training and evaluated scores of every epoch."""
    with (toy.mounts.out / "log_r0.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "split" and v} for row in csv.DictReader(file)]


def by_launcher(toy: Any, job: Any) -> list[dict[str, Any]]:
    """The job with `processes: 2` as the command does it; its events."""
    done = subprocess.run(
        command(toy, job.model_copy(update={"processes": 2})),
        capture_output=True, text=True, timeout=280, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_somebody_else(toy: Any, job: Any) -> list[str]:
    """The job by two processes that find each other by torch's variables, as under srun; what each printed."""
    with _reserved_port() as port:
        joined = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        children = [
            subprocess.Popen(
                command(toy, job), env=os.environ | joined | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
        printed = [child.communicate(timeout=280)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return printed


def without_losses(result: ProbeResult) -> Any:
    """The splits as plain data; held-out losses agree to rounding, and everything else to the bit."""
    splits = result.model_dump()["splits"]
    for seed in splits["val"]["seeds"]:
        for when in ("early", "best", "last"):
            seed[when]["loss"] = round(seed[when]["loss"], 4)
    return splits


def test_two_processes_classify_like_one(bench: Any, with_protocol: WithProtocol, warm: None) -> None:
    """45 rows fitted in batches of 11: six rows and five for a process, and one and none in the last batch."""
    mixing = np.random.default_rng(0).normal(size=(4, 6))
    for name, count, seed in (("train", 61, 1), ("val", 37, 2)):
        labels = np.arange(count) % 4
        noise = np.random.default_rng(seed).normal(size=(count, 2, 3, 6))
        bench.split(name, 0.7 * mixing[labels][:, None, None, :] + noise, ["abcd"[i] for i in labels])
    base = with_protocol(seeds=(0, 1))
    recipe = base.classify.model_copy(update={"batch_size": 11, "epochs": 4})
    job = bench.job("classify", protocol=base.model_copy(update={"classify": recipe}))
    alone, alone_log = bench.run(job), log(bench)
    events = by_launcher(bench, job)
    result = ProbeResult.read(bench.mounts.out / "result.json")
    assert alone.splits["val"].rows.used == 37
    assert 0.4 < alone.splits["val"].value < 1
    assert result.fingerprint == alone.fingerprint
    assert without_losses(result) == without_losses(alone)
    assert log(bench) == alone_log
    # LARYBench's sampler repeats a row to make 37 even; here every row is predicted once, in order.
    with (bench.mounts.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert [int(row["row"]) for row in csv.DictReader(file)] == list(range(37))
    assert [event["event"] for event in events].count("started") == 1
    assert (events[-1]["event"], events[-1]["done"]) == ("finished", 2 * 4 * 5)


@pytest.mark.parametrize("head", ["mlp", "dit"])
def test_two_processes_regress_like_one(toy_actions: Any, with_protocol: WithProtocol, head: str, warm: None) -> None:
    """Batches of 47 and one rows: the last one leaves a process without a row."""
    base = with_protocol()
    dit = DiffusionHead(width=16, depth=2, heads=2, train_steps=20, sample_steps=5)
    recipe = base.regress.model_copy(update={"batch_size": 47, "head": head, "dit": dit})
    job = toy_actions.job("regress", protocol=base.model_copy(update={"regress": recipe}))
    alone, alone_log = toy_actions.run(job), log(toy_actions)
    first, second = by_somebody_else(toy_actions, job)
    result = ProbeResult.read(toy_actions.mounts.out / "result.json")
    assert result.splits["val"].value == pytest.approx(alone.splits["val"].value, rel=1e-5)
    assert result.splits["val"].seeds[0].best.epoch == alone.splits["val"].seeds[0].best.epoch
    for got, wanted in zip(log(toy_actions), alone_log, strict=True):
        assert got == pytest.approx(wanted, rel=1e-5)
    events = [json.loads(line)["event"] for line in first.splitlines()]
    assert (events[0], events[-1], second) == ("started", "finished", "")


def test_a_bad_job_says_so_once(toy_classes: Any) -> None:
    toy_classes.split("val", np.zeros((2, 2, 3, 8)), ["push", "throw"])
    job = toy_classes.job("classify", processes=2)
    done = subprocess.run(command(toy_classes, job), capture_output=True, text=True, timeout=280, check=False)
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, event["event"], event["code"]) == (2, "error", 2)
    assert "label 'throw'" in event["message"]
    assert not (toy_classes.mounts.out / "result.json").exists()


REPORT = """
import os, sys, time
from lary_schema.launch import end_with_launcher
from lary_schema.events import Failed, to_line
end_with_launcher()
"""


def started(script: str) -> list[str]:
    return [sys.executable, "-c", REPORT + script]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("code", [2, 4, 5, 124])
def test_one_processes_failure_ends_all_with_its_code(rank: int, code: int) -> None:
    script = f"""
if os.environ["RANK"] != "{rank}":
    time.sleep(600)
print(to_line(Failed(job="j", code={code}, message="why")), end="", flush=True)
os._exit({code})
"""
    events: list[_Event] = []
    with pytest.raises(ProcessFailedError, match="why") as caught:
        launch(started(script), 2, events.append)
    assert (caught.value.exit_code, events) == (code, [])


@pytest.mark.parametrize(("end", "code"), [("os.kill(os.getpid(), 9)", 137), ("raise RuntimeError", 1)])
def test_a_silent_death_ends_all(end: str, code: int) -> None:
    """The one that lost its peer fails too, later, and does not hide why."""
    script = f'if os.environ["RANK"] == "1":\n    {end}\ntime.sleep(600)'
    with pytest.raises(SystemExit) as caught:
        launch(started(script), 2, lambda event: None)
    assert caught.value.code == code


def test_nothing_runs_on_when_the_launcher_is_killed(tmp_path: Path) -> None:
    child = REPORT + f'open("{tmp_path}/" + os.environ["RANK"], "w").write(str(os.getpid()))\ntime.sleep(600)'
    script = f"import sys\nfrom lary_schema.launch import launch\nlaunch([sys.executable, '-c', {child!r}], 2, print)"
    launcher = subprocess.Popen([sys.executable, "-c", script])
    pids = [_content(tmp_path / rank) for rank in "01"]
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    while any(_runs(pid) for pid in pids):  # else the test's time limit ends this
        time.sleep(0.05)


def _content(path: Path) -> int:
    while not (path.is_file() and path.read_text()):
        time.sleep(0.05)
    return int(path.read_text())


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie (an orphan's new parent may be slow to reap it)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self/stat").is_file()


def test_who_joins_needs_all_variables() -> None:
    whole = dict.fromkeys(JOINED_BY, "0")
    assert is_joined(whole)
    assert not is_joined({"LOCAL_RANK": "0"})
    with pytest.raises(ContractError, match="and MASTER_PORT is not"):
        is_joined({name: value for name, value in whole.items() if name != "MASTER_PORT"})


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from lary_probe.session import _check_gpus

    for name in JOINED_BY:
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ContractError, match="4 processes and torch sees 2 GPUs"):
        _check_gpus(2)
    _check_gpus(4)
    assert os.environ["LOCAL_RANK"] == "3"
    # Under srun a task may see its own GPU alone, and does not know how many share the machine.
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    _check_gpus(1)
    assert os.environ["LOCAL_RANK"] == "0"


def test_processes_share_memory_and_threads(toy_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from lary_probe.data import open_data
    from lary_probe.session import make_deterministic

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    row = 2 * 3 * 8 * 4
    data = open_data(toy_classes.job("classify", ram_bytes=20 * row), toy_classes.mounts, lambda: None)
    assert (data.train.held, data.evaluated[0][0].held) == (10, 0)
    make_deterministic("cpu", 4)
    assert torch.get_num_threads() == 2
