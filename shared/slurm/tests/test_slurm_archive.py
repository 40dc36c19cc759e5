"""Images as files: OCI's archive from what engines save, and what a cluster says where one is missing."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from lary_orch.catalog.source import ImageSource
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_slurm.archive import write_archive
from lary_slurm.images import Exported, make_command

CONFIG = b'{"architecture": "amd64", "rootfs": {"type": "layers"}}'
IMAGE = ImageSource(ImageCard(name="baseline", kind="model", module="lary_worker"), None)


def _tar(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content.startswith(b"-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:].decode()
            else:
                info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return data.getvalue()


def _sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert len({member.name for member in members}) == len(members)
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def test_layers_keep_their_order_and_the_image_its_id(tmp_path: Path) -> None:
    first, second = _tar(a=b"one"), gzip.compress(_tar(b=b"two"), mtime=0)
    listed = [{"Config": "c.json", "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    saved = _tar(
        **{"1/layer.tar": first, "2/layer.tar": second, "3/layer.tar": b"-> ../1/layer.tar", "c.json": CONFIG},
        **{"manifest.json": json.dumps(listed).encode()},
    )
    target = tmp_path / "images" / "baseline.tar"
    pieces = [saved[start : start + 1000] for start in range(0, len(saved), 1000)]
    assert write_archive(pieces, target, "lary/baseline:1") == _sha(CONFIG)
    assert [path.name for path in target.parent.iterdir()] == ["baseline.tar"]
    files = _read(target)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    described = json.loads(files["index.json"])["manifests"][0]
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "lary/baseline:1"}
    raw = files["blobs/" + described["digest"].replace(":", "/")]
    assert (_sha(raw), len(raw)) == (described["digest"], described["size"])
    manifest = json.loads(raw)
    assert manifest["config"]["digest"] == _sha(CONFIG)
    assert [layer["digest"] for layer in manifest["layers"]] == [_sha(first), _sha(second), _sha(first)]
    assert [layer["mediaType"].endswith("gzip") for layer in manifest["layers"]] == [False, True, False]
    for layer in [*manifest["layers"], manifest["config"]]:
        blob = files["blobs/" + layer["digest"].replace(":", "/")]
        assert (_sha(blob), len(blob)) == (layer["digest"], layer["size"])


@pytest.mark.parametrize("saved", [b"", b"no tar at all", _tar(x=b"y"), _tar(**{"manifest.json": b"[]"})])
def test_what_is_no_image_leaves_nothing(tmp_path: Path, saved: bytes) -> None:
    with pytest.raises(ContractError, match="lary/x:1: what the engine saved is no image"):
        write_archive([saved], tmp_path / "x.tar", "lary/x:1")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"baseline.json: image baseline .* lary-orch images export --to"):
        Exported.of(tmp_path, IMAGE)
    exported = Exported(name="baseline", ref="lary/baseline:1", id=_sha(CONFIG), source=None)
    (tmp_path / "baseline.json").write_text(exported.to_json())
    assert Exported.of(tmp_path, IMAGE) == exported
    with pytest.raises(ContractError, match=r"baseline.sif: not there, and launcher apptainer needs it"):
        exported.file(tmp_path, "apptainer")
    (tmp_path / "baseline.tar").touch()
    assert exported.file(tmp_path, "podman") == tmp_path / "baseline.tar"


def test_commands_of_other_formats() -> None:
    exported = Exported(name="baseline", ref="lary/baseline:1", id="sha256:1", source=None)
    assert make_command("sif", exported, Path("/i")) == [
        *("apptainer", "build", "--force", "/i/baseline.sif", "oci-archive:/i/baseline.tar"),
    ]
    assert make_command("sqsh", exported, Path("/i")) == [
        *("enroot", "import", "--output", "/i/baseline.sqsh", "dockerd://lary/baseline:1"),
    ]
    assert make_command("tar", exported, Path("/i")) == []
