"""What a node sees: the shared volume, the launcher, a GPU. Checked by a job of a minute."""

import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lary_doctor.check import Context, Finding, worst
from lary_doctor.disk import LITTLE, nearest_existing
from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError
from lary_terminal.tables import size_text

from lary_slurm.client import client_env, run_apart
from lary_slurm.profile import Profile, load_profile
from lary_slurm.script import preparation

NAME = "slurm_job"
QUEUE_S = 180
SHARED = "put the workspace and the latents on a volume that every node mounts at the same path"
SCRIPT = """
echo node=${SLURMD_NODENAME:-$(hostname)}
cd %(folder)s 2>/dev/null || { echo folder=missing; exit 0; }
echo folder=there
echo seen=$(cat here 2>/dev/null)
printf %%s %(token)s >draft && sync draft && mv draft there && echo renamed=yes
echo free=$(df --output=avail -B1 . | tail -n 1)
%(setup)s
%(launcher)s >launcher.log 2>&1 && echo launcher=yes
echo gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU)
"""


def run(context: Context) -> Finding:
    try:
        profile = load_profile(context.own.get("profile"))
        where = nearest_existing(context.workspace.latents)
        with tempfile.TemporaryDirectory(prefix="lary-doctor-", suffix=PARTIAL_SUFFIX, dir=where) as name:
            Path(name).chmod(0o755)
            return _look(profile, Path(name))
    except ContractError as error:
        return Finding("skip", str(error).splitlines()[0])
    except OSError as error:
        return Finding(
            "fail", f"{error.filename}: {error.strerror}", "choose a folder that may be written by --latents"
        )


def _look(profile: Profile, folder: Path) -> Finding:
    token = secrets.token_hex(8)
    (folder / "here").write_text(token)
    text = SCRIPT % {
        "folder": shlex.quote(str(folder)),
        "token": token,
        "setup": "\n".join(preparation(profile.modules, profile.setup)),
        "launcher": _launcher(profile),
    }
    requested = [option for option in profile.options() if not option.startswith("--time=")]
    shell = ["bash", "-l" if profile.modules else "-c", *(["-c"] if profile.modules else []), text]
    command = ["srun", "--job-name=lary-doctor", "--time=1", "--quiet", *requested, *shell]
    try:
        done = run_apart(command, client_env(os.environ), QUEUE_S)
    except subprocess.TimeoutExpired:
        return Finding("warn", f"a job of a minute did not start within {QUEUE_S} s", "squeue --start; try again later")
    except OSError as error:
        return Finding("skip", f"srun: {error.strerror}")
    facts = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode or "node" not in facts:
        return Finding("fail", f"a job fails: {done.stderr.strip()[-500:]}", "correct the profile's options")
    return worst(list(_findings(profile, facts, folder, token)))


def _launcher(profile: Profile) -> str:
    """A command that succeeds where the launcher works."""
    if profile.launcher == "process":
        return shlex.join([sys.executable, "-P", "-s", "-c", "import lary_schema"])
    if profile.launcher == "pyxis":
        return "srun --help | grep -q container-image"
    return shlex.join([profile.launcher, *profile.launcher_before, "version"])


def _findings(profile: Profile, facts: dict[str, str], folder: Path, token: str) -> list[Finding]:
    node = facts["node"]
    if facts.get("folder") != "there" or facts.get("seen") != token:
        return [Finding("fail", f"node {node} does not see {folder.parent} as this machine does", SHARED)]
    found = [_comes_back(folder, token, profile.settle_s, facts, node)]
    free = int(facts.get("free") or 0)
    found.append(
        Finding("warn" if free < LITTLE else "ok", f"{size_text(free)} free there", "" if free > LITTLE else SHARED)
    )
    if facts.get("launcher") == "yes":
        found.append(Finding("ok", f"launcher {profile.launcher} works"))
    else:
        log = folder / "launcher.log"
        said = log.read_text(errors="replace").strip()[-300:] if log.is_file() else "it said nothing"
        remedy = "load it by the profile's `modules` or `setup`, or choose another launcher"
        found.append(Finding("fail", f"launcher {profile.launcher} does not work on node {node}: {said}", remedy))
    if profile.has_gpu and not int(facts.get("gpus") or 0):
        found.append(Finding("fail", f"no GPU on node {node}", "request it by `gpus` or `gres` in the profile"))
    elif profile.has_gpu:
        found.append(Finding("ok", f"{facts['gpus']} GPU"))
    return found


def _comes_back(folder: Path, token: str, settle_s: float, facts: dict[str, str], node: str) -> Finding:
    """How long a file that was renamed on the node takes to be seen here."""
    if facts.get("renamed") != "yes":
        return Finding("fail", f"node {node} cannot write, sync and rename in {folder.parent}", SHARED)
    begin = time.monotonic()
    while not ((folder / "there").is_file() and (folder / "there").read_text() == token):
        if time.monotonic() - begin > settle_s:
            remedy = "raise `settle_s` in the profile above the volume's delay"
            return Finding("fail", f"a file of node {node} was not seen here after {settle_s:.0f} s", remedy)
        time.sleep(0.2)
    return Finding(
        "ok", f"node {node} shares {folder.parent}; its file was seen after {time.monotonic() - begin:.1f} s"
    )
