"""Does the profile's partition take jobs?"""

from typing import NamedTuple

from lary_doctor.check import Context, Finding
from lary_schema.base import ContractError

from lary_slurm.client import Slurm
from lary_slurm.profile import load_profile

NAME = "slurm_partition"


def run(context: Context) -> Finding:
    try:
        profile = load_profile(context.own.get("profile"))
        lines = Slurm().run("sinfo", "--noheader", "--format=%R|%a|%D|%l|%t").splitlines()
    except ContractError as error:
        return Finding("skip", str(error).splitlines()[0])
    wanted = {name for name in (profile.partition, profile.for_probes.partition) if name}
    return _finding([_Row(*line.split("|")) for line in lines], wanted)


class _Row(NamedTuple):
    partition: str
    available: str
    nodes: str
    limit: str
    state: str

    @property
    def ready(self) -> int:
        return 0 if self.state.startswith(("down", "drain", "fail", "maint", "unk")) else int(self.nodes)


def _finding(rows: list[_Row], wanted: set[str]) -> Finding:
    known = sorted({row.partition for row in rows})
    if unknown := sorted(wanted - set(known)):
        there = ", ".join(known)
        return Finding(
            "fail", f"no partition {', '.join(unknown)}; there are {there}", "name one of them in the profile"
        )
    used = [row for row in rows if not wanted or row.partition in wanted]
    if down := sorted({row.partition for row in used if row.available != "up"}):
        return Finding("fail", f"partition {', '.join(down)} is not up", "name another one in the profile")
    ready, nodes = sum(row.ready for row in used), sum(int(row.nodes) for row in used)
    name = ", ".join(sorted(wanted)) or "the default partition"
    message = f"{name}: {ready} of {nodes} nodes up, time limit {', '.join(sorted({row.limit for row in used}))}"
    return Finding("ok", message) if ready else Finding("fail", message, "wait, or name another partition")
