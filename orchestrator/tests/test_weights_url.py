"""`weights fetch` from a plain address, against a server on loopback."""

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.cards import Catalog
from lary_orch.weights.index import find_weights
from lary_orch.weights.url import fetch_url
from lary_schema.base import ExitCode, WeightsError
from lary_schema.cards import WeightSpec
from pydantic import ValidationError

DATA = b"\x80\x02" + bytes(range(256)) * 20


class Files(ThreadingHTTPServer):
    """Files by name, as a plain web server gives them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {"vitl.pt": DATA}
        self.cut = 0
        """Bytes to leave out at the end of an answer."""
        self.ranges = True
        self.asked: list[str] = []

    def url(self, name: str = "vitl.pt") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Files
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.asked.append(f"{self.command} {span or 'all'}")
        data = self.server.files.get(self.path.strip("/"))
        if data is None:
            self.send_error(404)
            return
        start = int(span[6:-1]) if span and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{sha256(data).hexdigest()[:8]}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start : len(data) - self.server.cut])
            self.close_connection = self.server.cut > 0

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spec(url: str, **fields: Any) -> WeightSpec:
    return WeightSpec(name="model", path="vitl.pt", url=url, license="MIT", **fields)


def silent(line: str) -> None:
    """Nobody listens."""


def test_a_file_lands_at_its_path(files: Files, tmp_path: Path) -> None:
    target, said = tmp_path / "w" / "vitl.pt", list[str]()
    fetch_url(spec(files.url(), sha256=sha256(DATA).hexdigest()), target, said.append)
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["vitl.pt"]
    assert files.url() in said[0]
    assert said[1].endswith("fetched, MIT")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(files: Files, tmp_path: Path, ranges: bool) -> None:
    files.cut, files.ranges = 1000, ranges
    with pytest.raises(WeightsError, match=rf"{len(DATA) - 1000} bytes came, {len(DATA)} were announced; what came"):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert not (tmp_path / "vitl.pt").exists()
    files.cut = 0
    fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert (tmp_path / "vitl.pt").read_bytes() == DATA
    assert files.asked[-1] == f"GET bytes={len(DATA) - 1000}-"
    assert list(tmp_path.glob("*.partial")) == []


def test_another_file_at_the_same_address_is_not_glued_to_the_old_part(files: Files, tmp_path: Path) -> None:
    files.cut = 1000
    with pytest.raises(WeightsError):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    files.cut, files.files["vitl.pt"] = 0, DATA[::-1]
    fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert (tmp_path / "vitl.pt").read_bytes() == DATA[::-1]


def test_what_is_not_the_expected_file_is_not_kept(files: Files, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected by the card; nothing was kept"):
        fetch_url(spec(files.url(), sha256="0" * 64), tmp_path / "vitl.pt", silent)
    files.files["vitl.pt"] = b"<!doctype html><title>Moved</title>"
    with pytest.raises(WeightsError, match="a web page and not the file"):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_had_says_the_way_out(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "vitl.pt"
    with pytest.raises(WeightsError, match=rf"none.pt: 404 Not Found; fetch it by hand to {target}") as caught:
        fetch_url(spec(files.url("none.pt")), target, silent)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    with pytest.raises(WeightsError, match=r"refused; what came is kept.*fetch on another machine"):
        fetch_url(spec("http://127.0.0.1:9/vitl.pt"), target, silent)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(WeightsError, match=r"needs 5.0 KiB more, 3 B are free"):
        fetch_url(spec(files.url()), target, silent)


def test_an_address_that_is_none_is_refused_by_the_schema(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="url"):
        spec("file:///etc/passwd")
    with pytest.raises(ValidationError, match="exclude each other"):
        spec("https://here/x.pt", repo="lab/net")


CARD = """
name: mine
kind: model
module: lary_worker
models:
  - key: mine
    title: mine
    paradigm: baseline
    modes: {image: {input: {shape: [2, 8, 8, 3], dtype: uint8}, tokens: [1, 1, 1]}}
    preprocessing: mine
    revision: 1
    license: MIT
    source: me
    weights:
      - {name: model, path: vitl.pt, license: MIT, url: URL}
      - {name: config, path: config.yaml, license: MIT, optional: true, env: MINE_CONFIG}
"""


def test_the_command(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that an optional weight is asked for only where its variable says that it is there."""
    from lary_orch.cli.weights import command

    monkeypatch.delenv("MINE_CONFIG", raising=False)
    folder = tmp_path / "mine" / "src" / "lary_mine"
    folder.mkdir(parents=True)
    (folder / "image.yaml").write_text(CARD.replace("URL", files.url()))
    places = ["mine", "--catalog", str(tmp_path), "--weights-dir", str(tmp_path / "w")]
    done = CliRunner().invoke(command, ["fetch", *places])
    assert done.exit_code == 0, done.output
    assert "1 of 1 weights are here" in done.output
    assert (tmp_path / "w" / "vitl.pt").read_bytes() == DATA
    assert CliRunner().invoke(command, ["verify", *places]).exit_code == 0
    card = Catalog.load([tmp_path], env={}).model_card("mine")
    assert find_weights(card, tmp_path / "w", tmp_path / "cache").hashes.keys() == {"model"}
    (tmp_path / "w" / "there.yaml").write_text("x: 1")
    monkeypatch.setenv("MINE_CONFIG", str(tmp_path / "w" / "there.yaml"))
    assert find_weights(card, tmp_path / "w", tmp_path / "cache").hashes.keys() == {"model", "config"}
    monkeypatch.setenv("MINE_CONFIG", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(WeightsError, match=r"nowhere.yaml: missing \(weight 'config' of mine\)"):
        find_weights(card, tmp_path / "w", tmp_path / "cache")
    assert CliRunner().invoke(command, ["verify", *places]).exit_code == 4
