"""`docs/faults.md` names tests that exist."""

import re
from pathlib import Path

REPO = Path(__file__).parents[1]


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (REPO / "docs/faults.md").read_text(encoding="utf-8")))
    tests = (
        path for room in ("tests", "shared", "images", "orchestrator") for path in (REPO / room).rglob("test_*.py")
    )
    there = {name for path in tests for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert named - there == set()
