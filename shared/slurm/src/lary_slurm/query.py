"""Short queries of an image (`describe`) in a container: on this machine, or in a short job."""

import os
import shlex
import shutil
import subprocess

from lary_orch.runtimes.refusals import refusal
from lary_schema.base import ContractError

from lary_slurm.client import client_env, run_apart
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.profile import Profile
from lary_slurm.script import quoted

TIMEOUT_S = 900
"""A node may have to be waited for, and an image of gigabytes to be loaded."""


def query_container(profile: Profile, launch: Launch) -> str:
    """Stdout of the command. Raises ContractError with the end of its stderr where it fails."""
    whole = query_command(profile, launch, here=shutil.which(profile.launcher) is not None)
    try:
        done = run_apart(whole, client_env(os.environ), TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContractError(f"{shlex.join(whole)}: {error}") from None
    if done.returncode:
        raise refusal(shlex.join(whole), launch.arguments, done.returncode, done.stdout, done.stderr, hint="")
    return done.stdout


def query_command(profile: Profile, launch: Launch, *, here: bool) -> list[str]:
    """The command: by a shell on this machine, or in a short job. Pyxis is a part of srun, so it is always one."""
    text = " ".join(map(quoted, command(profile.launcher, launch)))
    if profile.launcher == "podman" and profile.images is not None:
        lines = podman_lines(launch.program, profile.images / f"{launch.image}.tar", profile.launcher_before)
        text = "\n".join([*lines, text])
    job = ["srun", "--quiet", "--job-name=lary-describe", *profile.options()]
    if profile.launcher == "pyxis":
        return [*job, *command("pyxis", launch)[1:]]
    return ["bash", "-c", text] if here else [*job, "bash", "-c", text]
