"""The batch script of a submission: text, made of values alone."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.output import LOG_BYTES

JOB = "@JOB@"
"""Stands for the job's id in a command; the script puts in its own task's."""
CGROUPS = "@CGROUPS@"
"""Stands for the options by which Podman leaves a container in the job's control group."""

SPREAD = """\
export MASTER_ADDR MASTER_PORT
MASTER_ADDR=$(hostname)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
rank() {
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    # Apptainer passes on what has this prefix.
    for name in RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT; do export "APPTAINERENV_$name=${!name}"; done
    # One process writes the events, and its exit code counts: the others die of its end.
    ((RANK == 0)) || exec >/dev/null
    "$@"
    local code=$?
    ((RANK)) || echo "$code" >"$RANK0"
    return "$code"
}
export -f rank
export RANK0=$state/$job.$attempt.rank0
spread() {
    srun --kill-on-bad-exit=1 bash -c 'rank "$@"' rank "$@"
    local code=$?
    [[ -s $RANK0 && $(<"$RANK0") != 0 ]] && code=$(<"$RANK0")
    rm -f "$RANK0"
    return "$code"
}
"""

BODY = """\
index=${{SLURM_ARRAY_TASK_ID:-0}}
job=${{jobs[index]}}
attempt=$((firsts[index] + ${{SLURM_RESTART_COUNT:-0}}))
logs={logs}
state={state}

mark() {{ # mark KIND JSON: seen whole, or not at all
    local path=$state/$job.$attempt.$1
    printf '%s\\n' "$2" >"$path.$$.partial" && sync "$path.$$.partial" && mv "$path.$$.partial" "$path"
}}

# Slurm starts a task again by itself when its node dies or it is preempted.
if ((attempt > {limit})); then
    echo "$job: all {limit} attempts are used up" >&2
    exit 1
fi
mark start "{{\\"node\\": \\"${{SLURMD_NODENAME:-$(hostname)}}\\"}}"
stop_container() {{ :; }}
{setup}{helper}run() {{
    {start} {command}
}}

# The last {log_bytes} to twice as many bytes of stderr are kept: no log fills the volume.
errors=$logs/$job.$attempt.stderr.log
bounded() {{
    trap '' TERM
    while head -c {log_bytes} >"$errors" && (($(stat -c %s "$errors") >= {log_bytes})); do
        mv -f "$errors" "$errors.1"
    done
}}
exec {{stderr}}> >(bounded)
keeper=$!

trap 'kill -TERM "$child" 2>/dev/null; stop_container' TERM
run >"$logs/$job.$attempt.events.jsonl" 2>&"$stderr" {{stderr}}>&- &
child=$!
exec {{stderr}}>&-
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
# Until the log is complete; not for ever, since what the job left running may hold it open.
for _ in {{1..50}}; do kill -0 "$keeper" 2>/dev/null || break; sleep 0.1; done
mark end "{{\\"code\\": $code}}"
exit "$code"
"""


@dataclass(frozen=True)
class Batch:
    """What one submission runs."""

    name: str
    """Of the Slurm job; all of a run's have the same."""
    title: str
    """For people who read the script."""
    jobs: tuple[str, ...]
    firsts: tuple[int, ...]
    """Each job's number of its first attempt in this submission."""
    options: tuple[str, ...]
    """Of sbatch: what the tasks request."""
    command: tuple[str, ...]
    """With JOB in it."""
    limit: int
    """Attempts per job."""
    logs: Path
    state: Path
    output: Path
    """Folder for what the script itself says."""
    is_array: bool = True
    at_once: int | None = None
    spread: bool = False
    """Start it as several processes by srun."""
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    """Shell lines before the task."""


def script(batch: Batch) -> str:
    """The whole script. Raises ContractError for a path that sbatch cannot be given, or a line that would be two."""
    own = [f"--job-name={batch.name}", "--requeue", "--open-mode=append"]
    if batch.is_array:
        at_once = f"%{batch.at_once}" if batch.at_once else ""
        own.append(f"--array=0-{len(batch.jobs) - 1}{at_once}")
    own.append(f'--output="{_output(batch.output)}/{"%A_%a" if batch.is_array else "%j"}.log"')
    # A login shell knows `module`.
    head = ["#!/bin/bash -l" if batch.modules else "#!/bin/bash", f"# {batch.title}"]
    head += [f"#SBATCH {option}" for option in (*own, *batch.options)]
    if split := [line for line in head if len(line.splitlines()) != 1]:
        raise ContractError(f"{split[0]!r}: a line of a batch script cannot hold a line break")
    tables = [f"jobs=({shlex.join(batch.jobs)})", f"firsts=({' '.join(map(str, batch.firsts))})"]
    return "\n".join([*head, "", *tables, _body(batch)])


def _output(folder: Path) -> str:
    """A folder in quotes, as sbatch reads them: a backslash would also switch off what it puts in for %."""
    if bad := [mark for mark in str(folder) if mark in '"\\' or not mark.isprintable()]:
        raise ContractError(f"{str(folder)!r}: sbatch cannot write to a path with {bad[0]!r}; rename the folder")
    return str(folder).replace("%", "%%")


def preparation(modules: Sequence[str], setup: Sequence[str]) -> list[str]:
    """Shell lines before a task: modules are words, setup is shell already."""
    return [*([f"module load {shlex.join(modules)}"] if modules else []), *setup]


def _body(batch: Batch) -> str:
    return BODY.format(
        logs=quoted(str(batch.logs)),
        state=quoted(str(batch.state)),
        limit=batch.limit,
        log_bytes=LOG_BYTES,
        setup="".join(f"{line}\n" for line in preparation(batch.modules, batch.setup)),
        helper=SPREAD if batch.spread else "",
        start="spread" if batch.spread else "exec",
        command=" ".join(map(quoted, batch.command)),
    )


def quoted(argument: str) -> str:
    """For the shell: one word, in which JOB becomes the task's own job; CGROUPS become several."""
    if argument == CGROUPS:
        return '"${cgroups[@]}"'
    return '"$job"'.join(shlex.quote(part) if part else "" for part in argument.split(JOB)) or "''"


def podman_setup(exists: list[str], load: list[str], info: list[str], remove: list[str] | None) -> tuple[str, ...]:
    """Shell lines that bring an image into a node's storage, once for all tasks there, and set CGROUPS.

    With `remove` the container has a name, by which it is ended before Slurm ends the script by force: below the
    job's group, where runc puts it, Slurm would not find it. What a killed script left is replaced by its next attempt.
    """
    there, bring = shlex.join(exists), shlex.quote(f"{shlex.join(exists)} || {shlex.join(load)}")
    named = (
        []
        if remove is None
        else [
            "container=lary-$SLURM_JOB_ID",
            'cgroups+=(--replace "--name=$container")',
            f'stop_container() {{ {shlex.join(remove)} "$container" >/dev/null 2>&1; }}',
        ]
    )
    return (
        f'{there} || flock "/tmp/lary-podman-$(id -u).lock" sh -c {bring} >&2',
        # runc cannot leave a container in the group it is started in, only below it.
        f"if [[ $({shlex.join(info)}) == crun ]]; then",
        "    cgroups=(--cgroups=disabled)",
        "else",
        "    group=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ || $1 == 0 { print $3; exit }' /proc/self/cgroup)",
        '    cgroups=(--cgroups=no-conmon "--cgroup-parent=$group")',
        "fi",
        *named,
    )
