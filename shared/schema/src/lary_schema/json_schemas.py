"""The published JSON Schemas: `python -m lary_schema.json_schemas [--check] FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from lary_schema.atomic import publish_text
from lary_schema.cards import DatasetCard, ImageCard, ProtocolCard
from lary_schema.evaluation import ActJob, EvaluateJob, EvaluationResult, VideoJob
from lary_schema.events import EVENT
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.results import ProbeResult
from lary_schema.training import Recipe, TrainJob, TrainResult

Job = Annotated[ExtractJob | ProbeJob | TrainJob | ActJob | EvaluateJob | VideoJob, Field(discriminator="kind")]


def documents() -> dict[str, str]:
    """File name -> JSON Schema text of every document that crosses a boundary."""
    adapters: dict[str, TypeAdapter[Any]] = {
        "job": TypeAdapter(Job),
        "event": EVENT,
        "result": TypeAdapter(ProbeResult),
        "image-card": TypeAdapter(ImageCard),
        "dataset-card": TypeAdapter(DatasetCard),
        "protocol-card": TypeAdapter(ProtocolCard),
        "recipe": TypeAdapter(Recipe),
        "training": TypeAdapter(TrainResult),
        "evaluation": TypeAdapter(EvaluationResult),
    }
    return {
        f"{name}.schema.json": json.dumps(adapter.json_schema(), indent=2, sort_keys=True) + "\n"
        for name, adapter in adapters.items()
    }


def main(arguments: list[str]) -> int:
    """Write the schemas, or with --check say which files on disk are out of date."""
    check, folder = "--check" in arguments, Path(arguments[-1])
    stale = [n for n, text in documents().items() if not _same(folder / n, text)]
    if check:
        for name in stale:
            sys.stderr.write(f"{folder / name} is out of date; run: python -m lary_schema.json_schemas {folder}\n")
        return 1 if stale else 0
    for name in stale:
        publish_text(folder / name, documents()[name])
    return 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
