"""The `docker` runtime: a job is a container that is cut off from everything but its mounts."""

import contextlib
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils.socket import SocketError
from lary_schema import commands, orphans
from lary_schema.base import CONTRACT_VERSION, ContractError, ExitCode
from lary_schema.engine_gpu import REMEDY, GpuAccess, gpu_access
from lary_schema.events import Failed, Warned, to_line
from lary_schema.output import BoundedLog, Lines
from lary_terminal.tables import size_text
from requests.exceptions import RequestException

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import QUERY_TIMEOUT_S, Folder, LocalRuntime, Notify
from lary_orch.runtimes.describe import parse_card
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.docker_args import DEVICE_REQUESTS, Host, bare_arguments, query_arguments, task_arguments
from lary_orch.runtimes.images import CONTRACT_LABEL, SOURCE_LABEL, Recipes, how_to_get, reference
from lary_orch.runtimes.jobs import Job, Prepared
from lary_orch.runtimes.refusals import refusal

API_TIMEOUT_S = 60
ENGINE_BACK_S = 60.0
"""How long a vanished engine is waited for: a restart after an update takes some seconds."""
POLL_S = 0.5
MEMORY_SHARE = 0.9
"""Of the machine's memory, for all tasks together that have no limit of their own; slots divide it."""
UNKNOWN_EXIT = 255
"""The container went away with its engine, or was removed by somebody: nobody knows how it ended."""
KILLED = 137
OWNER, RUN, JOB, ORCHESTRATOR = "lary.owner", "lary.run", "lary.job", "lary.orchestrator"

ENGINE_FAULTS = (DockerException, RequestException, SocketError, OSError)


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn the engine's errors into a ContractError that says what was being done, and what to do."""
    try:
        yield
    except ENGINE_FAULTS as error:
        text = str(getattr(error, "explanation", None) or error)
        # Without an engine the library prints the exceptions of those below it.
        unreachable = re.search(r"Error\(\d+, '([^']+)'\)", text)
        said = f"cannot be reached: {unreachable[1]}" if unreachable else f"says: {text}"
        raise ContractError(f"{what}: the container engine {said}{_remedy(text)}") from None


def _remedy(text: str) -> str:
    running = f"is the engine running? `{commands.command('doctor')}` looks, --runtime process does without"
    for sign, remedy in {
        "device driver": f"containers cannot use the GPU: {REMEDY}, or use --device cpu",
        **dict.fromkeys(("Connection refused", "No such file"), running),
        "Permission denied": "add your user to the group docker, or use --runtime process",
        "bind source path": "the engine does not see this folder; it must be on the engine's own machine",
    }.items():
        if sign in text:
            return f"\n{remedy}"
    return ""


def connect() -> Any:
    """The engine that DOCKER_HOST or the default socket leads to. Raises ContractError where none is reachable."""
    with engine_errors("docker"):
        client = docker.from_env(timeout=API_TIMEOUT_S)
        client.ping()
        return client


def host_facts(client: Any) -> Host:
    """The caller as containers have to run: under a rootless engine, root in it is the caller outside."""
    info = client.info()
    memory = int(info["MemTotal"] * MEMORY_SHARE)
    if any("name=rootless" in option for option in info.get("SecurityOptions") or ()):
        return Host(0, 0, memory_bytes=memory)
    return Host(os.getuid(), os.getgid(), tuple(os.getgroups()), memory)


class DockerRuntime(LocalRuntime):
    """Runs jobs as containers. `owner` names the workspace, so that `sweep` finds its own alone.

    Raises ContractError where no engine is reachable.
    """

    name = "docker"
    isolates = True

    def __init__(self, owner: str, recipes: Recipes) -> None:
        self._owner = owner
        self._recipes = recipes
        self._client = connect()
        with engine_errors("docker"):
            self._host = host_facts(self._client)

    def as_user(self, uid: int, gid: int) -> "DockerRuntime":
        """The same runtime, whose containers run as somebody else."""
        other = copy(self)
        other._host = replace(self._host, uid=uid, gid=gid, groups=())
        return other

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        ref = reference(image.card)
        with engine_errors(f"image {ref}"):
            found = self._find(ref)
        if found is None:
            raise ContractError(f"image {ref} is not on this machine; get it by `{how_to_get(image)}`")
        contract = found.labels.get(CONTRACT_LABEL, str(CONTRACT_VERSION))
        if contract != str(CONTRACT_VERSION):
            raise ContractError(
                f"image {ref}has contract version {contract}, this orchestrator {CONTRACT_VERSION}; "
                f"get one of its release by `{how_to_get(image)}`"
            )
        if image.folder is not None and found.labels.get(SOURCE_LABEL) != self._recipes.source(image):
            notify(f"image {ref} was not built from {image.folder} as it is now; `{how_to_get(image)}` does so")
        return Prepared(image, ref, found.id, found.id)

    def unfit(self, images: Iterable[ImageSource], *, gpu: bool) -> str | None:
        """Why jobs of these images cannot run on this engine; None where they can."""
        with engine_errors("docker"):
            missing = [reference(image.card) for image in images if self._find(reference(image.card)) is None]
            if missing:
                return f"not on the container engine: {', '.join(missing)}"
            access = self._gpu if gpu else None
        return access if isinstance(access, str) else None

    @cached_property
    def _gpu(self) -> GpuAccess | str:
        """How containers get GPUs, or why they cannot. Looked up once."""
        return gpu_access(self._client.info())

    def query(
        self, prepared: Prepared, *arguments: str, folders: Sequence[Folder] = (), limit_s: float = QUERY_TIMEOUT_S
    ) -> str:
        created = query_arguments(prepared, arguments, self._host, self._labels("-", arguments[0]), folders)
        return self._reply(created, f"{prepared.ref} {' '.join(arguments)}", limit_s, how_to_get(prepared.source))

    def adopt(self, ref: str) -> Prepared:
        pull = f"`{commands.joined(('docker', 'pull', ref))}`"
        with engine_errors(f"image {ref}"):
            found = self._find(ref)
        if found is None:
            raise ContractError(f"image {ref} is not on this machine; get it by {pull}")
        created = bare_arguments(found.id, ("describe",), self._host, self._labels("-", "describe"))
        reply = self._reply(created, f"{ref} describe", QUERY_TIMEOUT_S, pull)
        card = parse_card(reply, f"describe of {ref}").model_copy(update={"ref": ref})
        return Prepared(ImageSource(card, None), ref, found.id, found.id)

    def _reply(self, created: dict[str, Any], what: str, limit_s: float, source: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "stderr.log"
            running = self._launch(created, log, what)
            began, timer = time.monotonic(), threading.Timer(limit_s, running.stop)
            timer.start()
            try:
                reply = "".join(running.lines())
            finally:
                timer.cancel()
                running.stop(grace_s=0)
                code = running.wait()
            if code and time.monotonic() - began >= limit_s:
                raise ContractError(f"{what}: no reply within {limit_s:.0f} s")
            if code:
                errors = log.read_text(encoding="utf-8", errors="replace")
                raise refusal(what, tuple(created["command"]), code, reply, errors, f"{source} makes the image anew")
        return reply

    def start(self, job: Job, slot: Slot, stderr: Path) -> "DockerTask":
        job.make_stores()
        created = task_arguments(job, slot, self._host, self._labels(job.run, job.id), self._access(slot))
        # No weights folder is no fault of a model without weights; the image says what it misses.
        created["mounts"] = [m for m in created["mounts"] if not m["ReadOnly"] or Path(m["Source"]).exists()]
        return self._launch(created, stderr, job.id)

    def _access(self, slot: Slot) -> GpuAccess:
        if slot.device.kind != "cuda":
            return DEVICE_REQUESTS
        with engine_errors("docker"):
            access = self._gpu
        if isinstance(access, str):
            raise ContractError(f"{access}: {REMEDY}; or use --device cpu")
        return access

    def sweep(self) -> list[str]:
        removed = []
        with engine_errors("removing containers of dead runs"):
            for container in self._client.containers.list(all=True, filters={"label": f"{OWNER}={self._owner}"}):
                labels = container.labels
                marks = {orphans.OWNER: labels[OWNER], orphans.ORCHESTRATOR: labels.get(ORCHESTRATOR, "")}
                if orphans.is_orphan(marks, self._owner):
                    _remove(container)
                    removed.append(f"removed container {container.short_id} of run {labels.get(RUN, '?')}")
        return removed

    def _find(self, ref: str) -> Any | None:
        try:
            return self._client.images.get(ref)
        except ImageNotFound:
            return None

    def _labels(self, run: str, job: str) -> dict[str, str]:
        marks = orphans.labels(self._owner, run)
        return {OWNER: self._owner, RUN: run, JOB: job, ORCHESTRATOR: marks[orphans.ORCHESTRATOR]}

    def _launch(self, created: dict[str, Any], stderr: Path, what: str) -> "DockerTask":
        with engine_errors(what):
            container = self._client.containers.create(**created)
            try:
                # Before the start, so that no line is missed: nothing keeps them for us.
                frames = container.attach(stream=True, demux=True)
                container.start()
            except BaseException:
                _remove(container)
                raise
        return DockerTask(container, frames, stderr, created["labels"][JOB], created["mem_limit"])


@dataclass(frozen=True)
class End:
    """How a container ended. The kernel kills for memory one process, which need not be the first."""

    code: int
    out_of_memory: bool


class DockerTask:
    """A running container."""

    def __init__(self, container: Any, frames: Any, stderr: Path, job: str, memory: int | None) -> None:
        self._container = container
        self._frames = frames
        self._stderr = stderr
        self._job = job
        self._memory = memory
        self._lock = threading.Lock()
        self._ended_as: End | None = None

    def lines(self) -> Iterator[str]:
        """Stdout's lines; one more event, ours, where the memory limit was hit. Writes the stderr log."""
        lines = Lines()
        with BoundedLog(self._stderr) as log:
            for out, err in self._output():
                log.write(err or b"")
                yield from lines.feed(out or b"")
            yield from lines.end()
            if self._end().out_of_memory:
                message = self._memory_message()
                log.write(f"{message}\n".encode())
                yield to_line(self._memory_event(message))

    def wait(self) -> int:
        """The exit code; 5 for a worker that the kernel killed at the memory limit, 255 where nobody knows."""
        end = self._end()
        return ExitCode.OUT_OF_MEMORY if end == End(KILLED, out_of_memory=True) else end.code

    def stop(self, grace_s: float = 10) -> None:
        if self._ended_as is not None:
            return
        try:
            if grace_s > 0:
                self._container.stop(timeout=math.ceil(grace_s))
            else:
                self._container.kill()
        except APIError as error:
            # It is gone, or ended by itself meanwhile.
            if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
        except RequestException:
            # An engine that is gone took its containers with it, or `sweep` finds them.
            return

    def _output(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        try:
            yield from self._frames
        except ENGINE_FAULTS:
            # The engine went away; its successor knows how the container ended.
            return
        finally:
            self._frames.close()

    def _end(self) -> End:
        """Wait for the end, read it, remove the container. Once."""
        with self._lock:
            if self._ended_as is None:
                self._ended_as = self._read_end()
                # Its end is known; should the engine not let go of it now, `sweep` finds it later.
                with contextlib.suppress(*ENGINE_FAULTS):
                    _remove(self._container)
            return self._ended_as

    def _read_end(self) -> End:
        lost: float | None = None
        while True:
            try:
                self._container.wait()
                self._container.reload()
                state = self._container.attrs["State"]
                return End(int(state["ExitCode"]), bool(state["OOMKilled"]))
            except NotFound:
                return End(UNKNOWN_EXIT, out_of_memory=False)
            except ENGINE_FAULTS:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > ENGINE_BACK_S:
                    return End(UNKNOWN_EXIT, out_of_memory=False)
                time.sleep(POLL_S)

    def _memory_message(self) -> str:
        limit = f"its memory limit of {size_text(self._memory)}" if self._memory else "a memory limit"
        return (
            f"{self._job}: the container reached {limit} and the kernel killed a process of it; "
            "use fewer --workers, a smaller --batch-size, fewer tasks side by side (--cpu-slots, --gpus), or a machine "
            "with more memory"
        )

    def _memory_event(self, message: str) -> Failed | Warned:
        if self.wait() == ExitCode.OUT_OF_MEMORY:
            return Failed(job=self._job, code=ExitCode.OUT_OF_MEMORY, message=message)
        return Warned(job=self._job, message=message)


def _remove(container: Any) -> None:
    try:
        container.remove(v=True, force=True)
    except NotFound:
        return
