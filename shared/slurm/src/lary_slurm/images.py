"""Images as files on the shared volume: what `images export` writes, and what a cluster's nodes start from."""

from pathlib import Path
from typing import Literal, Self

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.images import reference
from lary_schema import commands
from lary_schema.base import ContractError, Document
from lary_schema.cards import Key

from lary_slurm.profile import Launcher

Kind = Literal["tar", "sif", "sqsh"]
KINDS: dict[Launcher, Kind] = {"podman": "tar", "apptainer": "sif", "pyxis": "sqsh"}
"""Launcher -> the file it starts from: OCI's archive, Apptainer's or Enroot's image."""
MAKERS = {"sif": "apptainer", "sqsh": "enroot"}
"""Kind -> the program that makes it."""


class Exported(Document):
    """`NAME.json` next to the files of an image."""

    name: Key
    ref: str
    id: str
    """Content address: what results call the image's digest, as under Docker."""
    source: str | None
    """Hash of what it was built from; None for an image that was fetched."""

    @classmethod
    def of(cls, folder: Path, image: ImageSource) -> Self:
        """Raises ContractError that says what to do where the image was not exported there."""
        path = folder / f"{image.card.name}.json"
        if not path.is_file():
            raise ContractError(
                f"{path}: image {image.card.name} ({reference(image.card)}) was not exported to the profile's "
                f"`images`; where a container engine has it: "
                f"{commands.command('images', 'export', '--to', folder, image.card.name)}"
            )
        return cls.read(path)

    def file(self, folder: Path, launcher: Launcher) -> Path:
        """What a launcher starts from. Raises ContractError where it is not there."""
        kind = KINDS[launcher]
        path = folder / f"{self.name}.{kind}"
        if not path.is_file():
            maker = MAKERS.get(kind)
            making = make_command(kind, self, folder)
            exporting = commands.command("images", "export", "--to", folder, self.name)
            command = commands.joined(making) if making else exporting
            where = f", where there is {maker}" if maker else ""
            raise ContractError(f"{path}: not there, and launcher {launcher} needs it; make it{where}: `{command}`")
        return path


def make_command(kind: Kind, exported: Exported, folder: Path) -> list[str]:
    """The command that makes an Apptainer or Enroot image of the archive; none for the archive itself."""
    target = str(folder / f"{exported.name}.{kind}")
    archive = folder / f"{exported.name}.tar"
    if kind == "sif":
        return ["apptainer", "build", "--force", target, f"oci-archive:{archive}"]
    if kind == "sqsh":
        return ["enroot", "import", "--output", target, f"dockerd://{exported.ref}"]
    return []
