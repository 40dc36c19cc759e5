"""A row names one picture: a file of several, of floating-point numbers, or with a turn that is ignored is refused."""

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from lary_worker.decode import read_images
from lary_worker.faults import RowFaultError
from numpy.typing import NDArray
from PIL import Image, ImageOps

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gif": ("GIF", {"duration": 100}), "apng": ("PNG", {"duration": 100}),
    "webp": ("WEBP", {"duration": 100, "lossless": True}), "tiff": ("TIFF", {}),
    "big-tiff": ("TIFF", {"big_tiff": True}), "lzw-tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {"duration": 100}),
}  # fmt: skip


def pictures(count: int) -> list[Image.Image]:
    y, x = np.mgrid[:24, :32]
    colours = np.stack([x * 7, y * 9, (x + y) * 4], -1).astype(np.uint8)
    return [Image.fromarray(np.roll(colours, 5 * t, 1)) for t in range(count)]


def read(tmp_path: Path, data: bytes) -> NDArray[np.uint8]:
    (tmp_path / "i").write_bytes(data)
    return read_images([tmp_path / "i"], ["i"])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_is_read_and_several_are_refused(tmp_path: Path, kind: str) -> None:
    name, options = KINDS[kind]
    for count in (1, 2, 3):
        (first, *more), file = pictures(count), BytesIO()
        first.save(file, name, save_all=True, append_images=more, **options)
        if count > 1:
            with pytest.raises(RowFaultError, match=r"i: holds .* pictures, a row names one"):
                read(tmp_path, file.getvalue())
            continue
        with Image.open(file) as opened:
            expected = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(read(tmp_path, file.getvalue()), expected)
        for at in range(0, len(file.getvalue()), 40):
            with pytest.raises(RowFaultError):
                read(tmp_path, file.getvalue()[:at] or b"G")


@pytest.mark.parametrize(("tag", "value"), [(254, 1), (254, 4), (255, 2)])
def test_smaller_copies_and_masks_of_a_tiff_are_no_further_pictures(tmp_path: Path, tag: int, value: int) -> None:
    first, second = pictures(2)
    second.encoderinfo = {"tiffinfo": {tag: value}}
    file = BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), np.asarray(first))


def test_a_photograph_with_a_second_view_is_its_first(tmp_path: Path) -> None:
    """Cameras put further pictures behind the end of a JPEG."""
    first, second = pictures(2)
    file, alone = BytesIO(), BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second], quality=95)
    first.save(alone, "JPEG", quality=95)
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), read(tmp_path, alone.getvalue()))


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_turned_images_are_upright_or_refused(tmp_path: Path, kind: str, tag: int) -> None:
    """OpenCV turns a TIFF, and ignores an AVIF's properties."""
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = tag
    pictures(1)[0].save(file, kind, exif=exif)
    if kind == "AVIF" and tag > 1:
        with pytest.raises(RowFaultError, match="i: is turned, mirrored or cropped"):
            read(tmp_path, file.getvalue())
        return
    with Image.open(file) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), expected)


@pytest.mark.parametrize("suffix", [".pfm", ".hdr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_numbers_are_refused(tmp_path: Path, suffix: str, channels: int) -> None:
    """OpenCV cuts them to bytes: an image of numbers up to 1 would be black."""
    numbers = np.linspace(0, 1, 24 * 32 * channels, dtype=np.float32).reshape(24, 32, channels)
    data = cv2.imencode(suffix, numbers)[1].tobytes()
    with pytest.raises(RowFaultError, match="i: holds floating-point numbers"):
        read(tmp_path, data)
