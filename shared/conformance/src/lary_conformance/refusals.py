"""Exit codes: a job that cannot be done is refused as the contract says."""

import json
from collections.abc import Callable, Iterator
from functools import partial

from lary_orch.weights.index import WeightSet
from lary_schema.base import CONTRACT_VERSION, ExitCode, WeightsError
from lary_schema.events import Failed
from lary_schema.jobs import WeightFile

from lary_conformance.case import Case, Skipped, expect, first_line
from lary_conformance.subject import Feed, Ran, Subject


def cases(subject: Subject) -> Iterator[Case]:
    for verb in _verbs(subject):
        of = "" if verb == _verbs(subject)[0] else verb
        yield Case("bad job", of, partial(_bad_json, subject, verb), _REMEDY_JSON)
        yield Case("other version", of, partial(_other_version, subject, verb), _REMEDY_VERSION)
    made: list[tuple[str, Callable[[Subject], str], str]] = [
        ("missing weights", _missing_weights, "check the job's weights before the first row"),
        ("too many failed", _too_many_failed, "compare the share of failed rows with max_failed"),
    ]
    for check, run, remedy in made if subject.card.models else ():
        yield Case(check, "", partial(run, subject), remedy)


_REMEDY_JSON = "end with 2 and an `error` event when the job is not JSON"
_REMEDY_VERSION = "look at `version` before anything else in the job"


def _verbs(subject: Subject) -> tuple[str, ...]:
    if subject.card.kind != "model":
        return ("classify",)
    does = {"extract": subject.card.models, "act": subject.card.policies, "train": subject.recipes}
    return tuple(verb for verb, found in does.items() if found)


def _bad_json(subject: Subject, verb: str) -> str:
    return refused(subject.launch(verb, '{"version": 1, ', subject.volume()), ExitCode.BAD_JOB)


def _other_version(subject: Subject, verb: str) -> str:
    text = json.dumps({"version": CONTRACT_VERSION + 98, "kind": verb})
    return refused(subject.launch(verb, text, subject.volume()), ExitCode.BAD_JOB)


def _missing_weights(subject: Subject) -> str:
    feed = next((feed for feed in subject.feeds() if feed.card.weights), None)
    if feed is None:
        raise Skipped("no model needs weights")
    files = tuple(WeightFile(name=w.name, path="nowhere", sha256="0" * 64) for w in feed.card.weights)
    job, empty = subject.job(feed, WeightSet(subject.folder, files)), subject.volume()
    ran = subject.extract(feed, job, subject.volume(), weights=empty)
    return refused(ran, ExitCode.WEIGHTS)


def _too_many_failed(subject: Subject) -> str:
    feed = _usable(subject)
    job = subject.job(feed, subject.weights_of(feed), corrupt=True)
    return refused(subject.extract(feed, job, subject.volume()), ExitCode.TOO_MANY_FAILED)


def _usable(subject: Subject) -> Feed:
    """A feed whose weights are there. Raises Skipped where there is none."""
    for feed in subject.feeds():
        try:
            subject.weights_of(feed)
        except WeightsError:
            continue
        return feed
    raise Skipped("needs weights of one model; --weights-dir names them")


def refused(ran: Ran, code: ExitCode) -> str:
    """What a job said that ended with this code. Raises ContractError where it did not, or said nothing."""
    expect(ran.code == code, f"exit {ran.code}, {int(code)} expected: {ran.error}")
    last = ran.events[-1] if ran.events else None
    expect(isinstance(last, Failed), f"exit {ran.code} without an `error` event as the last line")
    assert isinstance(last, Failed)
    expect(last.code == code, f"the `error` event says code {last.code}, the exit code is {ran.code}")
    return f"exit {int(code)}: {first_line(last.message)}"
