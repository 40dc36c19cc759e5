"""Who says what: hello, then for each episode reset, and observation and actions in turn, then good-bye.

The simulator speaks first, always, and the policy replies once to each message. After a fault the simulator closes the
connection and says hello on a new one: nothing of an earlier exchange can be taken for a later one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError, Document, PeerLostError
from lary_schema.cards import TensorSpec
from numpy.typing import NDArray

from lary_policy.policy import BadActionsError, EpisodeStart, Observation, Policy, Space
from lary_policy.simulator import SimulatorError
from lary_policy.wire import BadMessageError, Channel, Message, SilentError, accept, connect, listen, to_bytes

VERSION = 1
HELLO_TIMEOUT_S = 60.0
LONGEST_TEXT = 2000
"""Of an error, which has to fit into a header."""


class RefusedError(ContractError):
    """The policy says that it cannot go on."""


class Hello(Document):
    """What a simulator says of itself first."""

    protocol: int
    benchmark: str
    task: str
    observations: dict[str, TensorSpec]
    actions: tuple[str, ...]


class Reset(Document):
    """An episode begins."""

    instruction: str
    seed: int
    task: str
    state: int


# --- the simulator's side ---------------------------------------------------------------------


class Local:
    """A policy in this process; it may refuse as one elsewhere."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def begin(self, episode: EpisodeStart) -> None:
        """Raises RefusedError."""
        with _refusing():
            self._policy.begin(episode)

    def act(self, observation: Observation) -> NDArray[Any]:
        """Raises RefusedError."""
        with _refusing():
            return self._policy.act(observation)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ContractError as error:
        raise RefusedError(f"the policy says: {error}") from None


class Remote:
    """A policy in another process."""

    def __init__(self, socket: Path, space: Space, connect_timeout_s: float, act_timeout_s: float) -> None:
        """Raises ContractError where the policy refuses the simulator, PeerLostError where there is none."""
        self._socket, self._space = socket, space
        self._connect_s, self._act_s = connect_timeout_s, act_timeout_s
        self._channel: Channel | None = None
        self._wants: tuple[str, ...] = ()
        self._number = 0
        """Of observations that were sent."""

    def wants(self) -> tuple[str, ...]:
        """Names of the observations that it reads. Raises ContractError and PeerLostError, as its hello."""
        with self._or_anew():
            return self._wants

    def begin(self, episode: EpisodeStart) -> None:
        """Raises RefusedError, BadMessageError and PeerLostError; after each of them the next `begin` connects anew."""
        with self._or_anew() as channel:
            self._exchange(channel, Message("reset", asdict(episode)), "ready", self._act_s)

    def act(self, observation: Observation) -> NDArray[Any]:
        """Raises as `begin`, BadActionsError where there is no array of actions, and SimulatorError where the simulator
        shows something else than it said at hello: a policy may bring it to its own size without a word."""
        with self._or_anew() as channel:
            self._number += 1
            message = Message("observation", {"number": self._number}, self._seen(observation))
            reply = self._exchange(channel, message, "actions", self._act_s)
            if set(reply.arrays) != {"actions"}:
                raise BadActionsError(f"arrays {sorted(reply.arrays)} for actions")
            return reply.arrays["actions"]

    def _seen(self, observation: Observation) -> dict[str, NDArray[Any]]:
        for name in self._wants:
            spec, found = self._space.observations[name], observation.get(name)
            here = None if found is None else (found.dtype.name, found.shape)
            if here != (spec.dtype, spec.shape):
                said = "missing" if here is None else f"{here[0]} {here[1]}"
                raise SimulatorError(f"observation {name} is {said}; the card says {spec.dtype} {spec.shape}")
        return {name: observation[name] for name in self._wants}

    def close(self) -> None:
        """Say good-bye, after a fault on a new connection. A policy that has gone already is no fault any more."""
        with suppress(PeerLostError):
            self._channel = self._channel or connect(self._socket, 0)
            self._channel.send(Message("bye"), HELLO_TIMEOUT_S)
        self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @contextmanager
    def _or_anew(self) -> Iterator[Channel]:
        try:
            self._channel = self._channel or self._connected()
            yield self._channel
        except ContractError:
            self._drop()
            raise

    def _connected(self) -> Channel:
        channel = connect(self._socket, self._connect_s)
        space = self._space
        hello = Hello(protocol=VERSION, **{**asdict(space), "observations": space.observations})
        try:
            reply = self._exchange(channel, Message("hello", hello.model_dump(mode="json")), "welcome", HELLO_TIMEOUT_S)
            if reply.fields.get("protocol") != VERSION:
                raise ContractError(f"protocol version {str(reply.fields.get('protocol'))[:20]}; here it is {VERSION}")
            self._wants = _wanted(reply.fields.get("wants"), space)
        except PeerLostError as error:
            channel.close()
            raise PeerLostError(f"at hello: {error}") from None
        except ContractError as error:
            # No fault of an episode: there will be none.
            channel.close()
            raise ContractError(f"the policy and the simulator do not go together: {error}") from None
        return channel

    @staticmethod
    def _exchange(channel: Channel, message: Message, expected: str, timeout_s: float) -> Message:
        """Raises BadMessageError where the reply may be another message's."""
        _refuse_more(channel)
        channel.send(message, timeout_s)
        reply = channel.receive(timeout_s)
        _refuse_more(channel)
        if reply.kind == "error":
            raise RefusedError(f"{channel.peer} says: {str(reply.fields.get('message'))[:500]}")
        if reply.kind != expected:
            raise BadMessageError(
                f"{channel.peer} replied {reply.kind[:40]!r} to {message.kind}; {expected} is expected"
            )
        number = message.fields.get("number")
        if reply.fields.get("number", number) != number:
            raise BadMessageError(f"{channel.peer} replied to another observation than the last one")
        return reply


def _refuse_more(channel: Channel) -> None:
    """Of two replies to one message, the second would be taken for the reply to the next one."""
    if channel.has_more():
        raise BadMessageError(f"{channel.peer} sent more than one reply to a message")


def _wanted(names: Any, space: Space) -> tuple[str, ...]:
    known = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
    if known is None or not set(known) <= set(space.observations):
        have = ", ".join(space.observations)
        raise ContractError(f"the policy wants observations {str(names)[:200]}; {space.benchmark} has {have}")
    return tuple(known)


# --- the policy's side ------------------------------------------------------------------------


def serve(
    policy: Policy,
    socket: Path,
    connect_timeout_s: float,
    idle_timeout_s: float,
    another: Callable[[], bool] = lambda: False,
) -> None:
    """Answer simulators until one says good-bye, and `another`, called then, says that no other one may come.

    One that goes without a word may come again. Raises PeerLostError where none comes, or one says nothing in time.
    """
    with listen(socket) as listening:
        while True:
            channel = accept(listening, connect_timeout_s)
            try:
                if _answer(policy, channel, idle_timeout_s) and not another():
                    return
            except SilentError:
                raise
            except (PeerLostError, BadMessageError):
                continue
            finally:
                channel.close()


def _answer(policy: Policy, channel: Channel, idle_s: float) -> bool:
    """True after a good-bye."""
    while True:
        message = channel.receive(idle_s)
        if message.kind == "bye":
            return True
        try:
            reply = _reply(policy, message)
        except BadMessageError:
            raise
        except ContractError as error:
            # Names of files may hold bytes that are no text.
            text = str(error).encode(errors="replace").decode()
            reply = Message("error", {"message": text[:LONGEST_TEXT]})
        channel.send(reply, HELLO_TIMEOUT_S)


def _reply(policy: Policy, message: Message) -> Message:
    if message.kind == "hello":
        wants = policy.fit(_space(message.fields))
        return Message("welcome", {"protocol": VERSION, "policy": policy.key, "wants": list(wants)})
    if message.kind == "reset":
        policy.begin(EpisodeStart(**Reset.parse(message.fields, "reset").model_dump()))
        return Message("ready")
    if message.kind == "observation":
        number = {name: value for name, value in message.fields.items() if name == "number"}
        return Message("actions", number, {"actions": _actions(policy, message.arrays)})
    raise BadMessageError(f"the simulator sent {message.kind!r}; hello, reset, observation and bye are known")


def _actions(policy: Policy, observation: Observation) -> NDArray[Any]:
    """Raises ContractError as the policy does, and where they cannot be sent: the simulator has to hear why."""
    actions = np.asarray(policy.act(observation))
    try:
        to_bytes(Message("actions", arrays={"actions": actions}))
    except BadMessageError as error:
        raise BadActionsError(str(error)) from None
    return actions


def _space(fields: dict[str, Any]) -> Space:
    if fields.get("protocol") != VERSION:
        found = str(fields.get("protocol"))[:20]
        raise ContractError(f"protocol version {found}, this policy has {VERSION}: build both images anew")
    hello = Hello.parse(fields, "hello")
    return Space(hello.benchmark, hello.task, hello.observations, hello.actions)
