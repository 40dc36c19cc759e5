"""Conformance on an image that keeps the contract, and on some that do not."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_conformance import command as conformance
from lary_conformance import examine, extraction, isolation, self_report
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.fixture import BAD_ROW, ROWS, make_rows
from lary_conformance.subject import open_subject
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.choose import process_runtime
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.docker_args import Host, task_arguments
from lary_orch.runtimes.jobs import JOB_FILE, Job, Prepared
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.events import Failed, to_line

KEY = "frame-diff"
HOST = Host(uid=1, gid=1)


@dataclass
class CannedTask:
    """What a job says, then its exit code."""

    said: list[str]
    code: int

    def lines(self) -> Iterator[str]:
        yield from self.said

    def wait(self) -> int:
        return self.code

    def stop(self, grace_s: float = 10) -> None:
        """It has ended."""


@dataclass
class Liar:
    """A runtime whose image claims everything and does nothing."""

    reply: Callable[[ImageCard], str] = lambda card: card.to_json()
    said: list[str] = field(default_factory=list)
    code: int = 0
    name: str = "lies"
    selftest: str | None = "selftest: exit 1"
    """What it fails with; None: it passes."""
    queries: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        return Prepared(image, "lary/liar:1", None, "liar")

    def query(self, prepared: Prepared, *arguments: str) -> str:
        self.queries.append(arguments[0])
        if arguments[0] == "selftest":
            if self.selftest is not None:
                raise ContractError(self.selftest)
            return ""
        card = prepared.source.card
        found = card.card(arguments[-1]) if "--model" in arguments else None
        models = card.models if found is None else (found,)
        hashed = tuple(model.model_copy(update={"code_sha256": "c0de"}) for model in models)
        return self.reply(card.model_copy(update={"models": hashed, "libraries": {"torch": "0"}}))

    def start(self, job: Job, slot: Slot, stderr: Path) -> CannedTask:
        stderr.write_text("nothing to say")
        self.jobs.append(job)
        return CannedTask(self.said, self.code)

    def sweep(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def baseline() -> ImageSource:
    return next(source for _, source in Catalog.load(env={}).images if source.card.name == "baseline")


def _verdicts(runtime: Liar, image: ImageSource, tmp_path: Path) -> dict[str, Verdict]:
    subject = open_subject(runtime, image, tmp_path, tmp_path, chosen=(KEY,))
    return {verdict.check: verdict for verdict in examine(subject)}


def test_an_image_that_does_nothing_fails_every_check_of_what_it_does(baseline: ImageSource, tmp_path: Path) -> None:
    verdicts = _verdicts(Liar(), baseline, tmp_path)
    states = {check: verdict.state for check, verdict in verdicts.items()}
    assert states == {
        "describe": "skipped",
        "selftest": "failed",
        "isolation": "skipped",
        "bad job": "failed",
        "other version": "failed",
        "missing weights": "skipped",
        "too many failed": "failed",
        "extract": "failed",
        "corrupt input": "failed",
        "resume": "failed",
    }
    assert all(verdict.remedy for verdict in verdicts.values() if verdict.state == "failed")
    assert "exit 0, and no store" in verdicts["extract"].message
    assert "exit 0, 2 expected" in verdicts["bad job"].message


def test_a_job_may_write_its_own_store_alone(baseline: ImageSource, tmp_path: Path) -> None:
    """In a container, from what the engine is given; a job that names no store gets a folder of that name."""
    runtime = Liar()
    _verdicts(runtime, baseline, tmp_path)
    assert len(runtime.jobs) >= 6
    for job in runtime.jobs:
        writable = [
            mount for mount in task_arguments(job, Slot(Device(), 1), HOST, {})["mounts"] if not mount["ReadOnly"]
        ]
        document = (job.mounts.job / JOB_FILE).read_text(encoding="utf-8")
        store = json.loads(document)["store"]["path"] if '"store"' in document else "none.zarr"
        volume = job.mounts.latents
        assert [(mount["Target"], mount["Source"]) for mount in writable] == [
            (f"/latents/{store}", str(volume / store))
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("as_us", "as_unknown", "states", "queries"),
    [
        (None, None, {"selftest": "ok", "isolation": "ok"}, 0),
        (None, "selftest: read-only", {"selftest": "ok", "isolation": "failed"}, 1),
        ("selftest: exit 1", "selftest: exit 1", {"selftest": "failed", "isolation": "failed"}, 1),
    ],
)
def test_a_selftest_under_isolation_covers_both_checks(
    baseline: ImageSource,
    tmp_path: Path,
    as_us: str | None,
    as_unknown: str | None,
    states: dict[str, str],
    queries: int,
) -> None:
    ours, unknown = Liar(selftest=as_us), Liar(selftest=as_unknown)
    subject = open_subject(ours, baseline, tmp_path, tmp_path, chosen=(KEY,), unknown_user=unknown)
    found = {
        verdict.check: verdict
        for topic in (self_report, isolation)
        for verdict in map(verdict_of, topic.cases(subject))
    }
    assert {check: found[check].state for check in states} == states
    assert unknown.queries.count("selftest") == 1
    assert ours.queries.count("selftest") == queries
    if as_unknown is not None:
        assert found["isolation"].message == as_unknown


def test_an_exit_code_alone_is_not_enough(baseline: ImageSource, tmp_path: Path) -> None:
    assert "without an `error` event" in _verdicts(Liar(code=2), baseline, tmp_path)["bad job"].message
    event = to_line(Failed(job="", code=3, message="no"))
    said = _verdicts(Liar(said=[event], code=2), baseline, tmp_path / "b")["bad job"].message
    assert "says code 3, the exit code is 2" in said


def test_a_reply_that_is_none(baseline: ImageSource, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not JSON"):
        open_subject(Liar(lambda card: "hello"), baseline, tmp_path, tmp_path)
    with pytest.raises(ContractError, match="not a valid ImageCard"):
        open_subject(Liar(lambda card: "{}"), baseline, tmp_path, tmp_path)
    tools = Liar(lambda card: json.dumps({"name": "data", "kind": "tools", "module": "lary_data"}))
    with pytest.raises(ContractError, match="it takes no jobs"):
        open_subject(tools, baseline, tmp_path, tmp_path)


def test_a_card_that_differs_from_the_catalogs(baseline: ImageSource, tmp_path: Path) -> None:
    fewer = Liar(lambda card: card.model_copy(update={"models": card.models[:1]}).to_json())
    verdicts = list(examine(open_subject(fewer, baseline, tmp_path, tmp_path, chosen=(KEY,))))
    assert "image.yaml has keys" in verdicts[0].message


def test_rows_are_the_same_every_time_and_one_can_be_spoilt(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "a", "image", 2)
    again = make_rows(tmp_path / "b", "image", 2)
    spoilt = make_rows(tmp_path / "c", "image", 2, corrupt=True)
    assert rows.rows == ROWS
    assert rows.sha256 == again.sha256 == spoilt.sha256
    assert (tmp_path / "a/0-source.png").read_bytes() == (tmp_path / "b/0-source.png").read_bytes()
    assert (tmp_path / "c" / f"{BAD_ROW}-source.png").read_bytes() == b"this is no picture"


def test_stray_lines_on_stdout_are_found(
    baseline: ImageSource, tmp_path: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real worker, behind a runtime that lets a library chatter."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    runtime = process_runtime(Workspace.locate(tmp_path / "ws", env={}), "current")
    subject = open_subject(_Chatty(runtime), baseline, tmp_path, tmp_path, chosen=(KEY,))
    case = next(case for case in extraction.cases(subject) if case.check == "extract")
    with pytest.raises(ContractError, match=r"stdout holds lines that are no events: .*chatter"):
        case.run()


@dataclass
class _Chatty:
    inner: Any
    name: str = "chatty"

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        prepared: Prepared = self.inner.prepare(image, notify)
        return prepared

    def query(self, prepared: Prepared, *arguments: str) -> str:
        return str(self.inner.query(prepared, *arguments))

    def start(self, job: Job, slot: Slot, stderr: Path) -> CannedTask:
        running = self.inner.start(job, slot, stderr)
        said = list(running.lines())
        return CannedTask([said[0], "chatter\n", *said[1:]], running.wait())

    def sweep(self) -> list[str]:
        return []


def test_the_command_on_our_own_image(tmp_path: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole contract, in forks of one interpreter."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    folder = str(repository() / "images" / "baseline")
    where = ["--workspace", str(tmp_path), "--env", "current", "-m", KEY, "--json"]
    result = CliRunner().invoke(conformance.command, [folder, *where])
    verdicts = json.loads(result.stdout)
    assert result.exit_code == 0, verdicts
    done = {verdict["check"] for verdict in verdicts if verdict["state"] == "ok"}
    assert done == {
        *("describe", "selftest", "bad job", "other version"),
        *("too many failed", "extract", "corrupt input", "resume"),
    }
