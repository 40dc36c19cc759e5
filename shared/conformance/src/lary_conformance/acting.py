"""`act`: a policy at the socket, talked to by a simulator that is none."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lary_orch.runtimes.describe import parse_card
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.weights.index import WeightSet
from lary_schema.base import ContractError, ExitCode
from lary_schema.cards import BenchmarkCard, PolicyCard
from lary_schema.evaluation import MORE_TASKS, SOCKET, ActJob
from lary_schema.events import Finished, Idle, Started
from lary_schema.jobs import WeightFile
from lary_schema.linked import linked_folder
from lary_schema.mounts import Mounts

from lary_conformance.case import Case, Skipped, expect, first_line
from lary_conformance.policies import Ready, ready
from lary_conformance.refusals import refused
from lary_conformance.simulating import PROTOCOL, Door, Reply, Simulating, connect, floats
from lary_conformance.subject import RUN, Ran, Subject, follow

LIMIT_S = 300.0
"""For the policy to load, and for each reply."""
LOST_S = 2.0
"""How long a policy waits whose simulator does not come back; in the check of that alone."""
ENDS_S = 1.0
"""For a policy to end by itself after a breach."""
STEPS = 3
SEED = 7
NO_VARIABLES: Mapping[str, str] = {}

Talk = Callable[[Door], str]
"""What is said to a policy at this socket; what was seen, for people."""


def cases(subject: Subject) -> Iterator[Case]:
    for card in subject.policies:
        for one in ready(subject, card):
            yield Case("policy", one.of, partial(_described, subject, card, one), "look at its card in image.yaml")
            if one.weights:
                yield Case(
                    "missing weights", one.of, partial(_missing, subject, one), "look for weights before the socket"
                )
            for check, run, remedy in _CHECKS:
                yield Case(check, one.of, partial(_tried, subject, one, run), remedy)
    if subject.policies and not subject.card.models:
        yield Case(
            "isolation", "", partial(_isolated, subject), "write to /tmp and /out alone; need no name of the user"
        )


def _described(subject: Subject, card: PolicyCard, one: Ready) -> str:
    if not card.serves(one.key):
        one.find()
    reply = subject.runtime.query(subject.prepared, "describe", "--policy", one.key)
    found = parse_card(reply, f"describe --policy {one.key}").policies
    expect(len(found) == 1, f"describe --policy {one.key} has {len(found)} policies, one is expected")
    expect(found[0].code_sha256 is not None, "no code_sha256: its results could not be traced to its code")
    expect(found[0].serves(one.key), f"describe --policy {one.key} describes {found[0].key}")
    return found[0].title


def _tried(subject: Subject, one: Ready, run: "Callable[[Trial], str]") -> str:
    weights = one.find()
    fitting = [card for card in subject.benchmarks if one.actions in (None, len(card.actions))]
    if not fitting:
        raise Skipped(f"no benchmark of the catalog has actions of {one.actions} numbers; --catalog names more")
    return run(Trial(subject, one.key, weights, tuple(fitting)))


class Trial:
    """One policy with its weights, and the benchmarks that it may fit."""

    def __init__(self, subject: Subject, key: str, weights: WeightSet, benchmarks: tuple[BenchmarkCard, ...]) -> None:
        self.subject, self.key, self.weights, self.benchmarks = subject, key, weights, benchmarks

    def welcomed(self, door: Door) -> tuple[Simulating, BenchmarkCard, list[str]]:
        """A connection at which the policy has said welcome to one of the benchmarks, and what it wants to see."""
        refusals = []
        for card in self.benchmarks:
            at = connect(door, LIMIT_S)
            reply = at.hello(card)
            if reply.kind == "welcome":
                return at, card, _wants(reply, card)
            expect(reply.kind == "error", f"`{reply.kind}` after `hello`; `welcome` or `error` is expected")
            refusals.append(f"{card.key}: {str(reply.fields.get('message'))[:200]}")
            at.close()
        raise ContractError("it fits no benchmark of the catalog: " + "; ".join(refusals))

    def run(
        self, talk: Talk, connect_timeout_s: float = LIMIT_S, env: Mapping[str, str] = NO_VARIABLES
    ) -> tuple[Ran, str]:
        """Start the policy and talk to it. Raises what `talk` raises, with what the policy said of its end."""
        document = ActJob(
            id=f"act.{self.key}", image=self.subject.prepared.ref, image_digest=self.subject.prepared.digest,
            device="cuda" if self.subject.device.kind == "cuda" else "cpu", threads=1, policy=self.key,
            weights=self.weights.files, connect_timeout_s=connect_timeout_s,
        )  # fmt: skip
        return launched(self.subject, document, talk, self.weights.root, env)


def launched(
    subject: Subject, document: ActJob, talk: Talk, weights: Path, env: Mapping[str, str] = NO_VARIABLES
) -> tuple[Ran, str]:
    """A policy's job from start to end, `talk` at its socket meanwhile."""
    job, log = _job(subject, document, weights)
    running = subject.runtime.start(replace(job, env=env), Slot(subject.device, 1), log)
    door = Door(job.mounts.out / SOCKET, threading.Event())
    said: list[str] = []
    failed: list[ContractError] = []

    def talking() -> None:
        try:
            said.append(talk(door))
        except ContractError as error:
            failed.append(error)
            # One that broke has more to say of it than that its connection closed.
            door.ended.wait(ENDS_S)
            running.stop(grace_s=1)

    thread = threading.Thread(target=talking, daemon=True)
    thread.start()
    ran = follow(lambda: running, log)
    door.ended.set()
    thread.join(LIMIT_S)
    if failed:
        own = ran.error if ran.code > 0 else ""
        raise ContractError(f"{failed[0]}{f' (it ended with exit {ran.code}: {own})' if own else ''}")
    return ran, "".join(said)


def _job(subject: Subject, document: ActJob, weights: Path) -> tuple[Job, Path]:
    folder = subject.job_folder(document.to_json())
    out = Path(tempfile.mkdtemp(prefix="out-", dir=folder))
    # Whoever it runs as makes the socket there.
    out.chmod(0o777)
    mounts = Mounts(data=folder, weights=weights, latents=folder, job=folder, out=out)
    job = Job(
        id=f"{RUN}.{folder.name}", verb="act", title="act", mounts=mounts, image=subject.prepared, run=RUN,
        reads=("weights",), writes="out",
    )  # fmt: skip
    return job, folder / "stderr.log"


def _wants(reply: Reply, card: BenchmarkCard) -> list[str]:
    protocol, wants = reply.fields.get("protocol"), reply.fields.get("wants")
    expect(protocol == PROTOCOL, f"`welcome` says protocol {protocol}; it is {PROTOCOL}")
    good = isinstance(wants, list) and set(wants) <= set(card.observations)
    expect(good, f"it wants {wants}; {card.key} has {', '.join(card.observations)}")
    assert isinstance(wants, list)
    return wants


def _ended_well(ran: Ran) -> None:
    expect(ran.code == ExitCode.DONE, f"exit {ran.code} after good-bye, 0 expected: {ran.error}")
    expect(not ran.strays, f"stdout holds lines that are no events: {ran.strays[:3]}")
    kinds = [type(event) for event in ran.events]
    expect(kinds.count(Started) == 1, f"{kinds.count(Started)} `started` events, one expected")
    expect(bool(kinds) and kinds[-1] is Finished, "the last event is not `finished`")


# --- the checks -------------------------------------------------------------------------------


def _acts(trial: Trial) -> str:
    """Two episodes of one seed, then good-bye."""

    def talk(door: Door) -> str:
        at, card, wants = trial.welcomed(door)
        first, second = (_episode(at, card, wants) for _ in range(2))
        at.bye()
        expect(at.is_closed(), "it sent more than one reply to a message, or did not close the connection at good-bye")
        expect(first == second, "two episodes with one seed and the same observations have other actions")
        return f"{card.key}, reads {', '.join(wants) or 'nothing'}, chunks of {len(first[0]) // len(card.actions)}"

    ran, said = trial.run(talk)
    _ended_well(ran)
    return said


def _episode(at: Simulating, card: BenchmarkCard, wants: list[str]) -> list[list[float]]:
    reply = at.reset(card, SEED)
    expect(reply.kind == "ready", f"`{reply.kind}` after `reset`: {str(reply.fields.get('message', ''))[:300]}")
    return [floats(at.observation(card, wants, step), len(card.actions)) for step in range(STEPS)]


def _comes_again(trial: Trial) -> str:
    """A simulator that closes the connection in the middle, as after a fault, and says hello on a new one."""

    def talk(door: Door) -> str:
        at, card, wants = trial.welcomed(door)
        at.reset(card, SEED)
        at.close()
        with _welcome(trial, door) as again:
            _episode(again, card, wants)
        return "hello on a new connection, a whole episode"

    ran, said = trial.run(talk)
    _ended_well(ran)
    return said


def _other_protocol(trial: Trial) -> str:
    def talk(door: Door) -> str:
        at = connect(door, LIMIT_S)
        reply = at.hello(trial.benchmarks[0], PROTOCOL + 98)
        at.close()
        expect(reply.kind == "error", f"`{reply.kind}` after a hello of protocol {PROTOCOL + 98}; `error` is expected")
        with _welcome(trial, door):
            return first_line(str(reply.fields.get("message")))

    ran, said = trial.run(talk)
    _ended_well(ran)
    return said


def _no_message(trial: Trial) -> str:
    def talk(door: Door) -> str:
        at = connect(door, LIMIT_S)
        at.raw(b"GET / HTTP/1.1\r\n\r\n" + bytes(64))
        closed = at.is_closed()
        at.close()
        expect(closed, "it goes on after bytes that are no message; nothing after them can be read")
        with _welcome(trial, door):
            return "the connection is closed, the next one welcome"

    ran, said = trial.run(talk)
    _ended_well(ran)
    return said


@contextmanager
def _welcome(trial: Trial, door: Door) -> Iterator[Simulating]:
    """A connection with a whole hello, and good-bye at its end."""
    at, *_ = trial.welcomed(door)
    yield at
    at.bye()
    at.close()


def _left_alone(trial: Trial) -> str:
    """A simulator that dies: nobody says good-bye, and nobody comes again."""

    def talk(door: Door) -> str:
        at, card, _ = trial.welcomed(door)
        at.reset(card, SEED)
        at.close()
        return ""

    ran, _ = trial.run(talk, LOST_S)
    return refused(ran, ExitCode.PEER_LOST)


def _another_task(trial: Trial) -> str:
    """Where it may stay after good-bye: it ends well, or says `idle` and welcomes the next simulator."""

    def talk(door: Door) -> str:
        with _welcome(trial, door):
            pass
        try:
            with _welcome(trial, door):
                return "one process serves several tasks"
        except ContractError:
            if not door.ended.wait(ENDS_S):
                raise
            return "a process for each task"

    ran, said = trial.run(talk, LOST_S, {MORE_TASKS: "1"})
    if any(isinstance(event, Idle) for event in ran.events):
        refused(ran, ExitCode.PEER_LOST)
    else:
        _ended_well(ran)
    return said


_CHECKS: tuple[tuple[str, Callable[[Trial], str], str], ...] = (
    (
        "act",
        _acts,
        "compare its replies with docs/evaluate.md; draw from the seed of `reset` alone",
    ),
    ("act again", _comes_again, "wait for another connection when one closes without good-bye"),
    ("other protocol", _other_protocol, "reply `error` to a hello of another protocol, and wait for the next one"),
    ("no message", _no_message, "close a connection at which something else than a message came"),
    ("another task", _another_task, "after good-bye say `idle` and wait at the socket, or end with 0"),
    ("simulator lost", _left_alone, "end with 8 and an `error` event when no simulator came for connect_timeout_s"),
)


def _missing(subject: Subject, one: Ready) -> str:
    files = tuple(WeightFile(name=name, path="nowhere", sha256="0" * 64) for name in one.weights)
    document = ActJob(id=f"act.{one.key}", image=subject.prepared.ref, policy=one.key, weights=files)
    empty = linked_folder({}, subject.folder / "cache")
    ran, _ = launched(subject, document, lambda _: "", empty)
    return refused(ran, ExitCode.WEIGHTS)


def _isolated(subject: Subject) -> str:
    """Whether it gets as far as its socket."""
    if subject.unknown_user is None:
        raise Skipped(f"the {subject.runtime.name} runtime does not isolate")
    card = next((one for one in subject.policies if one.pattern is None and not one.weights), None)
    if card is None:
        raise Skipped("no policy without weights")
    document = ActJob(id=f"act.{card.key}", image=subject.prepared.ref, policy=card.key, connect_timeout_s=LOST_S)
    job, log = _job(subject, document, linked_folder({}, subject.folder / "cache"))
    ran = follow(partial(subject.unknown_user.start, job, Slot(subject.device, 1), log), log)
    expect(any(isinstance(event, Started) for event in ran.events), f"exit {ran.code} before `started`: {ran.error}")
    return "`act` as an unknown user, without network, on a read-only root"
