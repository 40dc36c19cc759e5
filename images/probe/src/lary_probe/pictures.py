"""Pictures of a result. They adorn it: one that cannot be drawn is a warning, never the end of a finished training."""

from collections.abc import Callable
from pathlib import Path

from lary_schema.base import ContractError

from lary_probe.outputs import Outputs
from lary_probe.session import Session


def draw(session: Session, outputs: Outputs, name: str, paint: Callable[[Path], None]) -> None:
    """Have `paint` draw the file `name`. Raises ContractError where the volume refuses it."""
    try:
        with outputs.file(name) as path:
            paint(path)
    except ContractError:
        raise
    except Exception as error:  # noqa: BLE001 - labels, fonts and image libraries fail in ways nobody can list
        first = (str(error).splitlines() or [""])[0]
        session.warn(f"picture {name} could not be drawn ({type(error).__name__}: {first}); the scores are complete")
