"""A decode process, a fork of `forkserver` that `pool` starts. `serve` is for others that decode alike.

It talks JSON over a pipe: tasks in, replies out, in their order, the rows themselves and how far each is in shared
memory. It ends with its parent, by the pipe's end or, in the middle of a row, by the kernel.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
from lary_schema.cards import Mode, TensorSpec
from lary_schema.jobs import Decoder
from lary_schema.kept_frames import KeptFrames
from numpy.typing import NDArray

from lary_worker import decode, registry
from lary_worker.chunks import read_actions
from lary_worker.faults import RowFaultError, detail_of
from lary_worker.processes import IN_ADVANCE_S
from lary_worker.slots import Memory, State, map_memory

Fill = Callable[[Mapping[str, Any], NDArray[Any], NDArray[Any]], None]
"""Task, its frames uint8 (T, H, W, 3) or actions float64 (stride, dim), its slot: makes of them what it is to hold."""


def main(arguments: list[str]) -> int:
    """Reply to tasks until the pipe ends. Arguments: pipe, memory (descriptors), settings (JSON)."""
    return serve(arguments, _of_model)


def serve(arguments: list[str], make: Callable[[dict[str, Any]], Fill]) -> int:
    """The loop of a decode process; `make` gets the settings."""
    settings = json.loads(arguments[2])
    cv2.setNumThreads(1)
    spec = TensorSpec.parse(settings["spec"], "settings")
    memory = map_memory(int(arguments[1]), spec, settings["slots"])
    fill = make(settings)
    kept = KeptFrames.open(settings.get("frames_file", ""), settings.get("rows", 0), memory.rows[0].nbytes)
    with Connection(int(arguments[0])) as pipe, kept or nullcontext():
        pipe.send_bytes(b"[]")
        while True:
            try:
                tasks = json.loads(pipe.recv_bytes())
            except EOFError:
                return 0
            for replies in _together(_reply(task, fill, memory, settings, kept) for task in tasks):
                pipe.send_bytes(json.dumps(replies).encode())


def _together(replies: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Replies are kept back for a moment: a message costs more than a small row."""
    some: list[dict[str, Any]] = []
    sent = time.monotonic()
    for reply in replies:
        some.append(reply)
        # What failed is nowhere but in its reply.
        if "reason" in reply or time.monotonic() - sent >= IN_ADVANCE_S:
            yield some
            some, sent = [], time.monotonic()
    if some:
        yield some


def _reply(
    task: dict[str, Any], fill: Fill, memory: Memory, settings: dict[str, Any], kept: KeptFrames | None
) -> dict[str, Any]:
    slot = task["slot"]
    into = memory.rows[slot]

    def make() -> bool:
        frames, clamped = _read(task, settings["mode"], settings["decoder"], settings["spec"]["shape"])
        # For whoever has to say what hung or died.
        memory.states[slot] = State.PREPROCESSING
        fill(task, frames, into)
        return clamped

    try:
        clamped = make() if kept is None else kept.fill(task["row"], task["paths"], memoryview(into).cast("B"), make)
    except RowFaultError as fault:
        return {"reason": fault.reason, "detail": fault.detail}
    except MemoryError:
        return {"reason": "out_of_memory", "detail": f"{' and '.join(task['names'])}: out of memory"}
    memory.states[slot] = State.DONE_CLAMPED if clamped else State.DONE
    return {"clamped": clamped}


def _read(task: dict[str, Any], mode: Mode, decoder: Decoder, shape: Sequence[int]) -> tuple[NDArray[Any], bool]:
    """What `preprocess` is given, and whether indices were clamped; `shape` is that of the model's input."""
    paths, names = [Path(p) for p in task["paths"]], task["names"]
    try:
        if mode == "actions":
            return read_actions(paths[0], names[0], *shape), False
        if mode == "image":
            return decode.read_images(paths, names), False
        return decode.read_clip(paths[0], names[0], task["indices"], decoder)
    except (RowFaultError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything on broken files, and it costs the row alone
        traceback.print_exception(error)
        raise RowFaultError("decode_error", f"{' and '.join(names)}: {detail_of(error)}") from None


def _of_model(settings: dict[str, Any]) -> Fill:
    model = registry.make_model(settings["key"], settings["mode"], settings["variant"])
    spec, owner = model.spec.input, f"the card of {model.card.key}"

    def fill(_task: Mapping[str, Any], frames: NDArray[Any], slot: NDArray[Any]) -> None:
        slot[:] = preprocessed(model.preprocess, frames, spec, owner)

    return fill


def preprocessed(
    preprocess: Callable[[NDArray[Any]], NDArray[Any]], frames: NDArray[Any], spec: TensorSpec, owner: str
) -> NDArray[Any]:
    """What a `preprocess` makes of frames or actions; `owner` is whose shape and dtype `spec` is.

    Raises RowFaultError for whatever it raises, and for an array of another shape or dtype.
    """
    try:
        array = preprocess(frames)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a model's code may raise anything, and it costs the row alone
        traceback.print_exception(error)
        raise RowFaultError("preprocess_error", detail_of(error)) from None
    if array.shape != spec.shape or str(array.dtype) != spec.dtype:
        raise RowFaultError(
            "preprocess_error",
            f"preprocess gave {array.dtype} {array.shape}, {owner} says {spec.dtype} {spec.shape}",
        )
    return array
