"""The orchestrator: knows jobs, never tensors."""

__version__ = "0.1.0"
