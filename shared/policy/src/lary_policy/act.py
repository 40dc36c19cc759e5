"""`act --job FILE`: the policy's side."""

import os

from lary_schema.evaluation import MORE_TASKS, SOCKET, ActJob
from lary_schema.events import Emit, Finished, Idle, Started
from lary_schema.mounts import Mounts
from lary_schema.planned_weights import verified_files

from lary_policy.registry import make_policy
from lary_policy.talk import serve


def act(job: ActJob, emit: Emit) -> None:
    """Load the policy, answer until a simulator says good-bye and no other one may come.

    Raises WeightsError for weights that are not the planned ones: an edited statistic would be another policy.
    """
    mounts = Mounts.from_env()
    policy = make_policy(job.policy)
    policy.load(verified_files(job.weights, mounts.weights, lambda _: None), job.device)
    emit(Started(job=job.id, total=0, unit="episodes", device=job.device, pid=os.getpid()))

    def another() -> bool:
        if os.environ.get(MORE_TASKS) != "1":
            return False
        emit(Idle(job=job.id))
        return True

    serve(policy, mounts.out / SOCKET, job.connect_timeout_s, job.stall_timeout_s, another)
    emit(Finished(job=job.id, done=0, per_second=0))
