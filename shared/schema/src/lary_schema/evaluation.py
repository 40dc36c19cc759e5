"""Policies in closed loop: the jobs `act` and `evaluate`, and what an evaluation leaves.

The two jobs of a pair talk over a Unix socket (`lary_policy.wire`). The policy makes it in its `out` mount, the
socket's folder, which the simulator sees as its `latents` mount, read-only: to connect needs no more.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lary_schema.base import ContractError, Document, canonical_json, fingerprint
from lary_schema.cards import Key
from lary_schema.jobs import WeightFile, _Job

EVALUATION_FILE, EPISODES_FILE, RECORDED_FOLDER = "evaluation.json", "episodes.jsonl", "recorded"
"""Of an evaluation's folder: the result, written last; a line for each finished episode; actions, where recorded."""
VIDEOS_FOLDER = "videos"
"""Of a few episodes, made after the result, which does not depend on them."""
SOCKET = "policy.sock"
"""Name of the socket in its folder."""
MORE_TASKS = "LARY_MORE_TASKS"
"""Variable: `1` where a policy that heard good-bye may say `idle` and wait for the simulator of another task."""
SCRIPTED = "scripted"
"""The policy that a simulator brings. It sees the simulator's state, so it runs in the simulator's process."""
REPLAY = "replay"
"""The policy that sends recorded actions."""
BASELINES = ("random", REPLAY, "zero")
"""Policies that fit every benchmark; they run in the benchmark's own image."""
BLIND = (SCRIPTED, *BASELINES)
"""Policies that look at no picture: their episodes are the same by whatever pictures are drawn."""

LONGEST_CHUNK = 1024
"""Actions that a policy may send at once."""

Fault = Literal["bad_actions", "refused", "policy_timeout", "simulator_error"]
"""Why an episode ended early. `bad_actions`: not finite, another shape, more than the limits allow; `refused`: the
policy said that it cannot go on; both are the policy's failures. `policy_timeout` and `simulator_error` are not: such
an episode counts as not evaluated, and later runs try it again."""
NOT_EVALUATED: frozenset[Fault] = frozenset({"policy_timeout", "simulator_error"})


class EpisodeProtocol(Document):
    """How an episode goes. Published evaluations differ here, so all of it stands in the result."""

    horizon: int = Field(ge=1)
    """Steps after which it has failed; settle steps are not counted."""
    settle: int = Field(ge=0)
    """Idle steps first."""
    first: int = Field(default=0, ge=0)
    """Index in a chunk of the first action that is done."""
    use: int | None = Field(default=None, ge=1)
    """How many of a chunk's actions are done before the next one is requested; None: all from `first` on."""
    hold: int = Field(default=0, ge=0)
    """Steps that the policy goes on after the first success, before it is looked whether the task is still done."""


class EvaluateValues(Document):
    """What determines an evaluation's result (on one kind of machine)."""

    policy: Key
    policy_code_sha256: str
    weights: dict[Key, str] = Field(default_factory=dict)
    """sha256 by name; of a replay, that of the task's recording."""
    benchmark: Key
    benchmark_code_sha256: str
    task: Key
    states: tuple[int, ...] = Field(min_length=1)
    """Numbers of the initial states, an episode each."""
    seed: int = Field(ge=0)
    protocol: EpisodeProtocol
    renderer: str | None = None
    """What draws the pictures that the policy sees; None: it sees none, or they are the same everywhere."""
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions of the simulator's libraries that its card names."""

    @property
    def fingerprint(self) -> str:
        """Of what decides an episode; `states` only says which there are, so that more can be added."""
        unset = {name for name in ("renderer", "libraries") if not getattr(self, name)}
        return fingerprint(self.model_dump(mode="json", exclude={"states", *unset}))

    @property
    def name(self) -> str:
        """Of its folder, below those of the benchmark and the policy."""
        return f"{self.task}.s{self.seed}.{self.fingerprint[:12]}"

    def episode_seed(self, state: int) -> int:
        """Of all chance in the episode from this state: the same for every policy. Below 2 ** 31."""
        named = canonical_json([self.seed, self.benchmark, self.task, state])
        return int.from_bytes(hashlib.sha256(named).digest()[:4], "big") >> 1


class _Waiting(_Job):
    connect_timeout_s: float = Field(default=600, gt=0)
    """For the other side to come: a large policy takes minutes to load."""


class ActJob(_Waiting):
    """Answer a simulator's observations with actions until it says good-bye."""

    kind: Literal["act"] = "act"
    policy: Key
    weights: tuple[WeightFile, ...] = ()


class EvaluateJob(_Waiting):
    """Run the episodes that are not there yet, then write the result."""

    kind: Literal["evaluate"] = "evaluate"
    values: EvaluateValues
    act_timeout_s: float = Field(default=60, gt=0)
    """For one chunk."""
    record: bool = False
    """Keep the actions of every episode, for `replay`."""
    again: bool = False
    """Try failures that are the policy's once more, too."""

    @property
    def fingerprint(self) -> str:
        return self.values.fingerprint


class VideoJob(_Job):
    """Do recorded episodes of a finished evaluation once more, action by action, and keep what is seen."""

    kind: Literal["video"] = "video"
    values: EvaluateValues
    episodes: dict[int, str] = Field(min_length=1)
    """State -> `trace_sha256` of each."""


def recorded_weight(task: str) -> str:
    """Name of the weight that `replay` is given: the recorded actions of a task, `STATE.npy` each."""
    return f"{REPLAY}-{task}"


def video_file(state: int, trace_sha256: str) -> str:
    """Path in an evaluation's folder. The name is the very episode's: one that went otherwise has another."""
    return f"{VIDEOS_FOLDER}/{state}-{trace_sha256[:16]}.mp4"


class Episode(Document):
    """One episode: a line of `episodes.jsonl`."""

    state: int
    success: bool
    """The benchmark's own rule, at any step."""
    held: bool | None = None
    """Whether the task was still done `hold` steps later; None: not looked, or no success."""
    steps: int
    """Actions done until success, a fault or the horizon."""
    fault: Fault | None = None
    detail: str = ""
    trace_sha256: str
    """Of every action and every state of the simulator after it, as bytes: equal where nothing differs at all."""

    @model_validator(mode="after")
    def _faults_do_not_succeed(self) -> Self:
        if self.fault and self.success:
            raise ValueError("an episode with a fault has not succeeded")
        return self

    @property
    def video(self) -> str:
        """Where its video lies in the evaluation's folder."""
        return video_file(self.state, self.trace_sha256)

    @property
    def video_fault(self) -> str:
        """Where it says why there is no video, once it was tried in vain."""
        return str(Path(self.video).with_suffix(".txt"))

    @property
    def evaluated(self) -> bool:
        return self.fault not in NOT_EVALUATED


def journal_head(fingerprint: str) -> str:
    """The first line of an evaluation's `episodes.jsonl`."""
    return json.dumps({"fingerprint": fingerprint}) + "\n"


def journal_episodes(path: Path, fingerprint: str) -> list[Episode]:
    """The finished episodes of a journal, the first one of each state; none where it is another evaluation's.

    A line that a kill cut is left out.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    head = journal_head(fingerprint)
    done: dict[int, Episode] = {}
    # Lines end by a newline alone: what a policy says may hold other characters that `str.splitlines` ends a line at.
    for line in text.removeprefix(head).split("\n")[:-1] if text.startswith(head) else ():
        with suppress(ContractError, ValueError):
            episode = Episode.parse(json.loads(line), str(path))
            done.setdefault(episode.state, episode)
    return list(done.values())


class EvaluationResult(Document):
    """`evaluation.json`: all episodes of one policy on one task with one seed. The same job gives the same bytes."""

    version: Literal[1] = 1
    fingerprint: str
    values: EvaluateValues
    episodes: tuple[Episode, ...]
    """By state, as `values.states`."""
    simulator_image: str
    simulator_image_digest: str | None = None
    code_revision: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions in the simulator's environment."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.fingerprint != self.values.fingerprint:
            raise ValueError("fingerprint is not that of values")
        if tuple(episode.state for episode in self.episodes) != self.values.states:
            raise ValueError("episodes are not those of values.states")
        return self
