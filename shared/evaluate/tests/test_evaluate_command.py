"""`lary-orch evaluate` from the command to the table, with real processes; kills, and policies that do wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lary_evaluate.command import command
from lary_orch.cli.status import command as status
from lary_schema.evaluation import EvaluationResult

COMMAND = Path(sys.executable).with_name("lary-orch")
TASK = "left-clockwise-open"
REQUEST = ("-b", "demo_turn", "--task", TASK, "--env", "current", "--cpu-slots", "1", "--videos", "0")

OTHER_TASK = "right-clockwise-close"

POLICY = """
import time
from pathlib import Path

import numpy as np
from lary_policy import Policy
from lary_schema.base import ContractError


class Wrong(Policy):
    def load(self, weights, device):
        with Path(__file__).with_name("loads").open("a") as file:
            file.write(self.key + " ")

    def begin(self, episode):
        assert episode.instruction == episode.task.replace("-", " ")
        self.state = episode.state

    def reset(self, instruction, seed):
        raise NotImplementedError

    def act(self, observation):
        if self.state == 1:
            return {"nan": lambda: np.full((1, 3), np.nan, np.float32),
                    "refuse": self.refuse}[self.key]()
        return np.zeros((4, 3), np.float32)

    def refuse(self):
        raise ContractError("no way")


class Patient(Policy):
    # In the middle of an episode it waits until it may go on: a file here is longer than the state's number.

    def begin(self, episode):
        self.state, self.acted = episode.state, 0

    def reset(self, instruction, seed):
        raise NotImplementedError

    def act(self, observation):
        self.acted += 1
        while self.acted == 3 and Path(__file__).with_name("gate").stat().st_size <= self.state:
            time.sleep(0.01)
        return np.random.default_rng([self.state, self.acted]).normal(size=(4, 3)).astype(np.float32)
"""


POLICIES = {"nan": "Wrong", "refuse": "Wrong", "patient": "Patient"}


class Bench:
    """The command in a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = os.environ | {"LARY_HOME": str(folder / "workspace"), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [str(COMMAND), "evaluate", *arguments]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        with self.start(*arguments) as done:
            out, err = done.communicate()
        assert done.returncode == code, err
        return out, err

    def here(self, *arguments: str) -> Result:
        """In this process."""
        return CliRunner().invoke(command, arguments, env={"LARY_HOME": self.env["LARY_HOME"]})

    def file(self, policy: str, task: str = TASK) -> Path:
        (found,) = (self.folder / "workspace/results/evaluate/demo_turn" / policy).glob(f"{task}.*/evaluation.json")
        return found

    def result(self, policy: str, task: str = TASK) -> EvaluationResult:
        return EvaluationResult.read(self.file(policy, task))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, seed_workspace: Callable[[Path], Path]) -> Bench:
    folder = tmp_path_factory.mktemp("evaluate")
    seed_workspace(folder / "workspace")
    return Bench(folder)


@pytest.fixture(scope="module")
def scripted(bench: Bench) -> EvaluationResult:
    bench.run("-m", "scripted", "--episodes", "3", "--record", *REQUEST)
    return bench.result("scripted")


def test_nothing_is_lost_on_the_way_through_the_socket(bench: Bench, scripted: EvaluationResult) -> None:
    """Every action and state of the replay is bit for bit that of the scripted policy in the simulator's process."""
    assert [one.success for one in scripted.episodes] == [True] * 3
    # What was not recorded takes the first recorded one: a demonstration that is repeated without a look.
    out, _ = bench.run("-m", "replay", "--episodes", "4", *REQUEST)
    assert bench.result("replay").episodes[:3] == scripted.episodes
    assert bench.result("replay").episodes[3].fault is None
    assert "scripted  100.0" in out


def test_a_second_call_does_nothing_and_more_episodes_are_added(bench: Bench, scripted: EvaluationResult) -> None:
    before = bench.file("scripted").stat().st_mtime_ns
    done = bench.here("-m", "scripted", "--episodes", "2", "--json", *REQUEST)
    assert "0 of 1 evaluations to do" in done.stderr
    assert bench.file("scripted").stat().st_mtime_ns == before
    # The last of the events: one line each.
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "evaluations"
    (board,) = last["boards"]
    (entry,) = (one for one in board["policies"] if one["policy"] == "scripted")
    assert entry["tasks"][TASK]["episodes"] == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("-m", "zero", "-b", "demo_trun"), "no benchmark 'demo_trun' (did you mean demo_turn?)"),
        (("-m", "zro", "-b", "demo_turn"), "no policy 'zro' (did you mean zero?)"),
        (("-m", "zero", "-b", "demo_turn", "--task", "up"), "no task of demo_turn 'up'"),
        (("-m", "zero", "-b", "demo_turn", "--episodes", "51"), "has 50 initial states"),
        (("-m", "replay", "-b", "demo_turn", "--recording", "me"), "evaluate -m me -b demo_turn --record"),
        (("-m", "zero", "-b", "demo_turn", "--runtime", "slurm"), "starts no pairs of jobs"),
        (("-m", "zero", "-b", "demo_turn", "--first", "1", "--use", "1024"), "needs chunks of 1025 actions"),
        (("-m", "zero", "-b", "demo_turn", "--first", "1024"), "1024 is not in the range"),
        (("-m", "zero", "-b", "demo_turn", "--seed", str(2**63)), "is not in the range"),
        (("-m", "zero", "-b", "demo_turn", "--act-timeout", "nan"), "nan is no finite number"),
        (("-m", "zero", "-b", "demo_turn", "--task", ""), "--task names no task"),
        (("-m", "zero", "-b", "demo_turn", "--task", " , "), "no task"),
        (("-m", ",", "-b", "demo_turn"), "--policy names no policy"),
        (("--results", "-b", "demo_trun"), "no evaluated benchmark 'demo_trun' (did you mean demo_turn?)"),
        (("-b", "demo_turn"), "name policies by -m"),
        (("--paired", "scripted", "none"), "no evaluated policy 'none'"),
    ],
)
def test_what_cannot_be(bench: Bench, scripted: EvaluationResult, arguments: tuple[str, ...], text: str) -> None:
    more = () if "slurm" in arguments else ("--env", "current")
    done = bench.here(*arguments, *more)
    assert text in str(done.exception) + done.output


@pytest.fixture(scope="module")
def wrong(bench: Bench) -> list[str]:
    """A third-party package of policies, in the interpreter's path; two of them do wrong in their second episode."""
    site = bench.folder / "site"
    package = site / "lary_wrong"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(POLICY, encoding="utf-8")
    cards = [{"key": key, "title": "t", "license": "MIT", "source": "here"} for key in POLICIES]
    card = {"name": "wrong", "kind": "model", "module": "lary_policy", "policies": cards}
    (package / "image.yaml").write_text(json.dumps(card), encoding="utf-8")
    info = site / "lary_wrong-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-wrong\nVersion: 1\n", encoding="utf-8")
    points = "".join(f"{key} = lary_wrong:{name}\n" for key, name in POLICIES.items())
    (info / "entry_points.txt").write_text(f"[lary.policies]\n{points}", encoding="utf-8")
    image = bench.folder / "images" / "wrong"
    (image / "src").mkdir(parents=True)
    (image / "src" / "lary_wrong").symlink_to(package)
    (image / "pyproject.toml").write_text("", encoding="utf-8")
    bench.env["PYTHONPATH"] = str(site)
    return ["--catalog", str(image.parent)]


def test_a_policy_that_does_wrong_fails_in_that_episode_alone(bench: Bench, wrong: list[str]) -> None:
    faults = {"nan": "bad_actions", "refuse": "refused"}
    bench.run("-m", ",".join(faults), "--episodes", "3", *REQUEST, "--task", OTHER_TASK, *wrong)
    for policy, fault in faults.items():
        for task in (TASK, OTHER_TASK):
            found = bench.result(policy, task).episodes
            assert [one.fault for one in found] == [None, fault, None]
            assert [one.steps for one in found] == [16, 0, 16]
            assert not any(one.success for one in found)
    # One process of each policy serves both tasks.
    assert (bench.folder / "site/lary_wrong/loads").read_text(encoding="utf-8").split() == list(faults)
    assert "no way" in bench.result("refuse").episodes[1].detail
    workspace = ("--workspace", bench.env["LARY_HOME"])
    state = json.loads(CliRunner().invoke(status, ["--json", "--failures", *workspace]).stdout)
    found = [[one[name] for name in ("policy", "episodes_done", "faults", "done")] for one in state["evaluations"]]
    assert found == [[policy, 3, 1, True] for policy in faults for _ in range(2)]
    assert [one["fault"] for one in state["failed_episodes"]] == [fault for fault in faults.values() for _ in range(2)]
    assert "no way" in CliRunner().invoke(status, ["--failures", *workspace]).stdout


def processes(bench: Bench, verb: str) -> list[int]:
    """Of this workspace, by the command of images that they do."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        is_ours = any(word.startswith(str(bench.folder)) for word in command) and str(COMMAND) not in command
        if verb in command and is_ours:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks processes up in /proc")
def test_kills_change_no_byte(bench: Bench, wrong: list[str]) -> None:
    """Of the simulator, of the policy, then of the orchestrator, each in the middle of an episode."""
    whole = ("-m", "patient", "--episodes", "12", "--seed", "3", *REQUEST, *wrong)
    gate = bench.folder / "site/lary_wrong/gate"
    gate.write_bytes(bytes(12))
    bench.run(*whole)
    undisturbed = bench.file("patient").read_bytes()
    journal = bench.file("patient").with_name("episodes.jsonl")
    bench.file("patient").unlink()
    journal.unlink()
    gate.write_bytes(b"")
    with bench.start(*whole) as running:
        for verb, lines in (("evaluate", 3), ("act", 5), ("orchestrator", 7)):
            gate.write_bytes(bytes(lines))
            while not (journal.exists() and len(journal.read_bytes().splitlines()) >= lines):
                assert running.poll() is None, running.communicate()
                time.sleep(0.005)
            killed = [running.pid] if verb == "orchestrator" else processes(bench, verb)
            for pid in killed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while verb != "orchestrator" and not set(processes(bench, verb)) - set(killed):
                assert running.poll() is None, running.communicate()
                time.sleep(0.005)
        _, err = running.communicate()
    assert err.count("starting it again") == 2
    # Nobody looks after what it started any more: it ends by itself.
    deadline = time.monotonic() + 280
    while (left := processes(bench, "act") + processes(bench, "evaluate")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    gate.write_bytes(bytes(12))
    bench.run(*whole)
    assert journal.with_name("evaluation.json").read_bytes() == undisturbed
    assert processes(bench, "act") == []


def test_a_policy_that_breaks_says_how(bench: Bench, scripted: EvaluationResult) -> None:
    """Its end is the pair's, and not what the simulator saw of it."""
    recorded = bench.file("scripted").parent / "recorded" / TASK / "0.npy"
    good = recorded.read_bytes()
    try:
        recorded.write_bytes(b"not an array")
        _, err = bench.run("-m", "replay", "--episodes", "1", "--seed", "5", "--attempts", "1", *REQUEST, code=1)
    finally:
        recorded.write_bytes(good)
    assert "the policy: exit 1" in err


def test_the_plan_is_printed_as_json(bench: Bench) -> None:
    done = bench.here("-m", "zero", "--episodes", "2", "--use", "3", "--plan", *REQUEST)
    simulator, policy = json.loads(done.stdout)["jobs"]
    values: dict[str, Any] = simulator["values"]
    assert (values["states"], values["protocol"]["use"], policy["policy"]) == ([0, 1], 3, "zero")
