"""The device a job computes on, and torch's settings: the same numbers on every run.

The tests run this on the CPU; what is said of CUDA here and in `encode` was not run on a GPU.
"""

import os
import random

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.jobs import ExtractJob
from lary_schema.training import TrainJob


def prepare_torch(job: ExtractJob | TrainJob) -> torch.device:
    """Seed, deterministic algorithms, no TF32, threads. Raises ContractError where there is no such device."""
    # Read by cuBLAS when it starts; without it its sums may be ordered anew on every run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ContractError(f"job {job.id} wants a GPU and torch {torch.__version__} sees none; run it on cpu")
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    random.seed(job.values.seed)
    np.random.seed(job.values.seed % 2**32)
    torch.manual_seed(job.values.seed)
    # Only a warning where an operation has no deterministic form: a model may have no choice.
    torch.set_deterministic_debug_mode("warn")
    # It would fill all new memory with NaN first, to show faults: 4 to 7 % of a small model's time on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if job.device == "cuda":
        # Not of a job before in this process.
        torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(job.device)


def device_name(device: torch.device) -> str:
    """What markers and results call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int | None:
    """Bytes that torch held at most on an accelerator."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
