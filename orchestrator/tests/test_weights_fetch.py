"""`weights fetch` against a server on loopback that responds as the hub does."""

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from lary_orch.weights.fetch import fetch
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import WeightSpec

pytest.importorskip("huggingface_hub", reason="the extra lary-orch[hub] is not installed")

COMMIT = "c0ffee" + "0" * 34
GOOD = b"\x02\0\0\0\0\0\0\0{}"
"""A safetensors file without tensors."""


class Hub(ThreadingHTTPServer):
    """Repositories as dictionaries of files. The two endpoints that a download of known files needs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cut: set[str] = set()
        """Files of which half is sent."""
        self.hashes: dict[str, str] = {}
        """sha256 that the hub reports of a file."""
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
        else:
            repo, revision = "/".join(parts[:2]), parts[3]
        if repo not in self.server.repos:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif repo in self.server.gated and parts[0] != "api" and not self.headers.get("Authorization"):
            self._refuse(401, "GatedRepo", "Access to this repository is restricted")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound", "Invalid revision")
        elif parts[0] == "api":
            self._info(repo)
        else:
            self._file(repo, "/".join(parts[4:]))

    def _info(self, repo: str) -> None:
        files = self.server.repos[repo]
        siblings: list[dict[str, Any]] = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        for sibling in siblings:
            if sha256 := self.server.hashes.get(sibling["rfilename"]):
                sibling["lfs"] = {"size": sibling["size"], "sha256": sha256, "pointerSize": 1}
        self._send(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, repo: str, name: str) -> None:
        data = self.server.repos[repo].get(name)
        if data is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        headers = {
            "ETag": f'"{sha256(name.encode() + data).hexdigest()[:40]}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, cut=name in self.server.cut)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spec(**fields: Any) -> WeightSpec:
    given = {"name": "model", "path": "net.safetensors", "repo": "lab/net", "license": "MIT"}
    return WeightSpec(**(given | fields))


def silent(line: str) -> None:
    """Nobody listens."""


def test_a_single_file_lands_at_its_path(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD, "README.md": b"read"}
    said: list[str] = []
    target = tmp_path / "w" / "net.safetensors"
    assert fetch(spec(), target, said.append) == COMMIT
    assert target.read_bytes() == GOOD
    assert [p.name for p in target.parent.iterdir()] == ["net.safetensors"]
    assert COMMIT in said[0]
    assert not any("README" in path for path in hub.requests)


def test_a_folder_lands_whole(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"config.json": b"{}", "sub/model.safetensors": GOOD, ".gitattributes": b"", "x.bin": b"1"}
    fetch(spec(path="net"), tmp_path / "net", silent)
    found = {p.relative_to(tmp_path / "net").as_posix() for p in (tmp_path / "net").rglob("*") if p.is_file()}
    assert found == {"config.json", "sub/model.safetensors", "x.bin"}
    fetch(spec(path="two", files=("config.json",)), tmp_path / "two", silent)
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["config.json"]


def test_a_folder_of_the_repository_becomes_the_folder(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"lam/config.json": b"{}", "lam/model.safetensors": GOOD, "actor/x.bin": b"1"}
    fetch(spec(path="net/lam", subfolder="lam"), tmp_path / "net" / "lam", silent)
    assert sorted(p.name for p in (tmp_path / "net" / "lam").iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["lam"]
    with pytest.raises(WeightsError, match=r"has no lam/nothing.bin; it has actor/x.bin"):
        fetch(spec(path="two", subfolder="lam", files=("nothing.bin",)), tmp_path / "two", silent)


def test_villa_x_lies_where_its_loader_looks(hub: Hub, tmp_path: Path) -> None:
    """By the real card: fetched, verified, and found as the planner finds it."""
    from lary_orch.catalog.cards import Catalog
    from lary_orch.weights.files import list_weights, verify
    from lary_orch.weights.index import find_weights

    hub.repos["microsoft/villa-x"] = {"lam/model_config.json": b"{}", "lam/model.safetensors": GOOD, "README.md": b""}
    card = Catalog.load(env={}).model_card("villa-x")
    [weight] = list_weights({"villa-x": card}, tmp_path, env={})
    fetch(weight.spec, weight.path, silent)
    found = find_weights(card, tmp_path, tmp_path / "cache", env={})
    folder = found.root / found.files[0].path
    assert {p.name for p in folder.iterdir()} == {"model_config.json", "model.safetensors"}
    assert verify(weight, tmp_path / "cache")[0] == "unknown"


def test_the_pinned_revision_is_requested(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD}
    fetch(spec(revision=COMMIT), tmp_path / "net.safetensors", silent)
    assert f"/revision/{COMMIT}" in hub.requests[0]
    with pytest.raises(WeightsError, match="revision is not there"):
        fetch(spec(), tmp_path / "x.safetensors", silent, revision="v9")


def test_an_interrupted_download_is_kept_and_goes_on(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.http_get", _give_up())
    hub.repos["lab/net"] = {"a.json": b"[]", "z.json": b"x" * 4096}
    with pytest.raises(WeightsError, match="same command goes on"):
        fetch(spec(path="net"), tmp_path / "net", silent)
    assert not (tmp_path / "net").exists()
    (draft,) = tmp_path.glob("net.*.partial")
    assert (draft / "a.json").read_bytes() == b"[]"
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    hub.requests.clear()
    fetch(spec(path="net"), tmp_path / "net", silent)
    assert (tmp_path / "net" / "z.json").read_bytes() == b"x" * 4096
    assert not any("GET" in request and "a.json" in request for request in hub.requests)
    assert list(tmp_path.glob("*.partial")) == []


def _give_up() -> Any:
    """The hub's own download, broken off at the file z.json."""
    from huggingface_hub import errors, file_download

    whole = file_download.http_get

    def http_get(url: str, *args: Any, **options: Any) -> None:
        if url.endswith("z.json"):
            raise errors.HTTPError("connection reset")
        whole(url, *args, **options)

    return http_get


def test_a_file_that_is_not_the_expected_one_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD}
    with pytest.raises(WeightsError, match=r"expected by the card; nothing was kept"):
        fetch(spec(sha256="0" * 64), tmp_path / "net.safetensors", silent)
    hub.repos["lab/net"] = {"net.safetensors": b"version https://git-lfs.github.com/spec/v1\noid"}
    with pytest.raises(WeightsError, match="git-lfs pointer"):
        fetch(spec(), tmp_path / "net.safetensors", silent)
    assert list(tmp_path.glob("net*")) == []


def test_a_gated_repository_says_what_to_do(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD}
    hub.gated.add("lab/net")
    with pytest.raises(WeightsError, match=rf"accept its terms at {hub.endpoint}/lab/net .* HF_TOKEN"):
        fetch(spec(gated=True), tmp_path / "net.safetensors", silent)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(spec(gated=True), tmp_path / "net.safetensors", silent)
    assert "Bearer hf_secret" in hub.tokens


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such repository"):
        fetch(spec(repo="lab/none"), tmp_path / "x.safetensors", silent)
    hub.repos["lab/net"] = {"a.safetensors": GOOD, "b.safetensors": GOOD}
    with pytest.raises(WeightsError, match=r"which file is 'model' of the card\? It has a.safetensors, b.safetensors"):
        fetch(spec(), tmp_path / "net.safetensors", silent)
    with pytest.raises(WeightsError, match=r"has no c.safetensors; it has a.safetensors"):
        fetch(spec(files=("c.safetensors",)), tmp_path / "net.safetensors", silent)


def test_a_disk_too_small_and_a_dead_network_are_said(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD}
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3}))
        with pytest.raises(WeightsError, match=r"needs 10 B more, 3 B are free"):
            fetch(spec(), tmp_path / "net.safetensors", silent)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="same command goes on"):
        fetch(spec(), tmp_path / "net.safetensors", silent)


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ContractError, match=r"lary-orch\[hub\]"):
        fetch(spec(), tmp_path / "net.safetensors", silent)


def test_the_command_fetches_what_it_can_and_fails_for_the_rest(hub: Hub, tmp_path: Path) -> None:
    from lary_orch.cli.weights import command

    hub.repos["latent-action-pretraining/LAPA-7B-openx"] = {"laq_openx.pt": b"weights", "params": b"big"}
    arguments = ["fetch", "lapa", "magvit2", "--weights-dir", str(tmp_path)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 4, done.output
    assert (tmp_path / "laq_openx.pt").read_bytes() == b"weights"
    assert "1 of 3 weights are here" in done.output, "the yaml, which is optional, does not count"
    assert "get it from that project" in done.output
    assert CliRunner().invoke(command, ["fetch"]).exit_code == 2


def test_the_hubs_own_hash_is_compared(hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/net"] = {"net.safetensors": GOOD}
    hub.hashes["net.safetensors"] = "0" * 64
    with pytest.raises(
        WeightsError, match=rf"net.safetensors has sha256 {sha256(GOOD).hexdigest()}, the hub says 0000"
    ):
        fetch(spec(), tmp_path / "net.safetensors", silent)
    assert not (tmp_path / "net.safetensors").exists()
    hub.hashes["net.safetensors"] = sha256(GOOD).hexdigest()
    said: list[str] = []
    fetch(spec(), tmp_path / "net.safetensors", said.append)
    assert f"({len(GOOD)} bytes), sha256 {sha256(GOOD).hexdigest()} (no published hash to compare with)" in said[-1]


def test_a_mirror_without_https_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.org")
    with pytest.raises(ContractError, match="https alone"):
        fetch(spec(), tmp_path / "net.safetensors", silent)


PINNED = {"dinov2-origin", "dinov3-origin", "siglip2-origin", "flux2", "wan2-2"}


def test_what_is_pinned_is_pinned_to_a_commit() -> None:
    """And a hash is one: 64 hexadecimal digits, by the schema. What is not known is not there."""
    from lary_orch.catalog.cards import Catalog

    found = {}
    for _, card in Catalog.load(env={}).models():
        for weight in card.weights:
            assert weight.revision is None or (len(weight.revision) == 40 and int(weight.revision, 16))
            found[card.key] = weight.revision
    assert {key for key, revision in found.items() if revision} >= PINNED
