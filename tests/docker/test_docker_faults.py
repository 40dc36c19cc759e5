"""Faults of whole runs in containers: several kills, Ctrl-C, an image that is not there."""

import json
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from lary_orch.runtimes.docker import JOB, OWNER

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
RUN = ("run", "--protocol", "smoke", "--no-control", "--target", "absolute")
RUN += ("--device", "cpu", "--runtime", "docker", "--json")


def _extractions(client: Any, bench: Any) -> list[Any]:
    mine = client.containers.list(filters={"label": f"{OWNER}={bench.workspace}"})
    return [container for container in mine if container.labels[JOB].startswith("extract")]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_several_kills_at_random_points_leave_the_bytes_of_an_undisturbed_run(
    bench: Any, client: Any, tmp_path: Path
) -> None:
    what = (*RUN, "-m", "frame-diff", "-d", "demo_arm", "--shard-rows", "4", "--attempts", "9")
    bench(*what, "--latents", tmp_path / "whole")
    run = bench.start(*what, "--latents", tmp_path / "killed")
    draw = random.Random(0)
    kills, left = 0, draw.randint(1, 12)
    for line in run.stdout:
        left -= json.loads(line)["event"] == "shard_done"
        if left < 0 and kills < 4:
            for container in _extractions(client, bench):
                with suppress(APIError):  # it has just ended
                    container.kill()
                    kills += 1
            left = draw.randint(1, 12)
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert kills >= 2
    whole = _files(tmp_path / "whole")
    assert whole
    assert _files(tmp_path / "killed") == whole


def test_ctrl_c_leaves_no_container_and_the_same_command_goes_on(bench: Any, client: Any, tmp_path: Path) -> None:
    what = (*RUN, "-m", "pixels", "-d", "demo_motion", "--shard-rows", "8", "--latents", tmp_path)
    run = bench.start(*what)
    for line in run.stdout:
        if json.loads(line)["event"] == "shard_done":
            run.send_signal(signal.SIGINT)
            break
    run.communicate(timeout=600)
    assert run.returncode == 130
    assert client.containers.list(all=True, filters={"label": f"{OWNER}={bench.workspace}"}) == []
    events = [json.loads(line) for line in bench(*what).splitlines()]
    done_again = sum(event["total"] for event in events if event["event"] == "started" and event["unit"] == "rows")
    assert 0 < done_again < 256 + 128
    assert events[-1]["event"] == "scores"


def test_an_image_that_is_not_there_costs_its_model_alone(bench: Any, tmp_path: Path) -> None:
    card = (REPOSITORY / "images/baseline/src/lary_baseline/image.yaml").read_text(encoding="utf-8")
    card = (
        card[: card.index("  - key: pixels")].replace("frame-diff", "third-party").replace("baseline\n", "strange\n", 1)
    )
    (tmp_path / "strange.yaml").write_text(f"ref: nowhere.invalid/strange:1\n{card}", encoding="utf-8")
    said = bench(*RUN, "-m", "third-party", "-m", "frame-diff", "-d", "demo_arm", "--catalog", tmp_path, code=2)
    assert "nowhere.invalid/strange:1 is not on this machine; get it by `docker pull nowhere.invalid/strange:1`" in said
    scores = next(json.loads(line) for line in said.splitlines() if line.startswith('{"event": "scores"'))
    assert [score["model"] for score in scores["scores"]] == ["frame-diff"]
