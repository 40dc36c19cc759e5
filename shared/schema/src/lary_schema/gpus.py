"""The NVIDIA GPUs of this machine."""

import shutil
import subprocess
from dataclasses import dataclass

QUERY = ("nvidia-smi", "--query-gpu=uuid,name,memory.total,memory.used", "--format=csv,noheader,nounits")
MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, in the order of `nvidia-smi`."""

    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int


def find_gpus() -> list[Gpu]:
    """The GPUs that `nvidia-smi` lists; none where it is absent, fails or hangs."""
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """The GPUs of `nvidia-smi`'s CSV; a field it does not know (`[N/A]`) counts as 0 bytes."""
    gpus = []
    for line in filter(str.strip, text.splitlines()):
        uuid, name, total, used = (cell.strip() for cell in line.split(",", 3))
        gpus.append(Gpu(uuid, name, _bytes(total), _bytes(used)))
    return gpus


def _bytes(mib: str) -> int:
    return int(mib) * MIB if mib.isdigit() else 0
