"""Two jobs as one attempt: a simulator, and the policy that it talks to. They begin and end together."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from lary_orch.runtimes.base import Running, Start
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_schema.base import ContractError, ExitCode, explain
from lary_schema.events import Failed, Progress, from_line, to_line

from lary_evaluate.serving import Policies

GRACE_S = 10.0
"""For the side that is left, when the other has gone: it has a message of its own to say."""


def starting(start: Start, policies: Mapping[str, Job], serving: Policies) -> Start:
    """Starts a simulator's job together with its policy, which `policies[id]` describes; one without a policy alone."""

    def begin(job: Job, slot: Slot, stderr: Path) -> Running:
        acting = policies.get(job.id)
        if acting is None:
            return start(job, slot, stderr)
        # They compute in turn, and share the slot's cores; memory they use both at once.
        half = replace(slot, memory_share=slot.memory_share / 2)
        log = stderr.with_name(stderr.name.replace(".stderr.", ".policy.stderr."))
        policy, folder = serving.start(acting, half, log)
        try:
            simulator = start(replace(job, mounts=job.mounts.model_copy(update={"latents": folder})), half, stderr)
        except ContractError:
            policy.stop(grace_s=0)
            raise
        return Pair(job.id, simulator, policy)

    return begin


class Pair:
    """Events and exit code are the simulator's, unless the policy ended first: then that is why."""

    def __init__(self, job: str, simulator: Running, policy: Running) -> None:
        self._job, self._simulator, self._policy = job, simulator, policy
        self._simulator_over = threading.Event()
        self._left: Failed | None = None
        """How the policy ended, where it did so first and not well."""
        self._watching = threading.Thread(target=self._watch_policy, name=f"policy-{job}", daemon=True)
        self._watching.start()

    def _watch_policy(self) -> None:
        said = ""
        for line in self._policy.lines():
            event = from_line(line)
            said = event.message if isinstance(event, Failed) else said
        code = self._policy.wait()
        if code and not self._simulator_over.is_set():
            self._left = Failed(job=self._job, code=code, message=f"the policy: {said or explain(code)}")
            # It has noticed by itself, unless it is still waiting for a policy to come.
            self._simulator.stop(GRACE_S)

    def lines(self) -> Iterator[str]:
        met = False
        for line in self._simulator.lines():
            met = met or isinstance(from_line(line), Progress)
            yield line
        code = self._simulator.wait()
        # The connection closes before the process that held it has ended, and that one knows why. One that heard
        # good-bye ends by itself, or says that it waits for another task.
        if code == ExitCode.PEER_LOST or (code == ExitCode.DONE and met):
            self._watching.join(GRACE_S)
        self._simulator_over.set()
        self._policy.stop(GRACE_S)
        self._watching.join()
        if code and self._left is not None:
            yield to_line(self._left)

    def wait(self) -> int:
        code = self._simulator.wait()
        self._watching.join()
        return self._left.code if code and self._left is not None else code

    def stop(self, grace_s: float = 10) -> None:
        self._simulator_over.set()
        self._simulator.stop(grace_s)
        self._policy.stop(grace_s)
