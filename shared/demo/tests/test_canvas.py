"""Drawing within a shape's bounding box gives the pixels of drawing over the whole frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lary_demo import canvas
from lary_demo.canvas import SIZE, SUB, Mask, Point
from numpy.typing import NDArray

COORDINATE = st.integers(-SIZE * SUB, 2 * SIZE * SUB)
POINT = st.tuples(COORDINATE, COORDINATE)
RADIUS = st.integers(0, 12 * SUB)
SHAPES = (canvas.disc, canvas.square, canvas.diamond)


def covered(mask: Mask) -> NDArray[np.uint8]:
    """(SIZE, SIZE) covered sample points of every pixel of the frame."""
    whole = np.zeros((SIZE, SIZE), np.uint8)
    whole[mask.rows, mask.columns] = mask.points
    return whole


def whole_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every bounding box be the frame."""
    monkeypatch.setattr(canvas, "_pixels", lambda low, high: slice(0, SIZE))


@given(shape=st.sampled_from(SHAPES), centre=POINT, radius=RADIUS)
def test_a_shape_lies_in_its_bounding_box(shape: canvas.Shape, centre: Point, radius: int) -> None:
    boxed = covered(shape(centre, radius))
    with pytest.MonkeyPatch.context() as monkeypatch:
        whole_frame(monkeypatch)
        np.testing.assert_array_equal(boxed, covered(shape(centre, radius)))


@given(start=POINT, end=POINT, radius=RADIUS)
def test_a_capsule_lies_in_its_bounding_box(start: Point, end: Point, radius: int) -> None:
    boxed = covered(canvas.capsule(start, end, radius))
    with pytest.MonkeyPatch.context() as monkeypatch:
        whole_frame(monkeypatch)
        np.testing.assert_array_equal(boxed, covered(canvas.capsule(start, end, radius)))


@given(start=POINT, end=POINT, radius=RADIUS)
def test_a_capsule_covers_the_points_near_its_segment(start: Point, end: Point, radius: int) -> None:
    """Against the distance to the segment in floating point, apart from points on its very edge."""
    axis = np.arange(SIZE * canvas.SAMPLES) * (SUB / canvas.SAMPLES) + SUB / canvas.SAMPLES / 2
    points = np.stack(np.meshgrid(axis, axis), -1) - start
    along = np.subtract(end, start).astype(float)
    share = np.clip(points @ along / max(along @ along, 1), 0, 1)
    distance = np.linalg.norm(points - share[..., None] * along, axis=-1)
    grades = (SIZE, canvas.SAMPLES, SIZE, canvas.SAMPLES)
    least, most = ((distance <= radius + edge).reshape(grades).sum((1, 3)) for edge in (-1e-6, 1e-6))
    found = covered(canvas.capsule(start, end, radius))
    assert ((least <= found) & (found <= most)).all()


@given(centre=POINT, radius=RADIUS)
def test_a_capsule_without_length_is_a_disc(centre: Point, radius: int) -> None:
    np.testing.assert_array_equal(covered(canvas.capsule(centre, centre, radius)), covered(canvas.disc(centre, radius)))


def test_nothing_is_painted_outside_of_the_frame() -> None:
    frame = np.full((SIZE, SIZE, 3), 7, np.uint8)
    for centre in ((-20 * SUB, 0), (0, (SIZE + 20) * SUB), (-20 * SUB, -20 * SUB)):
        canvas.paint(frame, canvas.disc(centre, 5 * SUB), (255, 255, 255))
    assert (frame == 7).all()
