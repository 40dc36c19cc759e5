"""The files of the out mount. Each is whole or absent; `result.json` appears last."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.atomic import publish_text, replacing
from lary_schema.base import ContractError
from lary_schema.results import ProbeResult
from numpy.typing import NDArray
from torch import Tensor

RESULT = "result.json"
WEIGHTS = "probe.safetensors"


class Outputs:
    """Writes below one folder. Raises ContractError where the volume refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self) -> None:
        """Remove an earlier attempt's result: it must not lie among this one's files."""
        with _refusals(self.root):
            (self.root / RESULT).unlink(missing_ok=True)

    def text(self, name: str, text: str) -> None:
        with _refusals(self.root / name):
            publish_text(self.root / name, text)

    def json(self, name: str, value: Any) -> None:
        """Valid JSON always: a number that is not finite is written as null."""
        text = json.dumps(_finite_only(value), indent=2, ensure_ascii=False, allow_nan=False)
        self.text(name, text + "\n")

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A UTF-8 CSV with Unix line ends."""
        with self.file(name) as path, path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    def lines(self, name: str, lines: Iterable[str]) -> None:
        """Text whose lines are made as they are written."""
        with self.file(name) as path, path.open("x", encoding="utf-8", newline="") as file:
            file.writelines(lines)

    def array(self, name: str, values: NDArray[Any]) -> None:
        with self.file(name) as path, path.open("wb") as file:
            np.save(file, values, allow_pickle=False)

    def arrays(self, name: str, **values: NDArray[Any]) -> None:
        """An .npz file without compression; equal arrays give equal bytes."""
        with self.file(name) as path, path.open("wb") as file:
            np.savez(file, **values, allow_pickle=False)

    def weights(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """The chosen probe; `facts` (what is needed to use it) as JSON under the metadata key `lary`.

        One key alone: safetensors writes several in an order that changes from call to call.
        """
        from safetensors.torch import save_file

        with self.file(WEIGHTS) as path:
            save_file(dict(tensors), path, {"lary": json.dumps(facts)})

    def result(self, result: ProbeResult) -> None:
        self.text(RESULT, result.to_json())

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path to write to; it becomes `name` when the block ends well."""
        final = self.root / name
        with _refusals(final), replacing(final) as draft:
            yield draft


def _finite_only(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite_only(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_only(each) for each in value]
    return value


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ContractError(
            f"{path}: cannot be written: {error.strerror or error}; free space or make the results folder writable"
        ) from error
