"""Is a task's memory limit kept, so that a leak ends the task and not the node?"""

import re

from lary_doctor.check import Context, Finding
from lary_schema.base import ContractError

from lary_slurm.client import Slurm
from lary_slurm.profile import load_profile

NAME = "slurm_memory"


def run(context: Context) -> Finding:
    try:
        profile, config = load_profile(context.own.get("profile")), Slurm().config()
    except ContractError as error:
        return Finding("skip", str(error).splitlines()[0])
    faults = []
    if "MEMORY" not in _setting(config, "SelectTypeParameters").upper():
        faults.append("SelectTypeParameters counts no memory, so --mem is ignored")
    if "cgroup" not in _setting(config, "TaskPlugin"):
        faults.append("TaskPlugin is not task/cgroup, so no limit is kept")
    elif _setting(config, "ConstrainRAMSpace").lower() in ("no", "0"):
        faults.append("ConstrainRAMSpace is off, so no limit is kept")
    if faults:
        return Finding(
            "warn", "; ".join(faults), "only the cluster's administrators can change it; request whole nodes"
        )
    if profile.memory is None:
        return Finding("warn", "limits are kept, and the profile requests no memory", "set `memory` in the profile")
    return Finding("ok", f"{profile.memory} per extraction, {profile.for_probes.memory} per probe, and kept")


def _setting(config: str, name: str) -> str:
    found = re.search(rf"^{name}\s*=\s*(.*?)\s*$", config, re.MULTILINE)
    return found[1] if found else ""
