"""Does the profile's partition take jobs?"""

from lary_orch.doctor.check import Context, Finding
from lary_schema.base import ContractError

from lary_slurm.client import Slurm
from lary_slurm.profile import load_profile

NAME = "slurm_partition"


def run(context: Context) -> Finding:
    try:
        profile = load_profile(context.own.get("profile"))
        wanted = {name for name in (profile.partition, profile.for_probes.partition) if name}
        rows = [line.split("|") for line in Slurm().run("sinfo", "--noheader", "--format=%R|%a|%D|%l|%t").splitlines()]
    except ContractError as error:
        return Finding("skip", str(error).splitlines()[0])
    known = sorted({row[0] for row in rows})
    if wanted - set(known):
        named = ", ".join(sorted(wanted - set(known)))
        return Finding("fail", f"no partition {named}; there are {', '.join(known)}", "name one of them in the profile")
    used = [row for row in rows if not wanted or row[0] in wanted]
    down = sorted({row[0] for row in used if row[1] != "up"})
    if down:
        return Finding("fail", f"partition {', '.join(down)} is not up", "name another one in the profile")
    nodes = sum(int(row[2]) for row in used)
    ready = sum(int(row[2]) for row in used if not row[4].startswith(("down", "drain", "fail", "maint", "unk")))
    limits = ", ".join(sorted({row[3] for row in used}))
    message = (
        f"{', '.join(sorted(wanted)) or 'the default partition'}: {ready} of {nodes} nodes up, time limit {limits}"
    )
    return Finding("ok", message) if ready else Finding("fail", message, "wait, or name another partition")
