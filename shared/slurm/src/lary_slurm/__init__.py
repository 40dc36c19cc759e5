"""The `slurm` runtime: one array job per extraction, probes that wait for their stores (docs/decisions/0010)."""
