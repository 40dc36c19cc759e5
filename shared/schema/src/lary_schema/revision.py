"""Which revision of the bench this is."""

import subprocess
from pathlib import Path

DESCRIBE = ("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*")


def code_revision(repository: Path) -> str | None:
    """The checkout's commit, `-dirty` appended where tracked files differ; None without git."""
    try:
        done = subprocess.run(
            DESCRIBE,
            cwd=repository,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
