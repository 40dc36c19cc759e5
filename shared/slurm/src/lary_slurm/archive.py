"""An image as one file: OCI's archive, which Podman, Apptainer, Skopeo and others read without a registry."""

import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from lary_schema.atomic import PARTIAL_SUFFIX, replacing
from lary_schema.base import ContractError

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
GZIP = b"\x1f\x8b"
PIECE = 1 << 20


def write_archive(saved: Iterable[bytes], target: Path, ref: str) -> str:
    """Turn what `docker save` gives into an OCI archive; the image's id, which stays what it was.

    The configuration's bytes are kept, and an id is their sha256. Docker 20.10 saves in a format of its own.
    Raises ContractError for what is no saved image.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = target.with_name(f"{target.name}.{secrets.token_hex(8)}.saved{PARTIAL_SUFFIX}")
    try:
        with raw.open("wb") as file:
            file.writelines(saved)
        with replacing(target) as draft, tarfile.open(raw) as source, tarfile.open(draft, "w") as out:
            image = _convert(source, out, ref)
    except (tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise ContractError(f"{ref}: what the engine saved is no image: {error!r}") from None
    finally:
        raw.unlink(missing_ok=True)
    return image


def _convert(source: tarfile.TarFile, out: tarfile.TarFile, ref: str) -> str:
    listed = json.loads(_open(source, "manifest.json").read())[0]
    config = _open(source, listed["Config"]).read()
    written: set[str] = set()
    layers = [_layer(source, name, out, written) for name in listed["Layers"]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _blob(out, config, CONFIG_TYPE),
        "layers": layers,
    }
    described = _blob(out, json.dumps(manifest).encode(), MANIFEST_TYPE)
    index = {"schemaVersion": 2, "manifests": [described | {"annotations": {"org.opencontainers.image.ref.name": ref}}]}
    _add(out, "index.json", json.dumps(index).encode())
    _add(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    return f"sha256:{hashlib.sha256(config).hexdigest()}"


def _layer(source: tarfile.TarFile, name: str, out: tarfile.TarFile, written: set[str]) -> dict[str, Any]:
    """Copy a layer, once where several are the same; its descriptor."""
    digest, size, compressed = hashlib.sha256(), 0, False
    file = _open(source, name)
    while piece := file.read(PIECE):
        compressed = compressed or (size == 0 and piece.startswith(GZIP))
        digest.update(piece)
        size += len(piece)
    found = digest.hexdigest()
    if found not in written:
        written.add(found)
        out.addfile(_header(f"blobs/sha256/{found}", size), _open(source, name))
    return {
        "mediaType": LAYER_TYPE + ("+gzip" if compressed else ""),
        "digest": f"sha256:{found}",
        "size": size,
    }


def _open(source: tarfile.TarFile, name: str) -> BinaryIO:
    """A member's content; an older engine saves equal layers as links."""
    file = source.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file  # type: ignore[return-value]


def _blob(out: tarfile.TarFile, data: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    _add(out, f"blobs/sha256/{digest}", data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    out.addfile(_header(name, len(data)), io.BytesIO(data))


def _header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
