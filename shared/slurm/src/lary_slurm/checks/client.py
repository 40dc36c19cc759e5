"""Does a controller respond, and is the profile one?"""

import shutil

from lary_doctor.check import Context, Finding
from lary_schema.base import ContractError

from lary_slurm.client import Slurm
from lary_slurm.profile import load_profile

NAME = "slurm_client"
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")


def run(context: Context) -> Finding:
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return Finding("fail", f"not found: {', '.join(missing)}", "go to a login node, or load its Slurm module")
    try:
        profile = load_profile(context.own.get("profile"))
    except ContractError as error:
        return Finding("fail", str(error), "correct the profile; docs/cluster.md has an example")
    slurm = Slurm()
    try:
        version = slurm.run("sinfo", "--version").strip()
        slurm.run("scontrol", "ping", timeout_s=20)
        arrays = slurm.max_array()
    except ContractError as error:
        return Finding("fail", f"the controller does not respond: {error}", "contact the cluster's support, or wait")
    return Finding("ok", f"{version}, launcher {profile.launcher}, arrays of up to {arrays} tasks")
