"""Pictures: labels of any characters, and a picture that cannot be drawn costs no result."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_probe.fonts import shown
from lary_probe.plots import LABEL_CHARS, _abbreviated, plot_confusion, plot_step, plot_trajectory
from lary_schema.base import ContractError
from lary_schema.events import Warned

pytestmark = pytest.mark.usefixtures("real_pictures")
ODD = [
    "$x", "cost $5 to $6", "$\\frac{1}{$", "a_b^c", "\\alpha", "%d {x}", "拿起杯子", "カップ", "🦾 grasp", "tab\there",
    "two\nlines", "\x1b[31mred", "é" * 40, "a\u202eb", "", "\ud7ff", "$" * 50, "拿" * 60,
]  # fmt: skip


def no_box(path: Path, paint: Any) -> None:
    """Draw, and fail on matplotlib's warning of a glyph that it has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paint(path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_labels_and_names_of_any_characters_are_drawn(tmp_path: Path, text: str) -> None:
    no_box(tmp_path / "m.png", lambda path: plot_confusion(path, np.eye(2, dtype=np.int64), [text, "b"], text))
    values = np.zeros((3, 2))
    no_box(tmp_path / "t.png", lambda path: plot_trajectory(path, values, values, [text, "b"], [], text))
    no_box(tmp_path / "s.png", lambda path: plot_step(path, values[0, :2], values[0, :2], [text, "b"], [], text))


def test_what_no_font_has_is_shown_escaped() -> None:
    assert shown("grasp $5 é") == "grasp $5 é"
    assert shown("\U000f0000\x1b\n\t") == "\\U000f0000\\x1b\\n\\t"


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_a_shortened_label_is_short_and_cuts_no_escape_in_two(label: str) -> None:
    short = _abbreviated(label)
    assert len(short) <= LABEL_CHARS
    head, _, tail = short.partition("…")
    assert shown(label).startswith(head) or "…" in label
    assert shown(label).endswith(tail) or "…" in label


@pytest.mark.parametrize("kind", ["classify", "regress"])
@pytest.mark.parametrize("error", [ValueError("ParseFatal\nsecond line"), RuntimeError(), MemoryError("big")])
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    toy_classes: Any, toy_actions: Any, kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    for name in ("plot_confusion", "plot_step", "plot_trajectory"):
        monkeypatch.setattr(f"lary_probe.plots.{name}", broken)
    bench = toy_classes if kind == "classify" else toy_actions
    for name in ("train", "val"):
        if kind == "classify":
            labels = np.arange(36) % 3
            bench.split(name, np.eye(8)[labels][:, None, None, :], ["abc"[i] for i in labels])
    result = bench.run(bench.job(kind))
    assert result.splits["val"].rows.used
    said = [e.message for e in bench.events if isinstance(e, Warned) and "could not be drawn" in e.message]
    assert len(said) == (1 if kind == "classify" else 4)
    assert type(error).__name__ in said[0]
    assert "second line" not in said[0]
    assert said[0].endswith("the scores are complete")
    assert list(result.warnings)[-len(said) :] == said
    assert not list(bench.mounts.out.rglob("*.png*"))


def test_a_volume_that_refuses_a_picture_is_said(toy_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lary_probe.plots.plot_confusion", full)
    with pytest.raises(ContractError, match=r"confusion_matrix\.png: cannot be written: No space left"):
        toy_classes.run(toy_classes.job("classify"))


def test_labels_with_dollars_are_scored(bench: Any) -> None:
    labels = ["pay $5 for $6", "拿起杯子", "$$"]
    for name in ("train", "val"):
        ids = np.arange(24) % 3
        bench.split(name, 3 * np.eye(8)[ids][:, None, None, :], [labels[i] for i in ids])
    result = bench.run(bench.job("classify"))
    assert set(result.classes) == set(labels)
    assert (bench.mounts.out / "confusion_matrix.png").is_file()
    assert not [e for e in bench.events if isinstance(e, Warned) and "drawn" in e.message]
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
