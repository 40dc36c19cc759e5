"""An engine with our images on it, and commands of ours that use it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import VERBS
from lary_orch.runtimes.docker import JOB, OWNER, DockerRuntime, connect
from lary_orch.runtimes.image_builder import build
from lary_orch.runtimes.images import Recipe, Recipes
from lary_orch.runtimes.jobs import Job, Prepared
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.mounts import Mounts

REPOSITORY = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("lary-orch")

FAKE = """
import json, os, signal, socket, subprocess, sys, time
from pathlib import Path

EAT = "data = bytearray()\\nwhile True: data += bytes(1 << 22)"

def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "allowed"

def facts():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "uid": os.getuid(), "gid": os.getgid(), "environ": dict(os.environ),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "connect": attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
        "write": {path: attempt(Path(path, "x").touch)
                  for path in ("/", "/opt/lary", "/data", "/weights", "/job", "/latents", "/out", "/tmp")},
        "run in tmp": attempt(script_in_tmp),
    }

def script_in_tmp():
    script = Path("/tmp/script")
    script.write_text("#!/bin/sh\\n")
    script.chmod(0o755)
    subprocess.run([script], check=True)

if sys.argv[1] == "describe":
    print("half a reply"); print("no model here", file=sys.stderr); sys.exit(3)
for step in json.loads(Path("/job/job.json").read_text()):
    name, _, value = step.partition(" ")
    if name == "say":
        print(value, flush=True)
    elif name == "complain":
        print(value, file=sys.stderr, flush=True)
    elif name == "facts":
        print(json.dumps(facts()), flush=True)
    elif name == "sleep":
        print("asleep", flush=True); time.sleep(600)
    elif name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif name == "eat":
        exec(EAT)
    elif name == "child-eats":
        subprocess.run([sys.executable, "-c", EAT])
    elif name == "exit":
        sys.exit(int(value))
"""


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("LARY_REQUIRE_DOCKER") == "1":
        pytest.fail(f"LARY_REQUIRE_DOCKER=1, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def client() -> Any:
    """The engine."""
    try:
        return connect()
    except ContractError as error:
        _unavailable(f"no container engine is reachable: {str(error).splitlines()[0]}")


@pytest.fixture(scope="session")
def images(client: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Our images, as the sources are now: old ones would test the code of yesterday."""
    runtime = DockerRuntime("tests", Recipes(REPOSITORY))
    said: list[str] = []
    for _, source in Catalog.load(env={}).images:
        try:
            runtime.prepare(source, said.append)
        except ContractError as error:
            _unavailable(str(error))
    if said:
        _unavailable(said[0])


@dataclass(frozen=True)
class Bench:
    """`lary-orch` in a workspace of its own."""

    workspace: Path

    def start(self, *arguments: str | Path, **environ: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [COMMAND, *arguments],
            env=os.environ | {"LARY_HOME": str(self.workspace)} | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, code: int = 0, **environ: str) -> str:
        """Its stdout; the test fails, showing stderr, on another exit code than `code`."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
        return out + err if code else out

    def scores(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """What `run --json` says last."""
        last = json.loads(self("run", "--runtime", "docker", "--json", *arguments).splitlines()[-1])
        assert last["event"] == "scores"
        return list(last["scores"])


@pytest.fixture(scope="session")
def bench(images: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One workspace for all tests: its demo sets are made once."""
    return Bench(tmp_path_factory.mktemp("bench") / "workspace")


@pytest.fixture
def runtime(client: Any, tmp_path: Path) -> Iterator[DockerRuntime]:
    """A runtime of this test alone, and no container of its own left behind."""
    owner = str(tmp_path)
    yield DockerRuntime(owner, Recipes(REPOSITORY))
    left = client.containers.list(all=True, filters={"label": f"{OWNER}={owner}"})
    for container in left:
        container.remove(force=True)
    assert not left, f"containers left behind: {[c.labels[JOB] for c in left]}"


@pytest.fixture(scope="session")
def fake(images: None, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """An image that does what its job document lists, step by step."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "fake.py").write_text(FAKE)
    (folder / "Dockerfile").write_text(
        'ARG BASE\nFROM ${BASE}\nCOPY fake.py /fake.py\nENTRYPOINT ["python", "/fake.py"]\n'
    )
    source = ImageSource(ImageCard(name="test-fake", kind="model", module="fake"), folder)
    recipe: Recipe = Recipes(REPOSITORY).of(source)
    said: list[str] = []
    report = build(client, recipe, said.append)
    assert any("COPY fake.py" in line for line in said)
    yield Prepared(source, report.ref, report.id, report.id)
    client.images.remove(report.ref, force=True)


@pytest.fixture
def make_task(tmp_path: Path, fake: Prepared) -> Callable[..., Job]:
    """`make_task(["say hello", "exit 3"], verb="classify")`."""

    def make(steps: Sequence[str], verb: str = "extract", **fields: Any) -> Job:
        folders = {name: tmp_path / name for name in Mounts.model_fields}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        (folders["job"] / "job.json").write_text(json.dumps(steps))
        declared = VERBS[verb]
        return Job(
            id="fake-job",
            verb=verb,
            title="fake-job",
            mounts=Mounts(**folders),
            image=fake,
            run="test-run",
            reads=declared.reads,
            writes=declared.writes,
            **fields,
        )

    return make
