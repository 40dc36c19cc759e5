"""A policy and a simulator with a socket in between: each fault is the other side's clear error, and of one episode."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socketpair
from typing import Any

import numpy as np
import pytest
from lary_policy import EpisodeStart, Policy, Space
from lary_policy.policy import BadActionsError, Observation, checked
from lary_policy.simulator import SimulatorError
from lary_policy.talk import VERSION, Local, RefusedError, Remote, serve
from lary_policy.wire import (
    BODY_BYTES,
    BadMessageError,
    Channel,
    Message,
    SilentError,
    accept,
    connect,
    listen,
    to_bytes,
)
from lary_schema.base import ContractError, ExitCode, PeerLostError
from lary_schema.cards import TensorSpec
from numpy.typing import NDArray

SPACE = Space(
    "world", "task", {"image": TensorSpec(shape=(2, 2, 3), dtype="uint8"), "state": TensorSpec(shape=(2,))}, ("x", "y")
)
START = EpisodeStart("go left", 7, "task", 3)
SEEN = {"image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "state": np.array([0.1, -3], np.float32)}


class Echo(Policy):
    """Sends back what it was told and shown."""

    def fit(self, space: Space) -> tuple[str, ...]:
        assert space == SPACE
        return ("state",)

    def reset(self, instruction: str, seed: int) -> None:
        self.told = (instruction, seed)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        assert set(observation) == {"state"}
        assert self.told == ("go left", 7)
        return np.stack([observation["state"], np.float32(2) * observation["state"]])


@contextmanager
def served(
    policy: Policy, folder: Path, another: Callable[[], bool] = lambda: False, **limits: float
) -> Iterator[tuple[Path, list[BaseException]]]:
    """A policy that answers in a thread; the errors that it ended with."""
    errors: list[BaseException] = []
    times = {"connect_timeout_s": 280.0, "idle_timeout_s": 280.0} | limits

    def body() -> None:
        try:
            serve(policy, folder / "s", times["connect_timeout_s"], times["idle_timeout_s"], another)
        except ContractError as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    yield folder / "s", errors
    thread.join(280)
    assert not thread.is_alive()


def dismiss(socket: Path) -> None:
    """Say good-bye in the simulator's place."""
    channel = connect(socket, 280)
    channel.send(Message("bye"), 280)
    channel.close()


def remote(socket: Path, act_s: float = 280) -> Remote:
    return Remote(socket, SPACE, 280, act_s)


def test_an_episode_and_a_good_bye(tmp_path: Path) -> None:
    with served(Echo("echo"), tmp_path) as (socket, errors):
        there = remote(socket)
        for _ in range(2):
            there.begin(START)
            actions = there.act(SEEN)
            np.testing.assert_array_equal(actions, np.stack([SEEN["state"], 2 * SEEN["state"]]))
            assert actions.dtype == np.float32
        there.close()
    assert errors == []


def test_a_policy_that_cannot_go_on_may_begin_anew(tmp_path: Path) -> None:
    class Tired(Echo):
        acted = 0

        def act(self, observation: Observation) -> NDArray[np.float32]:
            self.acted += 1
            if self.acted == 1:
                raise ContractError("the gripper is out of sight")
            return super().act(observation)

    with served(Tired("tired"), tmp_path) as (socket, errors):
        there = remote(socket)
        there.begin(START)
        with pytest.raises(RefusedError, match="the policy says: the gripper is out of sight"):
            there.act(SEEN)
        there.begin(START)
        assert there.act(SEEN).shape == (2, 2)
        there.close()
    assert errors == []


def test_simulators_of_several_tasks_come_one_after_the_other(tmp_path: Path) -> None:
    """As long as `another` says so, a good-bye ends the task and not the policy; one that does not fit neither."""
    asked: list[int] = []

    def another() -> bool:
        asked.append(len(asked))
        return len(asked) < 3

    with served(Echo("echo"), tmp_path, another) as (socket, errors):
        for _ in range(3):
            there = remote(socket)
            there.begin(START)
            assert there.act(SEEN).shape == (2, 2)
            there.close()
    assert (asked, errors) == ([0, 1, 2], [])


def test_a_task_whose_last_episode_failed_ends_with_a_good_bye_too(tmp_path: Path) -> None:
    class Refuses(Echo):
        def act(self, observation: Observation) -> NDArray[np.float32]:
            raise ContractError("no")

    with served(Refuses("refuses"), tmp_path) as (socket, errors):
        there = remote(socket)
        there.begin(START)
        with pytest.raises(RefusedError):
            there.act(SEEN)
        there.close()
        # `served` waits for its end.
    assert errors == []
    there.close()


def test_a_policy_that_does_not_fit_is_no_fault_of_an_episode(tmp_path: Path) -> None:
    class Other(Echo):
        def fit(self, space: Space) -> tuple[str, ...]:
            raise ContractError("trained for 7 numbers")

    with served(Other("other"), tmp_path) as (socket, errors):
        with pytest.raises(ContractError, match=r"do not go together: the policy says: trained for 7") as caught:
            remote(socket).begin(START)
        dismiss(socket)
    assert not isinstance(caught.value, RefusedError | PeerLostError)
    assert errors == []


def test_a_policy_that_wants_what_is_not_shown(tmp_path: Path) -> None:
    class Blind(Echo):
        def fit(self, space: Space) -> tuple[str, ...]:
            return ("depth",)

    with served(Blind("blind"), tmp_path) as (socket, _):
        with pytest.raises(ContractError, match=r"wants observations \['depth'\]; world has image, state"):
            remote(socket).begin(START)
        dismiss(socket)


def test_a_simulator_that_goes_may_come_again(tmp_path: Path) -> None:
    with served(Echo("echo"), tmp_path) as (socket, errors):
        for gone in range(3):
            there = remote(socket)
            there.begin(START)
            if gone < 2:
                there._drop()
        assert there.act(SEEN).shape == (2, 2)
        there.close()
    assert errors == []


@pytest.mark.parametrize("first", ["nonsense", "hello", "reset"])
def test_a_simulator_that_is_none_does_not_end_the_policy(tmp_path: Path, first: str) -> None:
    with served(Echo("echo"), tmp_path) as (socket, errors):
        channel = connect(socket, 280)
        channel.send(Message(first, {"protocol": VERSION}), 280)
        if first == "nonsense":
            with pytest.raises(PeerLostError):
                channel.receive(280)
        else:
            assert channel.receive(280).kind == "error"
        channel.close()
        there = remote(socket)
        there.begin(START)
        there.close()
    assert errors == []


def test_a_simulator_that_says_nothing(tmp_path: Path) -> None:
    with served(Echo("echo"), tmp_path, idle_timeout_s=0.05) as (socket, errors):
        channel = connect(socket, 280)
    channel.close()
    assert [str(error) for error in errors] == ["the simulator sent nothing whole for 0.05 s"]
    assert isinstance(errors[0], SilentError)
    assert errors[0].exit_code == ExitCode.PEER_LOST


def test_a_simulator_that_does_not_come(tmp_path: Path) -> None:
    with served(Echo("echo"), tmp_path, connect_timeout_s=0.01) as (_, errors):
        pass
    assert [str(error) for error in errors] == ["no simulator came within 0.01 s"]


# --- policies of others -----------------------------------------------------------------------

WELCOME = Message("welcome", {"protocol": VERSION, "policy": "theirs", "wants": []})


@contextmanager
def theirs(folder: Path, *replies: Message | bytes | None) -> Iterator[Path]:
    """A policy that answers each message by the next reply; None closes the connection, the last one stays silent."""

    def body(listening: Any) -> None:
        channel = accept(listening, 280)
        for reply in replies:
            channel.receive(280)
            if reply is None:
                channel.close()
                return
            if isinstance(reply, Message):
                channel.send(reply, 280)
            else:
                channel._connection.sendall(reply)
        done.wait(280)
        channel.close()

    done = threading.Event()
    with listen(folder / "s") as listening:
        thread = threading.Thread(target=body, args=(listening,), daemon=True)
        thread.start()
        yield folder / "s"
        done.set()
        thread.join(280)


def actions(array: NDArray[Any]) -> Message:
    return Message("actions", arrays={"actions": array})


def begin(there: Remote) -> Any:
    return there.begin(START)


def act(there: Remote) -> Any:
    """Only the reply to the observation may be late."""
    act_s, there._act_s = there._act_s, 280
    there.begin(START)
    there._act_s = act_s
    return there.act(SEEN)


HELLO = {
    "another version": (Message("welcome", {"protocol": 2, "wants": []}), "protocol version 2; here it is 1"),
    "no version": (Message("welcome", {"wants": []}), "protocol version None"),
    "another word": (Message("hi"), "replied 'hi' to hello; welcome is expected"),
    "no wants": (Message("welcome", {"protocol": 1}), "wants observations None"),
    "wants numbers": (Message("welcome", {"protocol": 1, "wants": [1]}), "wants observations"),
    "no message": (b"HTTP/1.1 400", "what is no message"),
}


@pytest.mark.parametrize(("reply", "text"), HELLO.values(), ids=HELLO)
def test_a_hello_that_is_none_ends_the_job(tmp_path: Path, reply: Message | bytes, text: str) -> None:
    with theirs(tmp_path, reply) as socket, pytest.raises(ContractError, match=text) as caught:
        remote(socket).begin(START)
    assert caught.value.exit_code == ExitCode.BAD_JOB
    assert not isinstance(caught.value, RefusedError | BadMessageError | BadActionsError)


TALK: dict[str, tuple[Callable[[Remote], Any], tuple[Message | bytes | None, ...], type[ContractError]]] = {
    "gone at hello": (begin, (None,), PeerLostError),
    "gone at reset": (begin, (WELCOME, None), PeerLostError),
    "gone at act": (act, (WELCOME, Message("ready"), None), PeerLostError),
    "half a reply": (act, (WELCOME, Message("ready"), b"LAR"), SilentError),
    "nothing at reset": (begin, (WELCOME,), SilentError),
    "nothing at act": (act, (WELCOME, Message("ready")), SilentError),
    "another word": (act, (WELCOME, Message("ready"), Message("ready")), BadMessageError),
    "no array": (act, (WELCOME, Message("ready"), Message("actions")), BadActionsError),
    "two arrays": (
        act,
        (WELCOME, Message("ready"), Message("actions", arrays={"actions": np.zeros(1), "b": np.zeros(1)})),
        BadActionsError,
    ),
}


@pytest.mark.parametrize(("call", "replies", "kind"), TALK.values(), ids=TALK)
def test_what_others_may_do(
    tmp_path: Path,
    call: Callable[[Remote], Any],
    replies: tuple[Message | bytes | None, ...],
    kind: type[ContractError],
) -> None:
    silent = kind is SilentError
    with theirs(tmp_path, *replies) as socket, pytest.raises(kind) as caught:
        call(remote(socket, act_s=0.05 if silent else 280))
    assert isinstance(caught.value, SilentError) == silent
    assert "the policy" in str(caught.value) or kind is BadActionsError


READY, ACTIONS = Message("ready"), Message("actions", arrays={"actions": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ({"image": SEEN["image"]}, r"observation state is missing; the card says float32 \(2,\)"),
        (SEEN | {"state": SEEN["state"].astype(np.float64)}, r"state is float64 \(2,\)"),
        (SEEN | {"state": SEEN["state"][None]}, r"state is float32 \(1, 2\)"),
        (SEEN | {"state": np.zeros(3, np.float32)}, r"state is float32 \(3,\)"),
    ],
)
def test_a_simulator_that_shows_something_else_than_it_said(
    tmp_path: Path, shown: dict[str, NDArray[Any]], text: str
) -> None:
    with served(Echo("echo"), tmp_path) as (socket, errors):
        there = remote(socket)
        there.begin(START)
        with pytest.raises(SimulatorError, match=text):
            there.act(shown)
        there.begin(START)
        # What the policy does not want may be left out.
        assert there.act({"state": SEEN["state"]}).shape == (2, 2)
        there.close()
    assert errors == []


@pytest.mark.parametrize("doubled", range(3))
def test_a_second_reply_is_no_reply_to_the_next_message(tmp_path: Path, doubled: int) -> None:
    """Neither one that comes with the first, nor one that comes before the next message is sent."""
    replies = [to_bytes(one) for one in (WELCOME, READY, ACTIONS)]
    for more in (to_bytes(ACTIONS), b"L"):
        sent = [*replies[:doubled], replies[doubled] + more]
        with theirs(tmp_path, *sent) as socket, pytest.raises(ContractError, match="sent more than one reply"):
            act(remote(socket))


def test_a_second_reply_that_comes_later_is_noticed_before_the_next_message(tmp_path: Path) -> None:
    with theirs(tmp_path, WELCOME, READY, ACTIONS) as socket:
        there = remote(socket)
        act(there)
        assert there._channel is not None
        one, other = socketpair()
        with one, other:
            there._channel._connection.close()
            there._channel._connection = one
            other.sendall(to_bytes(ACTIONS))
            with pytest.raises(BadMessageError, match="sent more than one reply"):
                there.act(SEEN)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_a_reply_that_says_to_what_it_is_one(tmp_path: Path, number: Any) -> None:
    """Without a number it is taken for the last one's; with another than that of the observation it is none."""
    numbered = [Message("actions", {"number": n}, ACTIONS.arrays) for n in (1, number)]
    with theirs(tmp_path, WELCOME, READY, *numbered) as socket:
        there = remote(socket)
        act(there)
        if number == 2:
            there.act(SEEN)
            return
        with pytest.raises(BadMessageError, match="another observation than the last"):
            there.act(SEEN)


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        (np.zeros((1, 2), np.float16), "float16 cannot be sent"),
        (np.array([[None, 1]]), "object cannot be sent"),
        (np.zeros(BODY_BYTES + 1, np.uint8), "above the limits"),
    ],
)
def test_the_simulator_hears_why_actions_cannot_be_sent(tmp_path: Path, chunk: NDArray[Any], text: str) -> None:
    class Other(Echo):
        def act(self, observation: Observation) -> NDArray[np.float32]:
            return chunk

    with served(Other("other"), tmp_path) as (socket, errors):
        there = remote(socket)
        there.begin(START)
        with pytest.raises(RefusedError, match=text):
            there.act(SEEN)
        there.close()
    assert errors == []


@pytest.mark.parametrize("text", ["a file's name: \udcff", "x" * 100_000, "two\u2028lines", ""])
def test_whatever_a_policy_says_arrives_as_text(tmp_path: Path, text: str) -> None:
    class Says(Echo):
        def act(self, observation: Observation) -> NDArray[np.float32]:
            raise ContractError(text)

    with served(Says("says"), tmp_path) as (socket, errors):
        there = remote(socket)
        there.begin(START)
        with pytest.raises(RefusedError, match="the policy says") as caught:
            there.act(SEEN)
        there.close()
    assert errors == []
    assert str(caught.value).encode()


CHUNKS = {
    "float64": (np.zeros((2, 3)), "float64"),
    "one action flat": (np.zeros(3, np.float32), r"\(3,\)"),
    "another width": (np.zeros((2, 4), np.float32), r"\(2, 4\)"),
    "empty": (np.zeros((0, 3), np.float32), "0 actions in a chunk"),
    "long": (np.zeros((1025, 3), np.float32), "1025 actions"),
    "NaN": (np.full((1, 3), np.nan, np.float32), "not finite: number 0 of action 0 is nan"),
    "infinite": (np.array([[0, 0, 0], [0, -np.inf, 0]], np.float32), "not finite: number 1 of action 1 is -inf"),
    "text": (np.array([["a", "b", "c"]]), "<U1"),
}


@pytest.mark.parametrize(("chunk", "text"), CHUNKS.values(), ids=CHUNKS)
def test_chunks_that_cannot_be_done(chunk: NDArray[Any], text: str) -> None:
    with pytest.raises(BadActionsError, match=text):
        checked(chunk, 3, 0, None)


def test_which_of_a_chunk_is_done() -> None:
    chunk = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(checked(chunk, 3, 0, None), chunk)
    np.testing.assert_array_equal(checked(chunk, 3, 1, 2), chunk[1:3])
    np.testing.assert_array_equal(checked(chunk, 3, 3, None), chunk[3:])
    for first, use in ((4, None), (3, 2), (0, 5)):
        with pytest.raises(BadActionsError, match="4 actions in a chunk"):
            checked(chunk, 3, first, use)
    poisoned = chunk.copy()
    poisoned[3] = np.nan  # never done
    np.testing.assert_array_equal(checked(poisoned, 3, 0, 3), chunk[:3])


def test_a_policy_in_this_process_refuses_as_one_elsewhere() -> None:
    class Tired(Echo):
        def act(self, observation: Observation) -> NDArray[np.float32]:
            raise ContractError("no way")

    here = Local(Tired("tired"))
    here.begin(START)
    with pytest.raises(RefusedError, match="the policy says: no way"):
        here.act(SEEN)


def test_a_channel_names_its_peer() -> None:
    import socket

    one, other = socket.socketpair()
    one.close()
    with other, pytest.raises(PeerLostError, match="the simulator has gone"):
        Channel(other, "the simulator").receive(280)
