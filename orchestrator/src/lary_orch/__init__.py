"""The orchestrator: knows jobs, never tensors."""

from importlib.metadata import version
from pathlib import Path


def _version() -> str:
    """What the checkout's file says, where this is a checkout (its packages may be installed at another version)."""
    root = Path(__file__).resolve().parents[3]
    if (root / "orchestrator" / "pyproject.toml").is_file():
        return (root / "VERSION").read_text(encoding="utf-8").strip()
    return version("lary-orch")


__version__ = _version()
