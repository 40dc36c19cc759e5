"""Converting a pickled checkpoint once: where it is unpickled, and what can be reached from there."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_schema.atomic import PARTIAL_SUFFIX, sync_dir
from lary_schema.base import ContractError, WeightsError

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import Folder, Notify, Runtime
from lary_orch.runtimes.jobs import Prepared

LIMIT_S = 3600.0
SHOWN = 20
"""Names of what was left out; all stand in the report."""


@dataclass(frozen=True)
class Conversion:
    """What is requested."""

    source: Path
    target: Path
    options: tuple[str, ...] = ()
    """Further options of the worker's `convert`."""

    @property
    def report(self) -> Path:
        """What the worker writes next to the target, hidden: it is no part of a folder of weights."""
        return self.target.with_name(f".{self.target.name}.json")


def convert(request: Conversion, image: ImageSource, runtime: Runtime, notify: Notify) -> str:
    """Do it in `image`; what the worker says of it.

    Where the runtime isolates, in a container without a network that sees the file and an empty folder. Elsewhere in a
    process with the caller's rights, which is said. Raises ContractError.
    """
    if not request.source.is_file():
        raise WeightsError(f"{request.source}: no such file")
    if request.target.exists():
        raise ContractError(f"{request.target}: exists already; remove it or give another name")
    prepared = runtime.prepare(image, notify)
    if runtime.isolates:
        return _isolated(request, prepared, runtime)
    notify(
        f"warning: the {runtime.name} runtime does not isolate: {request.source} is unpickled by a process that may "
        "read and write what you may, and reach the network; --runtime docker does it in a container without either"
    )
    paths = (str(request.source.absolute()), str(request.target.absolute()))
    return runtime.query(prepared, "convert", *paths, *request.options, limit_s=LIMIT_S)


def summary(reply: str) -> str:
    """A line for people of what the worker said: how much was written, and the names of what was not."""
    done = json.loads(reply)
    where = f"entry {done['entry']}" if done["entry"] else "the file"
    left = [f"{name} ({kind})" for name, kind in done["dropped"].items()]
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    tensors = sum(done["dropped_tensors"].values())
    account = f"; left out, with {tensors} tensors in it: {', '.join(left[:SHOWN])}{more}" if left else ""
    return f"{done['tensors']} tensors of {where}{account}"


def container_arguments(request: Conversion, draft: Path) -> tuple[Sequence[str], Sequence[Folder]]:
    """The worker's command in a container, and all that this sees of the host; `draft` is an empty folder."""
    source, target = f"/source/{request.source.name}", f"/target/{request.target.name}"
    folders = (Folder(request.source.resolve(), source), Folder(draft, "/target", read_only=False))
    return ("convert", source, target, *request.options), folders


def _isolated(request: Conversion, prepared: Prepared, runtime: Runtime) -> str:
    folder = request.target.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{request.target.name}.", suffix=PARTIAL_SUFFIX, dir=folder) as name:
        arguments, folders = container_arguments(request, Path(name))
        reply = runtime.query(prepared, *arguments, folders=folders, limit_s=LIMIT_S)
        # The tensors last: where they are, all is.
        for path in (request.report, request.target):
            (Path(name) / path.name).replace(path)
        sync_dir(folder)
    return reply
