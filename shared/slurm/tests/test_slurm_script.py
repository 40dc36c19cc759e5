"""The batch script, run by bash as Slurm would run it, and as Slurm would start it again."""

import itertools
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_slurm import script as module
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.profile import Launcher
from lary_slurm.script import CGROUPS, JOB, Batch, quoted, script


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    folder = tmp_path / "it's a volume"
    for name in ("logs", "tasks", "output"):
        (folder / name).mkdir(parents=True)
    return Batch(
        name="lary-smoke-1-abc",
        title="run smoke-1, extract.a: 2 tasks",
        jobs=("extract.a.p0", "extract.a.p1"),
        firsts=(1, 2),
        options=("--partition=debug", "--mem=1G"),
        command=("bash", "-c", 'echo "{\\"job\\": \\"$0\\"}"; echo oops >&2; exit "$1"', "x/@JOB@/y", "7"),
        limit=3,
        logs=folder / "logs",
        state=folder / "tasks",
        output=folder / "output",
    )


def _run(batch: Batch, **env: str) -> int:
    return subprocess.run(["bash", "-c", script(batch)], env=os.environ | env, check=False).returncode


def test_head(batch: Batch) -> None:
    text = script(replace(batch, at_once=5))
    assert text.splitlines()[:8] == [
        "#!/bin/bash",
        "# run smoke-1, extract.a: 2 tasks",
        "#SBATCH --job-name=lary-smoke-1-abc",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --array=0-1%5",
        f'#SBATCH --output="{batch.output}/%A_%a.log"',
        "#SBATCH --partition=debug",
    ]
    single = script(replace(batch, is_array=False, modules=("python/3.11", "cuda"), setup=("ulimit -c 0",)))
    assert single.startswith("#!/bin/bash -l\n")
    assert "--array" not in single
    assert single.index("module load python/3.11 cuda\nulimit -c 0\n") < single.index("run()")


def test_a_task_takes_its_place_and_leaves_its_marks(batch: Batch) -> None:
    assert _run(batch, SLURM_ARRAY_TASK_ID="1", SLURM_RESTART_COUNT="1", SLURMD_NODENAME="n2") == 7
    assert {path.name: json.loads(path.read_text()) for path in batch.state.iterdir()} == {
        "extract.a.p1.3.start": {"node": "n2"},
        "extract.a.p1.3.end": {"code": 7},
    }
    assert (batch.logs / "extract.a.p1.3.events.jsonl").read_text() == '{"job": "x/extract.a.p1/y"}\n'
    assert (batch.logs / "extract.a.p1.3.stderr.log").read_text() == "oops\n"


def test_a_task_without_attempts_left_does_not_start(batch: Batch) -> None:
    assert _run(batch, SLURM_ARRAY_TASK_ID="1", SLURM_RESTART_COUNT="2") == 1
    assert not list(batch.state.iterdir())
    assert not list(batch.logs.iterdir())


def test_a_task_that_is_ended_politely_says_so(batch: Batch) -> None:
    sleeping = replace(batch, command=("sleep", "60"))
    process = subprocess.Popen(["bash", "-c", script(sleeping)], env=os.environ | {"SLURM_ARRAY_TASK_ID": "0"})
    while not _waits_for(process.pid, "sleep"):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert json.loads((batch.state / "extract.a.p0.1.end").read_text()) == {"code": 143}


def _waits_for(shell: int, command: str) -> bool:
    """Whether a shell has started a command and sleeps until it ends."""
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    names = [_text(f"/proc/{child}/comm").strip() for child in children]
    return command in names and _text(f"/proc/{shell}/stat").rpartition(")")[2].split()[0] == "S"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def test_ranks_of_a_spread_probe(batch: Batch, tmp_path: Path) -> None:
    """Against a fake srun of two processes: who writes events, who they are, and whose code counts."""
    fake = tmp_path / "bin" / "srun"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/bash\nshift\nexport SLURM_NTASKS=2 SLURM_LOCALID=0\n"
        'for rank in 1 0; do SLURM_PROCID=$rank "$@" || true; done\nexit 137\n'
    )
    fake.chmod(0o755)
    say = 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_PORT $APPTAINERENV_RANK"; [ "$MASTER_ADDR" ] && exit 4'
    spread = replace(batch, spread=True, is_array=False, command=("bash", "-c", say), jobs=("probe",), firsts=(1,))
    code = _run(spread, PATH=f"{fake.parent}:{os.environ['PATH']}", SLURM_JOB_ID="20007")
    assert (batch.logs / "probe.1.events.jsonl").read_text() == "0/2 0 20007 0\n"
    assert code == 4
    assert sorted(path.name for path in batch.state.iterdir()) == ["probe.1.end", "probe.1.start"]


@pytest.mark.parametrize("argument", ["plain", "", "it's", 'a "b" $HOME `x` \\ *', "@JOB@", "/a b/@JOB@/c'd"])
def test_words_stay_words(argument: str) -> None:
    said = subprocess.run(
        ["bash", "-c", f"job='j 1'; printf '<%s>' {quoted(argument)}"], capture_output=True, text=True, check=True
    ).stdout
    assert said == f"<{argument.replace('@JOB@', 'j 1')}>"


NASTY = ["a b", "it's", 'a"b', "a\\", "$(touch pwned)", "`touch pwned`", "$HOME", "a;touch pwned", "a\ntouch pwned"]
NASTY += [
    "a&touch pwned",
    "a|touch pwned",
    "*",
    "#SBATCH --uid=0",
    "\n#SBATCH --uid=0\n",
    "{x}",
    "%d",
    "\x1b[2J",
    "-n",
    "~",
]


def test_whatever_a_value_holds_it_is_one_word_in_a_whole_run(batch: Batch, tmp_path: Path) -> None:
    """As modules, words of the command and a path: by bash, and by the lines that sbatch would read."""
    told = 'printf \'%s\\0\' "$@" >"$0"'
    logs = batch.logs.with_name("".join(NASTY).replace("/", "_"))
    logs.mkdir()
    words = (str(tmp_path / "words"), *NASTY)
    text = script(replace(batch, modules=(*NASTY, "gcc"), logs=logs, command=("bash", "-c", told, *words)))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    head = list(itertools.takewhile(lambda line: not line or line.startswith("#"), text.splitlines()))
    assert "#SBATCH --uid=0" not in head, "sbatch reads no further than the first command"
    text = text.replace("module load", "module() { printf '%s\\0' \"$@\" >modules; }\nmodule load", 1)
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "0"}
    assert subprocess.run(["bash", "-c", text], cwd=tmp_path, env=env, check=False).returncode == 0
    assert (tmp_path / "words").read_text().split("\0")[:-1] == NASTY
    assert (tmp_path / "modules").read_text().split("\0")[:-1] == ["load", *NASTY, "gcc"]
    assert (logs / "extract.a.p0.1.events.jsonl").is_file()
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("launcher", ["process", "podman", "apptainer", "pyxis"])
def test_a_launchers_options_stay_words(batch: Batch, launcher: Launcher, tmp_path: Path) -> None:
    """The launcher is a script that writes down its arguments."""
    stub = tmp_path / "bin" / {"pyxis": "srun", "process": "a 'python'; touch pwned"}.get(launcher, launcher)
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" >>"{tmp_path}/words"\necho crun\n')
    stub.chmod(0o755)
    program = str(stub) if launcher == "process" else f"/i/{''.join(NASTY)}"
    before, options = (tuple(f"--{name}={word}" for word in NASTY) for name in ("root", "annotation"))
    launch = Launch("m", ("describe", *NASTY), "image", program, before=before, options=options)
    archive = tmp_path / "".join(NASTY).replace("/", "_")
    setup = podman_lines(program, archive, before, named=True) if launcher == "podman" else ()
    text = script(replace(batch, command=tuple(command(launcher, launch)), setup=setup))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    env = os.environ | {"PATH": f"{stub.parent}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    subprocess.run(["bash", "-c", text], cwd=tmp_path, env=env, check=False)
    words = (tmp_path / "words").read_text().split("\0")
    wanted = {*NASTY} if launcher == "process" else {*NASTY, *before, *options}
    assert wanted <= set(words)
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("field", ["name", "title", "options"])
@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x85", "\u2028"])
def test_no_line_of_the_head_becomes_two(batch: Batch, field: str, end: str) -> None:
    text = f"x{end}#SBATCH --uid=0"
    changes: dict[str, Any] = {field: (text,) if field == "options" else text}
    with pytest.raises(ContractError, match="cannot hold a line break"):
        script(replace(batch, **changes))


@pytest.mark.parametrize("mark", ['"', "\\", "\n", "\x1b"])
def test_a_path_that_sbatch_cannot_be_told_is_refused(batch: Batch, mark: str) -> None:
    with pytest.raises(ContractError, match="sbatch cannot write to a path with"):
        script(replace(batch, output=Path(f"/vol/a{mark}b")))


def test_cgroups_become_several_words() -> None:
    said = subprocess.run(
        ["bash", "-c", f"cgroups=(a 'b c'); printf '<%s>' {quoted(CGROUPS)}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "<a><b c>"


def test_stderr_is_bounded(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 5_000)
    loud = replace(batch, command=("bash", "-c", "for i in {1..5000}; do echo $i; done >&2; exit 3", JOB))
    assert _run(loud, SLURM_ARRAY_TASK_ID="0") == 3
    assert not list(batch.output.iterdir())
    log = batch.logs / "extract.a.p0.1.stderr.log"
    older = log.with_name(log.name + ".1")
    assert log.stat().st_size <= 5_000
    assert older.stat().st_size == 5_000
    assert (older.read_text() + log.read_text()).endswith("4998\n4999\n5000\n")
