"""Documents, paths and published schemas."""

import ast
import errno
from pathlib import Path
from typing import Any

import pytest
from lary_schema import json_schemas
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, ExitCode, WeightsError, canonical_json, fingerprint
from lary_schema.cards import Actions, DatasetCard, ImageCard, ModelCard, Normalisation, PairColumns
from lary_schema.events import Progress, RowFailed, from_line, to_line
from lary_schema.jobs import ActionRows, ExtractJob, MetadataFile, Source, Values, check_version
from lary_schema.mounts import Mounts, resolve_media
from lary_schema.store.layout import Provenance
from lary_schema.values import ExtractionSettings, make_values

SCHEMA = Path(__file__).parents[1]


def test_published_schemas_are_those_of_the_code() -> None:
    on_disk = {p.name: p.read_text(encoding="utf-8") for p in (SCHEMA / "schemas").iterdir()}
    assert on_disk == json_schemas.documents()


def test_the_schema_check_names_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json_schemas.main([str(tmp_path)]) == 0
    assert json_schemas.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "job.schema.json").write_text("{}")
    assert json_schemas.main(["--check", str(tmp_path)]) == 1
    assert "job.schema.json is out of date" in capsys.readouterr().err


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "BAD_JOB": 2,
        "TOO_MANY_FAILED": 3,
        "WEIGHTS": 4,
        "OUT_OF_MEMORY": 5,
        "DIVERGED": 7,
        "PEER_LOST": 8,
        "STALLED": 124,
    }
    assert WeightsError("x").exit_code == 4


def test_a_job_round_trips_and_refuses_contradictions(values: Values, provenance: Provenance) -> None:
    source = Source(
        metadata=MetadataFile(path="m.csv", sha256="a" * 64, rows=10), columns=values.columns, media=".", frames=9
    )
    job = ExtractJob(id="j", image="toy", values=values, source=source, store=provenance.layout, shards=(0, 2))
    assert ExtractJob.model_validate_json(job.to_json()) == job
    data = job.model_dump(mode="json")
    changes: list[tuple[dict[str, object], str]] = [
        ({"shards": [0, 0]}, "distinct"),
        ({"shards": [3]}, "below 3"),
        ({"shard": [1]}, "Extra inputs"),
        ({"store": {**data["store"], "fingerprint": "0"}}, "not the fingerprint"),
        ({"store": {**data["store"], "path": "../x"}}, "must be relative"),
    ]
    for change, message in changes:
        with pytest.raises(ContractError, match=message):
            ExtractJob.parse(data | change, "job.json")


def test_another_contract_version_is_refused() -> None:
    with pytest.raises(ContractError, match="job version 99, this image has version 1"):
        check_version({"version": 99}, "job.json")
    check_version({"version": 1}, "job.json")


def test_a_document_error_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("key: my set\ntask: classification\n")
    with pytest.raises(ContractError, match=r"card\.yaml: not a valid DatasetCard(.|\n)*key: .*letters, digits"):
        DatasetCard.load(path)
    path.write_text("a: [")
    with pytest.raises(ContractError, match=r"card\.yaml: not YAML"):
        DatasetCard.load(path)
    with pytest.raises(ContractError, match=r"no\.json: cannot be read"):
        Mounts.read(tmp_path / "no.json")


def test_events_round_trip_and_chatter_is_no_event() -> None:
    for event in (
        RowFailed(job="j", row=3, reason="timeout", detail="ü"),
        Progress(job="j", done=1, total=2, per_second=3),
    ):
        assert from_line(to_line(event)) == event
        assert to_line(event).count("\n") == 1
    assert from_line("Loading weights...") is None
    assert from_line('{"loss": 3}') is None


def test_canonical_json_does_not_depend_on_key_order() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == '{"a":[1.5,"ü"],"b":1}'.encode()
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_mounts_round_trip_and_default_to_the_container_paths() -> None:
    assert Mounts.from_env({}).latents == Path("/latents")
    mounts = Mounts(data="/a", weights="/b", latents="/c", job="/d", out="/e")  # type: ignore[arg-type]
    assert Mounts.from_env(mounts.to_env()) == mounts


def test_media_paths() -> None:
    root, data = Path("/data/clips"), Path("/data")
    assert resolve_media("a b/ü.mp4", root, data, None) == Path("/data/clips/a b/ü.mp4")
    assert resolve_media("/host/x/1.mp4", root, data, "/host") == Path("/data/x/1.mp4")
    assert resolve_media("/elsewhere/1.mp4", root, data, "/host") == Path("/elsewhere/1.mp4")
    for bad, message in [("", "empty"), ("../x.mp4", "contains '..'"), ("a/../../x", "contains '..'")]:
        with pytest.raises(ContractError, match=message):
            resolve_media(bad, root, data, None)


def test_publishing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result.json"
    publish_text(target, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish_text(target, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert target.read_text() == "old"


CARD = {
    "key": "toy-a{N}",
    "pattern": r"toy-a\d+",
    "title": "t",
    "paradigm": "baseline",
    "modes": {"image": {"input": {"shape": [2, 4, 4, 3]}, "tokens": [1, 2, 3], "time_axis": False}},
    "variants": ["corrected", "lary-v1"],
    "variant_modes": {"lary-v1": {"image": {"input": {"shape": [2, 4, 4, 3]}, "tokens": [2, 2, 3]}}},
    "preprocessing": "p",
    "revision": 1,
    "license": "MIT",
    "source": "here",
}


def test_a_model_card_holds_its_modes_and_variants() -> None:
    card = ModelCard.parse(CARD | {"key": "toy-a"}, "card")
    assert card.spec("image", "corrected").tokens == (1, 2, 3)
    assert card.spec("image", "lary-v1").tokens == (2, 2, 3)
    with pytest.raises(ContractError, match="has no variant 'x'; it has corrected, lary-v1"):
        card.spec("image", "x")
    with pytest.raises(ContractError, match="has no mode 'video'; it has image"):
        card.spec("video", "corrected")
    with pytest.raises(ContractError, match="must have T = 1"):
        ModelCard.parse(
            CARD | {"key": "toy", "modes": {"image": {**CARD["modes"]["image"], "tokens": [2, 2, 3]}}},  # type: ignore[index]
            "card",
        )


def test_an_exact_key_comes_before_a_family() -> None:
    family, exact = CARD | {"key": "toy-a"}, {**CARD, "key": "toy-a7", "pattern": None}
    image = ImageCard.parse({"name": "toy", "kind": "model", "module": "m", "models": [family, exact]}, "image")
    found = [image.card(key) for key in ("toy-a7", "toy-a8", "toy-b")]
    assert [card and card.key for card in found] == ["toy-a7", "toy-a", None]


def test_only_the_store_needs_numpy_and_zarr_and_only_command_lines_click() -> None:
    heavy = {"numpy", "zarr", "tensorstore", "torch", "pandas", "click"}
    for file in (SCHEMA / "src/lary_schema").rglob("*.py"):
        if file.name in (
            "writer.py",
            "reader.py",
            "chunks.py",
            "intervals.py",
            "action_statistics.py",
            "lazy_group.py",
            "option_types.py",
        ):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not heavy & {name.split(".")[0] for name in names}, file


# --- models that read actions ----------------------------------------------------------------------


CHUNKS = Actions(folder="a/{split}", stride=4, dim=3, names=("x", "y", "z"), normalisation=Normalisation(kind="train"))


def reader_of_actions(**changes: Any) -> ModelCard:
    """As a recipe's card: steps and dimensions are the data's."""
    modes = {"actions": {"input": {"shape": [0, 0]}, "tokens": [0, 1, 5], "indices": [0, 1]}}
    fields = {"key": "reader", "title": "reader", "paradigm": "baseline", "modes": modes, "preprocessing": "actions"}
    more = {"revision": 1, "license": "MIT", "source": "tests", "code_sha256": "c" * 64, "variants": ["a", "b"]}
    wide = {"b": {"actions": {"input": {"shape": [0, 0]}, "tokens": [0, 1, 9], "indices": [0, 1]}}}
    return ModelCard.parse(fields | more | {"variant_modes": wide} | changes, "card")


def rows_of_pairs() -> Source:
    metadata = MetadataFile(path="m.csv", sha256="a" * 64, rows=10)
    return Source(metadata=metadata, columns=PairColumns(), media="m", frames=1)


def test_fingerprints_of_frames_are_those_of_before_actions(values: Values) -> None:
    """As they were computed before there was anything but frames."""
    assert values.fingerprint == "bab28c63c20c305830071ad0e9fb8bb8d2b02220f7da8970f0cc8d759cad222f"
    later = values.model_copy(update={"libraries": {"av": "14.0"}})
    assert later.fingerprint == "5629abdf53ade5b42462588bd3323f586f7b43efa032a612ea32fd22c083e35c"
    assert "actions" not in values.to_json()


@pytest.mark.parametrize(("variant", "width"), [("a", 5), ("b", 9)])
def test_a_model_of_actions_is_sized_by_its_data(variant: str, width: int) -> None:
    card = reader_of_actions()
    assert card.of_chunks(None) == card
    sized = card.of_chunks(CHUNKS)
    spec = sized.spec("actions", variant)
    assert (spec.input.shape, spec.tokens, spec.indices) == ((4, 3), (4, 1, width), (4, 1))
    assert sized.of_chunks(CHUNKS.model_copy(update={"stride": 9})) == sized, "what has a size keeps it"
    values = make_values(sized, "reader-1", variant, "set", "val", rows_of_pairs(), {}, ExtractionSettings(), CHUNKS)
    assert (values.mode, values.actions) == (
        "actions",
        ActionRows(column="action", folder="a/val", stride=4, dim=3),
    )
    assert Values.model_validate_json(values.to_json()) == values
    changed = values.model_copy(update={"actions": ActionRows(column="action", folder="b", stride=4, dim=3)})
    assert changed.fingerprint != values.fingerprint


def test_what_a_model_of_actions_cannot_read_is_refused() -> None:
    card = reader_of_actions().of_chunks(CHUNKS)

    def plan(actions: Actions | None) -> Values:
        return make_values(card, "reader-1", "a", "set", "val", rows_of_pairs(), {}, ExtractionSettings(), actions)

    with pytest.raises(ContractError, match=r"reader-1 reads actions, and the card of dataset set has no actions:"):
        plan(None)
    for change, said in (({"stride": 5}, "have 5 x 3"), ({"dim": 2, "names": ("x", "y")}, "have 4 x 2")):
        with pytest.raises(ContractError, match=rf"4 steps x 3 dimensions.*dataset set {said}"):
            plan(CHUNKS.model_copy(update=change))
    document = plan(CHUNKS).model_dump(mode="json")
    for change in ({"actions": None}, {"mode": "image"}):
        with pytest.raises(ContractError, match="they go together"):
            Values.parse(document | change, "values")


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ({"actions": {"input": {"shape": [4]}, "tokens": [4, 1, 5]}}, "float32"),
        ({"actions": {"input": {"shape": [4, 3], "dtype": "int64"}, "tokens": [4, 1, 5]}}, "float32"),
        ({"image": {"input": {"shape": [2, 8, 8, 3]}, "tokens": [1, 1, 5]}}, "no mode of frames"),
    ],
)
def test_cards_of_actions_that_cannot_be_are_refused(modes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        reader_of_actions(modes=modes)
