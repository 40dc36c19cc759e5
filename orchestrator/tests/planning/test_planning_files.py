"""What a plan writes, and what is made of weights on disk."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_orch.plan import files as job_files
from lary_orch.plan.files import write_job, write_plan
from lary_orch.weights.index import find_weights, weight_sha256
from lary_schema.base import ContractError, ExitCode, WeightsError, file_sha256, path_sha256
from lary_schema.cards import ModelCard
from lary_schema.jobs import ExtractJob
from lary_schema.linked import linked_files, linked_folder
from lary_schema.runs import PlanFile
from lary_schema.store.layout import Store


def test_a_job_folder_holds_the_job_and_its_csvs(world: Any) -> None:
    world.toy()
    plan = world.plan()
    probe, extract = plan.probes[0], plan.extracts[0]
    folder = write_job(probe, world.workspace)
    assert folder == world.workspace.run(plan.run).job(probe.id)
    assert json.loads((folder / "job.json").read_text()) == probe.document.model_dump(mode="json")
    assert sorted(p.name for p in (folder / "metadata").iterdir()) == ["train.csv", "val.csv"]
    other = write_job(extract, world.workspace)
    assert [p.name for p in (other / "metadata").iterdir()] == ["train.csv"]
    assert (other / "metadata/train.csv").samefile(folder / "metadata/train.csv"), "one copy for all jobs"
    assert file_sha256(folder / "metadata/train.csv") == plan.stores[0].source.sha256


def test_the_users_csv_may_be_edited_under_a_run(world: Any) -> None:
    world.toy()
    plan = world.plan()
    copy = write_job(plan.extracts[0], world.workspace) / "metadata/train.csv"
    world.csv("train", text="other")
    assert file_sha256(copy) == plan.stores[0].source.sha256
    assert not copy.stat().st_mode & 0o222


def test_a_csv_that_changed_since_planning_is_refused(world: Any) -> None:
    world.toy()
    plan = world.plan()
    path = world.csv("train", rows=11)
    with pytest.raises(ContractError, match="changed while the run was planned") as caught:
        write_job(plan.extracts[0], world.workspace)
    assert str(path) in str(caught.value)
    assert list(world.workspace.cache.rglob("*.partial")) == []


def test_writing_a_job_again_changes_nothing(world: Any) -> None:
    world.toy()
    plan = world.plan()
    folder = write_job(plan.extracts[0], world.workspace)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    write_job(plan.extracts[0], world.workspace)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_disk_without_hard_links_gets_copies(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    world.toy()
    plan = world.plan()
    folder = write_job(plan.extracts[0], world.workspace)
    assert file_sha256(folder / "metadata/train.csv") == plan.stores[0].source.sha256


def test_reopened_shards_lose_their_markers(world: Any) -> None:
    world.toy(train=4)
    first = world.plan(shard_rows=2)
    world.finish_stores(first, {"train": [0]})
    plan = world.plan(retry_failed=True)
    paths = Store(world.workspace.latents / first.stores[0].layout.path)
    assert paths.marker(0).is_file(), "planning alone changes no store"
    write_job(plan.extracts[0], world.workspace)
    assert [paths.marker(shard).is_file() for shard in (0, 1)] == [False, True]


def test_the_plan_is_published(world: Any) -> None:
    world.toy()
    plan = world.plan(("frame-diff", "nonsense"))
    paths = write_plan(plan, world.workspace)
    document = PlanFile.read(paths.plan)
    assert (document.run, document.protocol) == (plan.run, "smoke")
    assert [(s.split, s.rows, s.columns) for s in document.stores] == [
        ("train", 10, ("src_img", "tgt_img")),
        ("val", 6, ("src_img", "tgt_img")),
    ]
    assert document.problems[0].startswith("model nonsense: no model 'nonsense'")
    snapshot = job_files.snapshot(plan.stores[0].source, world.workspace.cache)
    assert document.stores[0].csv == str(snapshot)


# --- weights ----------------------------------------------------------------------------------


@pytest.fixture
def card() -> Callable[..., ModelCard]:
    def make(*weights: dict[str, Any]) -> ModelCard:
        plain = {"license": "MIT"}
        fields = {
            "key": "heavy",
            "title": "heavy",
            "paradigm": "baseline",
            "modes": {},
            "preprocessing": "none",
            "revision": 1,
            "license": "MIT",
            "source": "test",
            "weights": [plain | weight for weight in weights],
        }
        return ModelCard.parse(fields, "test")

    return make


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def seen(folder: Path) -> dict[str, Path]:
    """Files that a job finds in its weights mount, and where they lie."""
    return {p.relative_to(folder).as_posix(): p.resolve() for p in folder.rglob("*") if p.is_file()}


def test_weights_below_the_root(tmp_path: Path, card: Callable[..., ModelCard]) -> None:
    root = tmp_path / "weights"
    file = put(root / "a.pt")
    config = put(root / "folder/config.json", b"{}")
    put(root / "folder/.cache/lock", b"1")
    put(root / "another-model.pt")
    model = card({"name": "model", "path": "a.pt"}, {"name": "backbone", "path": "folder"})
    found = find_weights(model, root, tmp_path / "cache", env={})
    assert seen(found.root) == {"a.pt": file, "folder/config.json": config}
    assert [(f.name, f.path) for f in found.files] == [("model", "a.pt"), ("backbone", "folder")]
    assert found.hashes == {"model": file_sha256(file), "backbone": path_sha256(root / "folder")}
    assert path_sha256(found.root / "folder") == path_sha256(root / "folder"), "the worker hashes what it sees"
    assert find_weights(model, root, tmp_path / "cache", env={}) == found


def test_a_variable_leads_elsewhere_and_nothing_around_it_is_mounted(
    tmp_path: Path, card: Callable[..., ModelCard]
) -> None:
    home = tmp_path / "home"
    secret, file = put(home / ".ssh/id_rsa"), put(home / "vitl.safetensors")
    put(home / "letter.txt")
    hub = put(home / "hub/model.bin")
    one = {"name": "model", "path": "vitl.pt", "env": "VJEPA2_CKPT_PATH"}
    two = {"name": "backbone", "path": "dino/folder", "env": "DINO_V2_PATH"}
    env = {"VJEPA2_CKPT_PATH": str(file), "DINO_V2_PATH": str(hub.parent)}
    found = find_weights(card(one, two), tmp_path / "weights", tmp_path / "cache", env=env)
    assert seen(found.root) == {"vitl.safetensors": file, "dino/hub/model.bin": hub}
    assert [f.path for f in found.files] == ["vitl.safetensors", "dino/hub"]
    assert secret not in seen(found.root).values()


def test_a_model_without_weights_sees_none(tmp_path: Path, card: Callable[..., ModelCard]) -> None:
    put(tmp_path / "weights/a.pt")
    found = find_weights(card(), tmp_path / "weights", tmp_path / "cache", env={})
    assert not found.root.exists()
    assert linked_files(found.root) == {}, "and nothing is mounted"


@pytest.mark.parametrize(("path", "files"), [("vitl.pt", ()), ("folder", ("config.json", "model.safetensors"))])
def test_some_folder_is_not_taken_for_weights(
    tmp_path: Path, card: Callable[..., ModelCard], path: str, files: tuple[str, ...]
) -> None:
    put(tmp_path / "home/letter.txt")
    model = card({"name": "model", "path": path, "env": "DINO_V2_PATH", "files": files})
    with pytest.raises(WeightsError, match=r"home: is a folder without config\.json"):
        find_weights(model, tmp_path / "w", tmp_path / "c", env={"DINO_V2_PATH": str(tmp_path / "home")})


@pytest.mark.parametrize("name", ["HOME", "PATH", "SSH_AUTH_SOCK", "LD_LIBRARY_PATH", "AWS_CONFIG_FILE", "x_CKPT_PATH"])
def test_a_card_names_variables_of_weights_alone(card: Callable[..., ModelCard], name: str) -> None:
    with pytest.raises(ContractError, match="env"):
        card({"name": "model", "path": "a.pt", "env": name})
    card({"name": "model", "path": "a.pt", "env": "MINE_CKPT_PATH"})


def test_links_of_a_hub_cache_are_followed(tmp_path: Path, card: Callable[..., ModelCard]) -> None:
    hub = tmp_path / "hub/models--x"
    blob = put(hub / "blobs/abc")
    link = hub / "snapshots/1/model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    model = card({"name": "backbone", "path": "folder", "env": "DINO_V2_PATH"})
    found = find_weights(model, tmp_path / "w", tmp_path / "c", env={"DINO_V2_PATH": str(link.parent)})
    assert seen(found.root) == {"1/model.safetensors": blob}


def test_two_weights_of_one_path_are_refused(tmp_path: Path, card: Callable[..., ModelCard]) -> None:
    put(tmp_path / "w/a.pt")
    model = card({"name": "model", "path": "a.pt"}, {"name": "other", "path": "b.pt", "env": "MINE_CKPT_PATH"})
    with pytest.raises(WeightsError, match=r"two weights of heavy.* would lie at a\.pt"):
        find_weights(model, tmp_path / "w", tmp_path / "c", env={"MINE_CKPT_PATH": str(put(tmp_path / "x/a.pt"))})


def test_linked_folders_are_made_once_and_anew_where_they_were_changed(tmp_path: Path) -> None:
    files = {"a.pt": put(tmp_path / "x/a.pt"), "sub/b.pt": put(tmp_path / "y/b.pt")}
    folder = linked_folder(files, tmp_path)
    assert linked_folder(files, tmp_path) == folder
    assert linked_files(folder) == files
    assert linked_files(tmp_path / "x") is None
    (folder / "a.pt").unlink()
    (folder / "a.pt").symlink_to("/etc/passwd")
    assert seen(linked_folder(files, tmp_path)) == files
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"repo": "a/b", "gated": True}, r"`lary-orch weights fetch heavy` gets it from a/b \(gated: request"),
        ({"note": "ask the authors"}, "ask the authors; it belongs at"),
        ({"env": "DINO_V2_PATH"}, "or name its path by DINO_V2_PATH"),
    ],
)
def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, card: Callable[..., ModelCard], spec: dict[str, Any], said: str
) -> None:
    model = card({"name": "model", "path": "a.pt", **spec})
    with pytest.raises(WeightsError, match=said) as caught:
        find_weights(model, tmp_path / "weights", tmp_path / "cache", env={})
    assert str(tmp_path / "weights/a.pt") in str(caught.value)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_other_bytes_than_the_official_ones(tmp_path: Path, card: Callable[..., ModelCard]) -> None:
    put(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="not the expected file of heavy"):
        find_weights(card({"name": "model", "path": "a.pt", "sha256": "0" * 64}), tmp_path, tmp_path / "c", env={})


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "w/a.bin").parent
    first = weight_sha256(folder, tmp_path / "cache")
    monkeypatch.setattr("lary_orch.weights.index.path_sha256", lambda path: "computed again")
    assert weight_sha256(folder, tmp_path / "cache") == first
    put(folder / "b.bin")
    assert weight_sha256(folder, tmp_path / "cache") == "computed again"


@pytest.mark.parametrize("offset", [0, 500_000, 999_999])
def test_a_file_edited_with_size_and_time_kept_is_noticed(tmp_path: Path, offset: int) -> None:
    file = put(tmp_path / "a.bin", bytes(1_000_000))
    stat, before = file.stat(), weight_sha256(file, tmp_path / "cache")
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(b"1")
    # The clock of a file system ticks every few milliseconds.
    while file.stat().st_ctime_ns == stat.st_ctime_ns or file.stat().st_mtime_ns != stat.st_mtime_ns:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_mtime_ns == stat.st_mtime_ns
    assert weight_sha256(file, tmp_path / "cache") == file_sha256(file) != before


def test_an_extract_job_names_its_weights(world: Any, image_folder: Callable[..., Path]) -> None:
    world.toy()
    spec = {"name": "model", "path": "a.pt", "license": "MIT"}
    image_folder("heavy", "heavy-model", below=world.cards, weights=[spec])
    file = put(world.workspace.weights / "a.pt")
    job = world.plan(("heavy-model",)).extracts[0].document
    assert isinstance(job, ExtractJob)
    assert [(w.name, w.path, w.sha256) for w in job.weights] == [("model", "a.pt", file_sha256(file))]
    assert job.values.weights == {"model": file_sha256(file)}
    put(file, b"others")
    changed = world.plan(("heavy-model",)).extracts[0].document
    assert isinstance(changed, ExtractJob)
    assert changed.store.fingerprint != job.store.fingerprint
