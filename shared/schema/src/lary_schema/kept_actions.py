"""Action chunks that several probes of a run read, in one file while they run (decision 0043).

Which probes share a file, and how large it gets at most; `lary_probe.kept_actions` reads and writes it.
"""

from pathlib import Path

from lary_schema.base import fingerprint
from lary_schema.jobs import ActionRows, ProbeJob

VARIABLE = "LARY_ACTIONS"
"""Names the file of a job; empty: none."""
RECORD_BYTES = 32
VALUE_BYTES = 8


def key_of(job: ProbeJob, data: Path) -> str | None:
    """Equal for jobs that read the same action files of the same rows below `data`; None for one that reads none."""
    if job.actions is None:
        return None
    splits = [
        {
            "rows": ActionRows.of(job.actions, split.name).model_dump(mode="json"),
            "csv": split.source.metadata.sha256,
            "host_data": split.source.host_data,
        }
        for split in (job.train, *job.evaluate)
    ]
    return fingerprint({"splits": splits, "data": str(data)})[:16]


def most_bytes(job: ProbeJob) -> int:
    """Of the file, at most."""
    if job.actions is None:
        return 0
    rows = sum(split.source.metadata.rows for split in (job.train, *job.evaluate))
    return rows * (RECORD_BYTES + VALUE_BYTES * job.actions.stride * job.actions.dim)
