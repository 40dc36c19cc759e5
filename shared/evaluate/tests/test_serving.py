"""Policies that serve one task after the other, whatever dies: real pairs of processes that are none."""

import itertools
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lary_evaluate.pair import starting
from lary_evaluate.planning import ACT, EVALUATE
from lary_evaluate.serving import Policies
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import Running
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import Job, Prepared
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.evaluation import ActJob, EpisodeProtocol, EvaluateJob, EvaluateValues
from lary_schema.events import Failed, Idle, Progress, to_line
from lary_schema.mounts import Mounts

KILLED, PEER_LOST = 137, 8
ENDS = ("good", "simulator dies", "policy dies", "policy dies when it waits", "knows nothing of more tasks")


class Fake:
    """A process whose lines and end a test decides."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.over = threading.Event()
        self.code = 0

    def say(self, line: str) -> None:
        self._lines.put(line)

    def end(self, code: int) -> None:
        if not self.over.is_set():
            self.code = code
            self.over.set()
            self._lines.put(None)

    def lines(self) -> Iterator[str]:
        yield from iter(self._lines.get, None)

    def wait(self) -> int:
        self.over.wait()
        return self.code

    def stop(self, grace_s: float = 10) -> None:
        self.end(143)


@dataclass
class World:
    """All that was started: policies by their sockets' folders, and what each simulator met."""

    policies: dict[Path, Fake] = field(default_factory=dict)
    met: list[Path] = field(default_factory=list)
    simulators: list[Fake] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """Of the simulators that are still to come."""

    def start(self, job: Job, slot: Slot, stderr: Path) -> Running:
        fake = Fake()
        if job.verb == "act":
            assert job.env["LARY_MORE_TASKS"] == "1"
            assert job.mounts.out.is_dir()
            assert job.mounts.out not in self.policies, "two policies have one socket"
            self.policies[job.mounts.out] = fake
            return fake
        self.met.append(job.mounts.latents)
        self.simulators.append(fake)
        policy = self.policies[job.mounts.latents]
        assert not policy.over.is_set(), "a simulator was sent to a policy that has ended"
        if (end := self.ends.pop(0)) != "later":
            self.act(end, policy, fake)
        return fake

    def act(self, end: str, policy: Fake, simulator: Fake) -> None:
        simulator.say(to_line(Progress(job="s", done=1, total=1, per_second=1)))
        if end == "simulator dies":
            simulator.end(KILLED)
        elif end == "policy dies":
            policy.say(to_line(Failed(job="p", code=1, message="broken")))
            policy.end(KILLED)
            simulator.end(PEER_LOST)
        elif end == "knows nothing of more tasks":
            policy.end(0)
            simulator.end(0)
        else:
            policy.say(to_line(Idle(job="p")))
            simulator.end(0)


def jobs(tmp_path: Path, policy: str, task: str) -> tuple[Job, Job]:
    image = Prepared(ImageSource(ImageCard(name="i", kind="simulator", module="m"), None), "i", None, "i")
    values = EvaluateValues(
        policy=policy, policy_code_sha256="p", benchmark="b", benchmark_code_sha256="b", task=task, states=(0,),
        seed=0, protocol=EpisodeProtocol(horizon=1, settle=0),
    )  # fmt: skip
    mounts = Mounts(data=tmp_path, weights=tmp_path, latents=tmp_path, job=tmp_path, out=tmp_path)
    simulator = EvaluateJob(id=f"evaluate.{policy}.{task}", image="i", values=values)
    acting = ActJob(id=f"act.{policy}.{task}", image="i", policy=policy)
    return (
        EVALUATE.job(simulator.id, simulator, image, mounts, run="r"),
        ACT.job(acting.id, acting, image, mounts, run="r", env={"LARY_MORE_TASKS": "1"}),
    )


class Bench:
    def __init__(self, tmp_path: Path, slots: int = 1) -> None:
        self.world, self._folder = World(), tmp_path
        self.serving = Policies(self.world.start, slots, tmp_path / "sockets")

    def begin(self, policy: str, task: str, end: str, slot: Slot = Slot()) -> Running:  # noqa: B008 - frozen
        simulator, acting = jobs(self._folder, policy, task)
        self.world.ends.append(end)
        begin = starting(self.world.start, {simulator.id: acting}, self.serving)
        return begin(simulator, slot, self._folder / f"{task}.1.stderr.log")

    def run(self, policy: str, task: str, end: str) -> tuple[int, str]:
        """Exit code and what was said last, as the scheduler hears it."""
        pair = self.begin(policy, task, end)
        said = list(pair.lines())
        code = pair.wait()
        pair.stop(grace_s=0)
        return code, said[-1]

    def living(self) -> list[Path]:
        return [folder for folder, fake in self.world.policies.items() if not fake.over.is_set()]


@pytest.mark.parametrize("first", ENDS)
def test_every_order_of_ends(tmp_path: Path, first: str) -> None:
    """A policy goes on to the next task where its pair ended well and it lives; else there is a new one."""
    for number, others in enumerate(itertools.product(ENDS, repeat=2)):
        _in_order(tmp_path / str(number), (first, *others))


def _in_order(folder: Path, ends: tuple[str, ...]) -> None:
    folder.mkdir()
    bench, expected = Bench(folder), 0
    for number, end in enumerate(ends):
        before = ends[number - 1] if number else ""
        expected += before != "good"
        code, said = bench.run("a", f"t{number}", end)
        assert code == {"simulator dies": KILLED, "policy dies": KILLED}.get(end, 0)
        assert ("the policy: broken" in said) == (end == "policy dies")
        assert len(bench.world.policies) == expected
        assert bench.living() == (bench.world.met[-1:] if end in ("good", "policy dies when it waits") else [])
        if end == "policy dies when it waits":
            bench.world.policies[bench.world.met[-1]].end(KILLED)
            while bench.world.met[-1].exists():
                threading.Event().wait(0.001)
    bench.serving.rest()
    assert bench.living() == []
    assert list((folder / "sockets").iterdir()) == []


def test_a_later_task_s_log_says_where_the_policy_s_log_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for task in ("t0", "t1"):
        bench.run("a", task, "good")
    assert str(tmp_path / "t0.1.policy.stderr.log") in (tmp_path / "t1.1.policy.stderr.log").read_text()


def test_another_policy_and_another_device_have_their_own(tmp_path: Path) -> None:
    """One that waits makes room where there is none for it, and on a GPU always."""
    bench = Bench(tmp_path)
    for policy in ("a", "b", "b", "a"):
        bench.run(policy, "t", "good")
        assert len(bench.living()) == 1
    assert len(bench.world.policies) == 3
    gpus = [Slot(Device("cuda", (f"gpu{n}",), "g")) for n in range(2)]
    bench = Bench(tmp_path / "two", slots=2)
    for policy, gpu, living in (("a", 0, 1), ("a", 1, 2), ("a", 1, 2), ("b", 0, 2), ("a", 1, 2)):
        pair = bench.begin(policy, "t", "good", gpus[gpu])
        list(pair.lines())
        assert len(bench.living()) == living
    assert len(bench.world.policies) == 3


def test_two_at_once_never_share_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=2)
    pairs = [bench.begin("a", f"t{number}", "later") for number in range(2)]
    assert len(set(bench.world.met)) == 2
    for pair, met, simulator in zip(pairs, bench.world.met, bench.world.simulators, strict=True):
        bench.world.act("good", bench.world.policies[met], simulator)
        list(pair.lines())
    assert len(bench.living()) == 2
    bench.begin("a", "t2", "good")
    assert len(bench.world.policies) == 2


def test_a_simulator_that_cannot_be_started_takes_its_policy_with_it(tmp_path: Path) -> None:
    world = World()

    def start(job: Job, slot: Slot, stderr: Path) -> Running:
        if job.verb == "evaluate":
            raise ContractError("no such image")
        return world.start(job, slot, stderr)

    serving = Policies(start, 1, tmp_path / "sockets")
    simulator, acting = jobs(tmp_path, "a", "t")
    with pytest.raises(ContractError, match="no such image"):
        starting(start, {simulator.id: acting}, serving)(simulator, Slot(), tmp_path / "t.1.stderr.log")
    (policy,) = world.policies.values()
    assert policy.over.is_set()


def test_what_an_earlier_call_left_of_its_sockets_goes(tmp_path: Path) -> None:
    (tmp_path / "sockets/7").mkdir(parents=True)
    Policies(World().start, 1, tmp_path / "sockets")
    assert not (tmp_path / "sockets").exists()
