"""The profile of a cluster: one YAML file that says what jobs request and how they are started there."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from lary_schema.base import Document
from lary_schema.yaml_files import read_yaml
from pydantic import AfterValidator, Field, model_validator

PROFILE_VARIABLE = "LARY_SLURM_PROFILE"
Launcher = Literal["process", "podman", "apptainer", "pyxis"]
OURS = (
    *("array", "chdir", "comment", "dependency", "error", "export", "job-name", "kill-on-invalid-dep", "open-mode"),
    *("output", "parsable", "requeue", "no-requeue", "wait", "wrap", "signal"),
)
"""Options of sbatch that the runtime itself gives, so that a profile may not."""
TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}", re.ASCII)
MEMORY = re.compile(r"\d+[KMGT]?", re.ASCII)
WORD = re.compile(r"[\w.,:@%+&|*()\[\]=/-]+")
"""Without what ends or quotes a word for sbatch, which has rules of its own: blanks, quotes, backslashes and #."""
OPTION = re.compile(rf"--[a-z][a-z-]*(={WORD.pattern})?")


def _matches(pattern: re.Pattern[str], example: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not of the form {example}")
        return value

    return AfterValidator(check)


def _extra(value: str) -> str:
    option = re.match(r"--([a-z-]+)", value)
    # sbatch takes the beginning of an option's name for the whole.
    if option and any(own.startswith(option[1]) for own in OURS):
        raise ValueError(f"--{option[1]} is given by the runtime itself; leave it out")
    if not OPTION.fullmatch(value):
        raise ValueError(f"{value!r}: write a long option of sbatch as one word, such as --reservation=lab")
    return value


def _shell(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Lines that end what they begin: an open quote, bracket or continuation would take in what follows them."""
    text = "\n".join((":", *lines))
    for whole in (text, f"{{\n{text}\n}}") if lines and shutil.which("bash") else ():
        command, env = ["bash", "--norc", "-n"], os.environ | {"LC_ALL": "C"}
        done = subprocess.run(command, input=whole, capture_output=True, text=True, env=env, check=False)
        if done.returncode or done.stderr:
            raise ValueError(f"no whole lines of bash: {done.stderr.strip().splitlines()[0]}")
    return lines


Time = Annotated[str, _matches(TIME, "MINUTES, HH:MM:SS or DAYS-HH:MM:SS")]
Memory = Annotated[str, _matches(MEMORY, "2000M or 16G")]
Word = Annotated[str, _matches(WORD, "a word without spaces")]


class Resources(Document):
    """What a task requests of the cluster; None leaves it to the cluster."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    time: Time | None = None
    """Rounded up to whole minutes by Slurm."""
    cpus: int | None = Field(default=None, ge=1)
    """Per task; also the number of its threads."""
    memory: Memory | None = None
    """Per node."""
    gpus: int | None = Field(default=None, ge=1)
    """Per node, requested by `--gpus-per-node`."""
    gres: Word | None = None
    """The older way to request GPUs: `gpu:a100:1`."""
    constraint: Word | None = None
    nodes: int | None = Field(default=None, ge=1)
    """Of a probe: one process on each of them."""
    sbatch: tuple[Annotated[str, AfterValidator(_extra)], ...] = ()
    """Further options, each as one `#SBATCH` line."""

    @model_validator(mode="after")
    def _one_way_to_gpus(self) -> Self:
        if self.gpus and self.gres and "gpu" in self.gres:
            raise ValueError("GPUs by gpus and by gres: leave one of them out")
        return self

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus or (self.gres and "gpu" in self.gres))

    def options(self) -> tuple[str, ...]:
        """The options of sbatch, in a fixed order."""
        named = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "nodes": self.nodes or 1,
            "ntasks-per-node": 1,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "gpus-per-node": self.gpus,
            "gres": self.gres,
            "constraint": self.constraint,
        }
        return (*(f"--{name}={value}" for name, value in named.items() if value is not None), *self.sbatch)


class Profile(Resources):
    """A cluster. The fields of `Resources` hold for extractions, and for probes where `probe` says nothing else."""

    probe: Resources = Resources()
    launcher: Launcher = "process"
    launcher_before: tuple[str, ...] = ()
    """The launcher's general options (Podman's --root, --runtime), before its verb."""
    launcher_options: tuple[str, ...] = ()
    """Further options of the container, after ours."""
    images: Path | None = None
    """Folder on the shared volume with the archives of `lary-orch images export`."""
    modules: tuple[Word, ...] = ()
    """Loaded before each task."""
    setup: Annotated[tuple[str, ...], AfterValidator(_shell)] = ()
    """Lines of bash, run as they are before each task, after the modules."""
    tasks: int = Field(default=8, ge=1)
    """Into how many tasks a store's missing shards are divided, at most."""
    at_once: int | None = Field(default=None, ge=1)
    """How many tasks of one array may run at the same time."""
    max_array: int | None = Field(default=None, ge=1)
    """Tasks per array job, where fewer than the cluster's MaxArraySize are wanted."""
    settle_s: float = Field(default=60, ge=0)
    """How long a file that a finished task wrote may take to be seen from another host."""
    poll_s: float = Field(default=10, ge=10)
    """Seconds between two queries of the controller, at least; unchanged replies double it up to a minute."""

    @model_validator(mode="after")
    def _images_where_needed(self) -> Self:
        if self.launcher != "process" and self.images is None:
            raise ValueError(f"launcher {self.launcher} needs `images`, the folder of `lary-orch images export`")
        if self.nodes not in (None, 1):
            raise ValueError("an extraction runs on one node; `nodes` belongs under `probe`")
        if self.launcher == "pyxis" and (self.probe.nodes or 1) > 1:
            raise ValueError("probes over several nodes are not made for launcher pyxis; leave `probe.nodes` out")
        return self

    @property
    def for_probes(self) -> Resources:
        """What probes request: `probe` over the fields above."""
        common = {name: getattr(self, name) for name in Resources.model_fields}
        given = {name: getattr(self.probe, name) for name in self.probe.model_fields_set}
        if "gpus" in given or "gres" in given:
            common |= {"gpus": None, "gres": None}
        return Resources.model_validate(common | given)


def load_profile(path: Path | None, environ: Mapping[str, str] = os.environ) -> Profile:
    """The profile in a file, in that of LARY_SLURM_PROFILE, or one that requests nothing.

    Raises ContractError naming the file and the key that is wrong.
    """
    path = path or (Path(environ[PROFILE_VARIABLE]) if environ.get(PROFILE_VARIABLE) else None)
    if path is None:
        return Profile()
    data = read_yaml(path)
    return Profile.parse({} if data is None else data, str(path))
