"""Writes images from a container engine to files, for clusters that reach no registry."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.images import SOURCE_LABEL, how_to_get, reference
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError

from lary_slurm.archive import write_archive
from lary_slurm.images import MAKERS, Exported, Kind, make_command


def export(client: Any, image: ImageSource, folder: Path, notify: Notify) -> Exported:
    """Write NAME.tar, NAME.json and, where their programs are there, NAME.sif and NAME.sqsh.

    An image that lies there already is left as it is. Raises ContractError where the engine does not have it.
    """
    from docker.errors import ImageNotFound

    ref = reference(image.card)
    try:
        found = client.images.get(ref)
    except ImageNotFound:
        raise ContractError(f"{ref}: not on this engine; `{how_to_get(image)}`") from None
    exported = Exported(name=image.card.name, ref=ref, id=found.id, source=(found.labels or {}).get(SOURCE_LABEL))
    described = folder / f"{exported.name}.json"
    same = described.is_file() and json.loads(described.read_text(encoding="utf-8")).get("id") == exported.id
    archive = folder / f"{exported.name}.tar"
    if not (same and archive.is_file()):
        # Without its description nobody takes the old archive for the new image, nor half of one.
        described.unlink(missing_ok=True)
        written = write_archive(found.save(named=True), archive, ref)
        if written != exported.id:
            exported = exported.model_copy(update={"id": written})
    for kind in MAKERS:
        _make(kind, exported, folder, notify, again=not same)  # type: ignore[arg-type]
    publish_text(described, exported.to_json())
    return exported


def _make(kind: Kind, exported: Exported, folder: Path, notify: Notify, *, again: bool) -> None:
    target = folder / f"{exported.name}.{kind}"
    if shutil.which(MAKERS[kind]) is None or (target.is_file() and not again):
        return
    target.unlink(missing_ok=True)
    command = make_command(kind, exported, folder)
    notify(" ".join(command))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContractError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
