import io
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from lary_orch.plan.jobs import Problem
from lary_orch.run import failures
from lary_orch.run.failures import report_failures, run_code
from lary_orch.runtimes.base import Outcome
from lary_orch.runtimes.jobs import Job
from lary_results.remedies import REMEDIES
from lary_schema.base import ContractError, WeightsError
from lary_schema.events import Reason
from lary_schema.runs import PlanFile

MakeWork = Callable[..., Job]
EMPTY = PlanFile(run="smoke-1", protocol="smoke", latents="/l", stores=(), probes=(), problems=())


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(get_args(Reason))


def test_codes(make_work: MakeWork) -> None:
    three, five = (Outcome(make_work(str(code)), "failed", code) for code in (3, 5))
    weights = Problem("model x", WeightsError("none"))
    assert run_code([], [Outcome(three.task, "done"), replace(five, state="skipped", code=0)], None) == 0
    assert run_code([], [three, three], None) == 3
    assert run_code([], [three, five], None) == 1
    assert run_code([weights], [], None) == 4
    assert run_code([weights], [three], None) == 1
    assert run_code([weights], [three], signal.SIGINT) == 130


def test_nothing_went_wrong(make_work: MakeWork) -> None:
    out = io.StringIO()
    report_failures(EMPTY, [], [Outcome(make_work("a"), "done")], out)
    assert out.getvalue() == ""


def test_jobs_and_problems(make_work: MakeWork, tmp_path: Path) -> None:
    log = tmp_path / "a.1.stderr.log"
    log.write_text("".join(f"line {i}\n" for i in range(20)))
    failed = Outcome(make_work("a"), "failed", 4, "no weights", 1, log)
    skipped = Outcome(make_work("b", verb="classify"), "skipped", message="needs a")
    out = io.StringIO()
    report_failures(EMPTY, [Problem("dataset x", ContractError("no such file"))], [failed, skipped], out)
    assert out.getvalue().split("\n") == [
        "",
        "failed: extract a: no weights (exit 4)",
        *(f"    | line {i}" for i in range(15, 20)),
        f"    log: {log}",
        "skipped: classify b: needs a",
        "error: dataset x: no such file",
        "",
    ]


def test_what_a_job_said_last_is_said_once(make_work: MakeWork, tmp_path: Path) -> None:
    log = tmp_path / "a.1.stderr.log"
    log.write_text("before\n17 of 74 rows failed\nreplace the files\n")
    out = io.StringIO()
    report_failures(
        EMPTY, [], [Outcome(make_work("a"), "failed", 3, "17 of 74 rows failed\nreplace the files", 1, log)], out
    )
    assert out.getvalue().splitlines()[3:] == ["    | before", f"    log: {log}"]


@pytest.mark.parametrize(
    ("file", "detail", "said"),
    [
        ("a.png, b.png", "b.png: truncated", "b.png: truncated"),
        ("a.png, b.png", "truncated", "a.png, b.png: truncated"),
        ("a.mp4", "a.mp4: cut", "a.mp4: cut"),
        ("", "cut", ": cut"),
    ],
)
def test_a_file_is_named_once(file: str, detail: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = _rows(1, "pixels")[0] | {"file": file, "detail": detail}
    monkeypatch.setattr(failures, "failed_rows", lambda plan: [row])
    out = io.StringIO()
    report_failures(EMPTY, [], [], out)
    assert out.getvalue().splitlines()[2] == f"    demo/val row 0 (pixels): {said}"


def _rows(count: int, model: str) -> list[dict[str, object]]:
    store = {"dataset": "demo", "split": "val", "model": model, "variant": "corrected"}
    return [
        store | {"row": i, "file": f"{i}.mp4", "reason": "decode_error", "detail": "cut", "sampled": True}
        for i in range(count)
    ]


def test_rows_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "failed_rows", lambda plan: _rows(12, "pixels") + _rows(12, "frame-diff"))
    out = io.StringIO()
    report_failures(EMPTY, [], [], out)
    lines = out.getvalue().splitlines()
    assert lines[1] == "12 rows without a latent; they are excluded from scores:"
    assert lines[2].strip() == "demo/val row 0 (pixels, frame-diff): 0.mp4: cut"
    assert lines[-2].strip() == "and 2 more: `lary-orch status --failures` lists them"
    assert lines[-1] == "  12 of them: replace the file, then run the same command with --retry-failed"
    assert len(lines) == 14


def test_each_remedy_and_each_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(4, "pixels")
    rows[1] |= {"detail": "1.mp4: cut after 3 frames"}
    rows[2] |= {"reason": "bad_indices", "detail": "2.mp4: Invalid data", "sampled": False}
    rows[3] |= {"reason": "timeout", "detail": "no answer"}
    monkeypatch.setattr(failures, "failed_rows", lambda plan: rows)
    out = io.StringIO()
    report_failures(EMPTY, [], [], out)
    text = out.getvalue()
    assert [text.count(f"{i}.mp4") for i in range(4)] == [1, 1, 1, 1]
    assert text.count("replace the file, then run the same command with --retry-failed") == 1
    assert "  2 of them: replace the file" in text
    assert "  1 of them: replace the clip, then choose its frames again (lary-orch data manifest --help)" in text
    assert "  1 of them: the next run tries it again" in text
