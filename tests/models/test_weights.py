"""Where weights are found: local folders, the hub's cache, a real HTTP server, or nowhere."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from models.errors import RetrieverUnavailable
from models.weights import HubWeights, UrlWeights, locate, matching_files, torch_cache

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("config.json", "*.safetensors", "*.bin")


class Hub(SimpleHTTPRequestHandler):
    """The part of the hub's HTTP interface that a download uses, over a folder of files."""

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        folder = Path(self.directory)
        if self.path.startswith("/owner/model/resolve/"):
            data = (folder / self.path.rpartition("/")[2]).read_bytes()
            with (folder / "requests.log").open("a") as log:
                log.write(f"{self.command} {self.path.rpartition('/')[2]}\n")
            return self.answer(data, {"ETag": f'"{sha256(data)}"', "X-Repo-Commit": COMMIT})
        if self.path.rstrip("/").endswith("/gone") or "/owner/none/" in f"{self.path}/":
            return self.refuse("RevisionNotFound" if "gone" in self.path else "RepoNotFound")
        if self.path.startswith("/api/models/owner/model/revision/"):
            return self.answer(json.dumps({"id": "owner/model", "sha": COMMIT}).encode())
        if self.path.startswith("/api/models/owner/model/tree/"):
            files = [path for path in folder.iterdir() if path.suffix != ".log"]
            rows = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in files
            ]
            return self.answer(json.dumps(rows).encode())
        self.send_error(404)
        return None

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of a folder; a path with `cut` ends after half of its announced length."""

    def log_message(self, *_: object) -> None: ...

    def copyfile(self, source, outputfile):  # type: ignore[no-untyped-def]
        data = source.read()
        outputfile.write(data[: len(data) // 2] if "cut" in self.path else data)


@contextlib.contextmanager
def serving(handler: type[SimpleHTTPRequestHandler], folder: Path) -> Iterator[str]:
    """Serve the folder over HTTP and yield its URL."""
    folder.mkdir()
    server = HTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which its files are served."""
    with serving(Handler, tmp_path / "served") as url:
        yield tmp_path / "served", url


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use empty caches of torch and of the hub; return the folder of the hub's cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cached(cache: Path, files: dict[str, bytes], ref: str | None = None) -> Path:
    """Write a revision in the layout of the hub's cache: blobs, and links to them by name."""
    repo = cache / "models--owner--model"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (repo / "blobs" / sha256(data)).write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{sha256(data)}")
    if ref is not None:
        (repo / "refs" / ref).write_text(COMMIT)
    return snapshot


def hub(repo: str = "owner/model", revision: str = COMMIT) -> HubWeights:
    return HubWeights("model", repo, revision, FILES)


def published(base: str, name: str, data: bytes) -> UrlWeights:
    return UrlWeights("model", f"{base}/{name}", sha256(data))


def test_a_local_folder_is_used_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    (tmp_path / "readme.md").write_text("not meant")
    first = locate(hub(str(tmp_path)), fetch=False)
    assert (first.name, first.path) == ("model", tmp_path)
    (tmp_path / "readme.md").write_text("changed")
    assert locate(hub(str(tmp_path)), fetch=False).sha256 == first.sha256
    (tmp_path / "config.json").write_text("{ }")
    assert locate(hub(str(tmp_path)), fetch=False).sha256 != first.sha256


@pytest.mark.parametrize("name", ["./nowhere/model", "~/nowhere", "a/path/to/model"])
def test_a_misspelt_folder_is_named_as_one_and_not_looked_up_in_the_hub(name: str) -> None:
    with pytest.raises(RetrieverUnavailable, match=r"there is no folder .* of weights"):
        locate(hub(name), fetch=True)


def test_a_local_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RetrieverUnavailable, match=r"holds no whole .*safetensors"):
        locate(hub(str(tmp_path)), fetch=True)
    with pytest.raises(RetrieverUnavailable, match="there is no folder"):
        locate(hub(str(tmp_path / "none")), fetch=True)


def test_of_alternative_weights_only_the_best_counts(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_text(name)
    names = [path.name for path in matching_files(tmp_path, FILES)]
    assert names == ["config.json", "model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    names = [path.name for path in matching_files(tmp_path, FILES)]
    assert names == ["config.json", "pytorch_model.bin"]


def test_weights_of_which_a_shard_is_missing_are_not_there(tmp_path: Path) -> None:
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    for name in shards[:2]:
        (tmp_path / name).write_text(name)
    assert matching_files(tmp_path, FILES) == []
    (tmp_path / shards[2]).write_text("last")
    assert [path.name for path in matching_files(tmp_path, FILES)] == shards


@pytest.mark.parametrize("revision", [COMMIT, "main", "0123456"])
def test_the_hubs_cache_is_found_offline_by_commit_or_ref(cache: Path, revision: str) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    snapshot = cached(cache, files, None if revision == COMMIT else revision)
    for fetch in (False, True):
        found = locate(hub(revision=revision), fetch)
        assert found.path == snapshot
    assert (found.path / "model.safetensors").read_bytes() == b"weights"


def test_a_cached_model_whose_weights_are_not_yet_there_is_not_used(cache: Path) -> None:
    snapshot = cached(cache, {"config.json": b"{}"})
    for fetch in (False, True):
        with pytest.raises(RetrieverUnavailable, match="owner/model at 0123456789ab"):
            locate(hub(), fetch)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert locate(hub(), fetch=True).path == snapshot


def test_the_same_files_have_the_same_hash_wherever_they_lie(cache: Path, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    cached(cache, files)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert locate(hub(), fetch=False).sha256 == locate(hub(str(folder)), fetch=False).sha256


def test_a_file_is_fetched_checked_and_kept(served: tuple[Path, str]) -> None:
    folder, base = served
    (folder / "model.pt").write_bytes(b"weights" * 1000)
    weights = published(base, "model.pt", b"weights" * 1000)
    remedy = (
        "model.pt is not on this machine; run `ambience weights fetch --to FOLDER` on a machine "
        "with a network and set AMBIENCE_WEIGHTS=FOLDER here, or name a local copy"
    )
    with pytest.raises(RetrieverUnavailable, match=re.escape(remedy)):
        locate(weights, fetch=False)
    found = locate(weights, fetch=True)
    assert found.path == torch_cache() / "model.pt"
    assert found.sha256 == weights.sha256
    (folder / "model.pt").unlink()
    assert locate(weights, fetch=False) == locate(weights, fetch=True) == found


def test_another_file_than_the_published_one_is_refused_and_not_kept(
    served: tuple[Path, str],
) -> None:
    folder, base = served
    (folder / "model.pt").write_bytes(b"other")
    weights = published(base, "model.pt", b"weights")
    with pytest.raises(RetrieverUnavailable, match="gave another file"):
        locate(weights, fetch=True)
    assert list(torch_cache().iterdir()) == []
    (folder / "model.pt").write_bytes(b"weights")
    assert locate(weights, fetch=True).path.read_bytes() == b"weights"


def test_a_changed_file_in_the_cache_is_refused_saying_which() -> None:
    torch_cache().mkdir(parents=True)
    (torch_cache() / "model.pt").write_bytes(b"other")
    with pytest.raises(RetrieverUnavailable, match=r"model\.pt is not the published file.*delete"):
        locate(published("http://127.0.0.1:9", "model.pt", b"weights"), fetch=True)


def test_half_a_download_is_never_seen(served: tuple[Path, str]) -> None:
    folder, base = served
    data = os.urandom(3_000_000)
    (folder / "cut.pt").write_bytes(data)
    with pytest.raises(RetrieverUnavailable, match="ended early"):
        locate(published(base, "cut.pt", data), fetch=True)
    assert list(torch_cache().iterdir()) == []


def test_the_owners_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"mine")
    weights = UrlWeights("model", "http://127.0.0.1:9/x.pt", "0" * 64, str(tmp_path / "mine.pt"))
    found = locate(weights, fetch=True)
    assert (found.path, found.sha256) == (tmp_path / "mine.pt", sha256(b"mine"))
    missing = UrlWeights("model", "http://127.0.0.1:9/x.pt", "0" * 64, str(tmp_path / "none.pt"))
    with pytest.raises(RetrieverUnavailable, match=r"no file .*none\.pt"):
        locate(missing, fetch=True)


def test_a_carried_folder_is_searched_before_the_caches(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    cached(cache, files)
    torch_cache().mkdir(parents=True)
    url = published("http://127.0.0.1:9", "model.pt", b"weights")
    (torch_cache() / "model.pt").write_bytes(b"weights")
    in_cache = [locate(weights, fetch=False) for weights in (hub(), url)]
    monkeypatch.setenv("AMBIENCE_WEIGHTS", str(tmp_path / "carried"))
    assert [locate(weights, fetch=False) for weights in (hub(), url)] == in_cache
    folder = tmp_path / "carried" / "owner--model" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (tmp_path / "carried" / "model.pt").write_bytes(b"weights")
    assert locate(hub(), fetch=False) == in_cache[0]
    (folder / "model.safetensors").write_bytes(b"weights")
    found = [locate(weights, fetch=False) for weights in (hub(), url)]
    assert [one.path for one in found] == [folder, tmp_path / "carried" / "model.pt"]
    assert [one.sha256 for one in found] == [one.sha256 for one in in_cache]
    assert [path.name for path in found[0].files] == ["config.json", "model.safetensors"]
    (tmp_path / "carried" / "model.pt").write_bytes(b"other")
    with pytest.raises(RetrieverUnavailable, match="is not the published file"):
        locate(url, fetch=False)


@pytest.mark.parametrize(
    ("repo", "revision", "line"),
    [
        ("owner/model", "gone", "`revision: gone`"),
        ("owner/none", COMMIT, "`model: owner/none`"),
    ],
)
def test_a_revision_or_repository_that_the_hub_does_not_know_names_the_configs_line(
    tmp_path: Path, repo: str, revision: str, line: str
) -> None:
    program = (
        "from models.errors import RetrieverUnavailable\n"
        "from models.weights import HubWeights, locate\n"
        f"try: locate(HubWeights('model', {repo!r}, {revision!r}, {FILES!r}), fetch=True)\n"
        "except RetrieverUnavailable as exc: print(exc)"
    )
    with serving(Hub, tmp_path / "published") as url:
        (reason,) = run(program, {"HF_ENDPOINT": url}, tmp_path)
    assert repo in reason
    assert reason.endswith(f"; correct the line {line} in serve_config.yaml")


def run(program: str, environment: dict[str, str], tmp_path: Path) -> list[str]:
    """Return the lines that a new process with empty caches and without a proxy prints."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "HF_HUB_OFFLINE"
    }
    caches = {"HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch")}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=inherited | caches | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_from_the_hub_only_what_is_meant_is_fetched_the_weights_last(tmp_path: Path) -> None:
    program = (
        "from models.weights import HubWeights, locate\n"
        f"weights = HubWeights('model', 'owner/model', 'main', {FILES!r})\n"
        "found = locate(weights, fetch=True)\n"
        "assert locate(weights, fetch=False) == found\n"
        "print(found.path, found.sha256)"
    )
    folder = tmp_path / "published"
    with serving(Hub, folder) as url:
        for name in ("config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack"):
            (folder / name).write_text(name)
        ((path, digest),) = map(str.split, run(program, {"HF_ENDPOINT": url}, tmp_path))
    assert sorted(file.name for file in Path(path).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert digest == locate(hub(str(folder)), fetch=False).sha256
    gets = [line for line in (folder / "requests.log").read_text().splitlines() if "GET" in line]
    assert gets == ["GET config.json", "GET model.safetensors"]


@pytest.mark.parametrize("name", ["backbone", "clip", "sscd"])
def test_unreachable_weights_are_reported_quickly_and_without_loading_torch(
    tmp_path: Path, name: str
) -> None:
    program = (
        "import sys, time\n"
        "from models.registry import make_extractor\n"
        "from models.errors import RetrieverUnavailable\n"
        f"extractor = make_extractor({name!r})\n"
        "began = time.monotonic()\n"
        "try: extractor.load()\n"
        "except RetrieverUnavailable as exc: print(exc)\n"
        "print(time.monotonic() - began, 'torch' in sys.modules)"
    )
    nowhere = "http://192.0.2.1:9"  # Reserved for documentation: nobody answers there.
    # No variable changes the URL of sscd's file, so a proxy leads nowhere instead.
    environment = {"https_proxy" if name == "sscd" else "HF_ENDPOINT": nowhere}
    *reason, last = run(program, environment, tmp_path)
    seconds, torch = last.split()
    assert "can't be fetched" in reason[0]
    assert "; run `ambience weights fetch --to FOLDER` on a machine with a network" in reason[0]
    assert reason[0].endswith(" in serve_config.yaml")
    assert len(reason) == 1
    assert torch == "False"
    assert float(seconds) < 10
