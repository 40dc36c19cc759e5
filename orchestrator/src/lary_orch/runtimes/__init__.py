"""Where jobs run: `process` (a virtual environment per image) and `docker`, behind `base.Runtime`."""
