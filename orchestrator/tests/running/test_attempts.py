"""The state machine of attempts, without clock, process or file."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_orch.run.attempts import (
    FINAL,
    OVER,
    Again,
    Attempts,
    Begun,
    Counted,
    Ended,
    Over,
    Refused,
    Stopping,
    some,
)
from lary_schema.base import ExitCode

CHAIN = {"train": (), "extract": ("train",), "probe": ("extract",), "other": ()}


def test_a_chain_in_order() -> None:
    jobs = Attempts(CHAIN)
    assert jobs.ready() == ["train", "other"]
    for job in ("train", "extract", "probe"):
        assert jobs.ready()[0] == job
        assert jobs.handle(Begun(job)) == []
        assert job not in jobs.ready()
        assert jobs.handle(Ended(job, 0)) == [Over(job, "done", attempts=1)]
    assert not jobs.is_over
    assert jobs.open() == ["other"]


def test_what_no_other_can_follow_goes_first() -> None:
    """A probe's result is kept whatever happens to the extractions that are still to come."""
    jobs = Attempts({"extract a": (), "extract b": (), "probe": ("extract a",)})
    jobs.handle(Begun("extract a"))
    jobs.handle(Ended("extract a", 0))
    assert jobs.ready() == ["probe", "extract b"]


@pytest.mark.parametrize("code", sorted(FINAL - {ExitCode.DONE}))
def test_final_codes_are_not_tried_again_and_make_the_rest_hopeless(code: ExitCode) -> None:
    jobs = Attempts(CHAIN)
    jobs.handle(Begun("train"))
    assert jobs.handle(Ended("train", code, "no such file")) == [
        Over("train", "failed", int(code), "no such file", 1),
        Over("extract", "skipped", 0, "needs train"),
        Over("probe", "skipped", 0, "needs extract"),
    ]
    assert jobs.ready() == ["other"]


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (Ended("other", 137), 137, "killed (SIGKILL); often by the kernel for want of memory"),
        (Ended("other", 1, "the disk is full"), 1, "the disk is full"),
        (Ended("other", 0, missing="shards 3 are missing"), 1, "shards 3 are missing"),
        (Ended("other", 143, stalled=True), ExitCode.STALLED, "stalled: no progress for too long"),
    ],
)
def test_what_may_change_is_tried_again_until_attempts_are_used_up(end: Ended, code: int, message: str) -> None:
    jobs = Attempts(CHAIN, limit=2)
    jobs.handle(Begun("other"))
    assert jobs.handle(end) == [Again("other", code, message)]
    assert jobs.state("other") == "waiting"
    jobs.handle(Begun("other"))
    assert jobs.handle(end) == [Over("other", "failed", code, message, 2)]


def test_attempts_that_others_counted_are_used_up() -> None:
    jobs = Attempts(CHAIN, limit=3)
    jobs.handle(Counted("other", 2))
    assert jobs.state("other") == "waiting"
    jobs.handle(Begun("other", 3))
    assert jobs.handle(Ended("other", 1))[0] == Over("other", "failed", 1, "exit 1", 3)


def test_a_job_that_is_refused_was_no_fault_of_an_attempt() -> None:
    jobs = Attempts(CHAIN)
    jobs.handle(Begun("extract"))
    assert [action.job for action in jobs.handle(Refused("extract", 4, "no weights"))] == ["extract", "probe"]


def test_stopping_lets_what_runs_end() -> None:
    jobs = Attempts(CHAIN)
    jobs.handle(Begun("train"))
    jobs.handle(Begun("other"))
    assert {action.job for action in jobs.handle(Stopping("not started"))} == {"extract", "probe"}
    assert jobs.ready() == []
    assert jobs.handle(Ended("train", 143)) == [Over("train", "stopped", 143, "stopped", 1)]
    assert jobs.handle(Ended("other", 0)) == [Over("other", "done", attempts=1)]
    assert jobs.is_over


def test_stopping_now_ends_all() -> None:
    jobs = Attempts(CHAIN)
    jobs.handle(Begun("train"))
    assert {action.job for action in jobs.handle(Stopping("cancelled", now=True))} == set(CHAIN)
    assert jobs.is_over


def test_jobs_that_would_wait_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['x'\], which are not in the plan"):
        Attempts({"a": ("x",)})
    with pytest.raises(ValueError, match="needs itself"):
        Attempts({"a": ("b",), "b": ("c",), "c": ("a",)})


def test_many_needs_are_named_in_part() -> None:
    assert some(f"j{n}" for n in range(9)) == "j0, j1, j2, j3 and 5 more"


# --- any run ----------------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, tuple[str, ...]], list[int], int]:
    """Needs (of earlier jobs, so without a circle), exit codes to come, and how many attempts there are."""
    count = draw(st.integers(1, 7))
    needs = {}
    for number in range(count):
        below = [f"j{n}" for n in range(number)]
        needs[f"j{number}"] = tuple(draw(st.lists(st.sampled_from(below), max_size=3, unique=True))) if below else ()
    codes = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 4, 124, 137]), min_size=28, max_size=28))
    return needs, codes, draw(st.integers(1, 4))


def play(jobs: Attempts, codes: Iterator[int]) -> list[Again | Over]:
    """Two at a time, until nothing can be done any more."""
    actions: list[Again | Over] = []
    running: list[str] = []
    while True:
        for job in jobs.ready()[: 2 - len(running)]:
            actions += jobs.handle(Begun(job))
            running.append(job)
        if not running:
            return actions
        actions += jobs.handle(Ended(running.pop(0), next(codes)))


@settings(max_examples=50)
@given(runs())
def test_every_job_ends_once_and_nothing_begins_too_early(
    run: tuple[dict[str, tuple[str, ...]], list[int], int],
) -> None:
    needs, codes, limit = run
    jobs = Attempts(needs, limit)
    actions = play(jobs, iter(codes))
    assert jobs.is_over
    ends = [action for action in actions if isinstance(action, Over)]
    assert sorted(end.job for end in ends) == sorted(needs)
    states = {end.job: end.state for end in ends}
    for end in ends:
        unmet = [need for need in needs[end.job] if states[need] != "done"]
        assert (end.state == "skipped") == bool(unmet)
        assert end.attempts == (0 if unmet else jobs.attempts(end.job))
        assert end.attempts <= limit
        again = sum(isinstance(action, Again) and action.job == end.job for action in actions)
        assert again == max(0, end.attempts - 1)
    assert set(states.values()) <= OVER
    # What a job waited for ended before it; one that is skipped waits for nothing more.
    order = [end.job for end in ends]
    waited = {job: wanted for job, wanted in needs.items() if states[job] != "skipped"}
    assert all(order.index(need) < order.index(job) for job, wanted in waited.items() for need in wanted)


@settings(max_examples=50)
@given(runs(), st.integers(0, 12))
def test_a_run_may_be_stopped_at_any_time(run: tuple[dict[str, tuple[str, ...]], list[int], int], moment: int) -> None:
    needs, codes, limit = run
    jobs = Attempts(needs, limit)
    running: list[str] = []
    for code in codes[:moment]:
        if ready := jobs.ready():
            jobs.handle(Begun(ready[0]))
            running.append(ready[0])
        if running:
            jobs.handle(Ended(running.pop(0), code))
    if ready := jobs.ready():
        jobs.handle(Begun(ready[0]))
        running.append(ready[0])
    jobs.handle(Stopping("not started"))
    assert jobs.ready() == []
    assert set(jobs.open()) == set(running)
    for job in running:
        (end,) = jobs.handle(Ended(job, 137))
        assert isinstance(end, Over)
        assert end.state == "stopped"
    assert jobs.is_over
