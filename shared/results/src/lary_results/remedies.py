"""What to do about a row without a latent, by the reason that its store keeps."""

from lary_schema import commands

FIX_FILE = "replace the file, then run the same command with --retry-failed"
FIX_CSV = "correct the CSV; it makes another store"
FIX_MODEL = "a fault of the model on this row; look at the frames"

REMEDIES = {
    "missing_file": "put the file there, then run the same command with --retry-failed",
    "bad_row": FIX_CSV,
    "bad_path": FIX_CSV,
    "bad_indices": FIX_CSV,
    "decode_error": FIX_FILE,
    "preprocess_error": FIX_MODEL,
    "timeout": "the next run tries it again; --row-timeout gives more time, --keep-failed goes on without it",
    "killed": "the next run tries it again",
    "out_of_memory": "the next run tries it again; fewer --workers need less memory",
    "io_error": "check the volume; the next run tries it again",
    "crashed": "the decoder died of this file; " + FIX_FILE,
    "encode_error": FIX_MODEL,
    "non_finite": FIX_MODEL,
    "overflow": "use --dtype float32",
    "no_latent": "complete what was imported, then import it again, which makes another store: {command}",
}
"""By `lary_schema.events.Reason`."""


SAMPLE_AGAIN = "replace the clip, then choose its frames again ({command}), which makes another store"


def remedy(reason: str, *, sampled: bool = True) -> str:
    """Of a `lary_schema.events.Reason`; nothing for another word. `sampled`: False where the tool that chose the
    row's frames failed on it.
    """
    if not sampled:
        return SAMPLE_AGAIN.replace("{command}", commands.command("data", "manifest", "--help"))
    return REMEDIES.get(reason, "").replace(
        "{command}", commands.command("latents", "import", "-m", "MODEL", "-d", "DATASET")
    )
