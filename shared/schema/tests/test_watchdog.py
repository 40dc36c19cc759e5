"""What counts as a sign of life, told by numbers; and that work without events of its own is heard of."""

from types import SimpleNamespace
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lary_schema.events import Alive, Finished, Warned, _Event, from_line, to_line
from lary_schema.watchdog import ALIVE_EVERY_S, COMPUTING, LONGEST, Signs, Watchdog

LIMIT = 600.0
IDLE, BUSY = COMPUTING / 2, COMPUTING * 2
shares = st.floats(0, 4)
"""Of a core, used by a process."""


def look_until(signs: Signs, until: float, share: float, since: float = 0.0) -> tuple[float, str] | None:
    """Look whenever it is due, at a process that uses `share` of a core: when it is ended and why; None: not yet."""
    while (now := signs.due) <= until:
        if (message := signs.look(now, since + share * now)) is not None:
            return now, message
    return None


@given(share=st.floats(0, IDLE), computes=st.booleans())
def test_who_waits_is_ended_at_the_limit(share: float, computes: bool) -> None:
    signs = Signs(LIMIT, computes=computes)
    signs.beat("waiting for nothing", 0, 0)
    assert signs.look(LIMIT - 0.001, share * LIMIT) is None
    assert look_until(signs, 2 * LIMIT, share) == (LIMIT, "no progress for 600 s while waiting for nothing")


@given(share=st.floats(BUSY, 16))
def test_who_computes_on_the_cpu_goes_on_and_not_for_ever(share: float) -> None:
    signs = Signs(LIMIT, computes=True)
    signs.beat("training, step 1 of 9", 0, 0)
    ended = look_until(signs, 2 * LONGEST * LIMIT, share)
    assert ended is not None
    now, message = ended
    assert now == LONGEST * LIMIT
    assert message.startswith(f"no progress for {now:.0f} s while training, step 1 of 9; it used ")
    assert "processor time" in message
    assert message.endswith("give a larger --stall-timeout")


@given(share=st.floats(BUSY, 16))
def test_beside_a_gpu_processor_time_is_no_sign_of_life_and_is_told(share: float) -> None:
    """Waiting for a GPU spins."""
    signs = Signs(LIMIT, computes=False)
    signs.beat("encoding", 0, 0)
    ended = look_until(signs, 2 * LIMIT, share)
    assert ended is not None
    now, message = ended
    assert now == LIMIT
    assert f"it used {share * LIMIT:.0f} s of processor time" in message


@given(busy_for=st.integers(1, LONGEST - 2))
def test_who_stops_computing_is_ended_a_limit_later(busy_for: int) -> None:
    signs = Signs(LIMIT, computes=True)
    used = 0.0
    for _ in range(busy_for):
        used += LIMIT
        assert signs.look(signs.due, used) is None
    assert signs.look(signs.due, used) == "no progress for 600 s while starting"


@given(pauses=st.lists(st.floats(0, LIMIT - 1), max_size=30), computes=st.booleans(), share=shares)
def test_progress_in_time_goes_on_for_ever(pauses: list[float], computes: bool, share: float) -> None:
    signs, now = Signs(LIMIT, computes=computes), 0.0
    for pause in pauses:
        now += pause
        assert signs.look(now, share * now) is None
        signs.beat("decoding", now, share * now)
        assert signs.began == now


@given(within=st.floats(0, 10 * LIMIT))
def test_what_has_a_limit_of_its_own_is_late_there_first(within: float) -> None:
    signs = Signs(LIMIT, computes=False)
    signs.beat("the policy acts", 0, 0, within)
    assert signs.due >= LIMIT
    assert signs.due > within
    assert signs.look(within, 0) is None or within >= signs.due
    # It holds for this alone.
    signs.beat("another thing", 5, 0)
    assert signs.due == 5 + LIMIT


def test_work_without_events_is_heard_of_until_it_has_finished() -> None:
    heard: list[_Event] = []
    watchdog = Watchdog(heard.append, "j", LIMIT)
    watchdog.beat("waiting for another run")
    begin = watchdog._said
    watchdog._say(begin + ALIVE_EVERY_S - 0.1)
    assert heard == []
    watchdog._say(begin + ALIVE_EVERY_S)
    watchdog._say(begin + ALIVE_EVERY_S + 1)
    (alive,) = heard
    assert isinstance(alive, Alive)
    assert (alive.job, alive.doing) == ("j", "waiting for another run")
    assert from_line(to_line(alive)) == alive
    # An event of the work itself is heard of, too.
    watchdog.emit(Warned(job="j", message="m"))
    watchdog._say(watchdog._said + ALIVE_EVERY_S - 0.1)
    assert [type(event) for event in heard] == [Alive, Warned]
    watchdog.emit(Finished(job="j", done=1, per_second=1))
    watchdog._say(watchdog._said + 2 * ALIVE_EVERY_S)
    assert isinstance(heard[-1], Finished)


class EndedError(Exception):
    """In place of the end of the process."""


class Driven(Watchdog):
    """Its thread's loop, in the test's own: waiting moves the clock, and the processor's by a share of that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, share: float, *, computes: bool) -> None:
        self.now, self.heard = 0.0, list[_Event]()
        clocks = SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: share * self.now)
        monkeypatch.setattr("lary_schema.watchdog.time", clocks)
        super().__init__(self.heard.append, "j", LIMIT, computes=computes)
        monkeypatch.setattr(self, "_stopped", SimpleNamespace(wait=self._wait))

    def _wait(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def _end(self, message: str) -> NoReturn:
        raise EndedError(message)


@pytest.mark.parametrize(("share", "computes", "limits"), [(0, True, 1), (1, False, 1), (1, True, LONGEST)])
def test_the_thread_looks_in_time_and_speaks_meanwhile(
    monkeypatch: pytest.MonkeyPatch, share: float, computes: bool, limits: int
) -> None:
    watchdog = Driven(monkeypatch, share, computes=computes)
    watchdog.beat("fitting")
    with pytest.raises(EndedError, match="while fitting"):
        watchdog._watch()
    assert watchdog.now == pytest.approx(limits * LIMIT)
    said = [event.seconds for event in watchdog.heard if isinstance(event, Alive)]
    # Of the last moment nothing is said but why it ends.
    assert said == pytest.approx([n * ALIVE_EVERY_S for n in range(1, round(limits * LIMIT / ALIVE_EVERY_S))])
