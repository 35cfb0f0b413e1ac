"""What every store promises, of a folder and of a bucket alike."""

import hashlib
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from data_shards.errors import ConfigError, ShardError, StorageError
from data_shards.storage.multipart import PART_BYTES
from data_shards.storage.store import LocalStore, Store, open_store
from tests.conftest import ROOT


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return open_store(tmp_path / "store" if request.param == "folder" else request.getfixturevalue("bucket"))


def file_of(path: Path, size_bytes: int) -> tuple[Path, str]:
    """A file of random bytes, and its sha256."""
    path.write_bytes(os.urandom(size_bytes))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_written_is_read_and_listed(store: Store) -> None:
    assert store.names() == {}
    store.write("manifest.json", b"{}\n")
    store.write("deep/er/train-000000.index.json", b"[]")
    store.write("manifest.json", b"{ }\n")
    assert store.read("manifest.json") == b"{ }\n"
    assert list(store.names().items()) == [("deep/er/train-000000.index.json", 2), ("manifest.json", 4)]
    store.delete("manifest.json")
    store.delete("manifest.json")
    assert list(store.names()) == ["deep/er/train-000000.index.json"]


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES, 2 * PART_BYTES, 2 * PART_BYTES + 1, 5 * PART_BYTES - 7])
def test_a_file_comes_back_as_it_was_put(store: Store, tmp_path: Path, size_bytes: int) -> None:
    source, sha256 = file_of(tmp_path / "source", size_bytes)
    store.put(source, "train-000000.tar")
    assert store.names() == {"train-000000.tar": size_bytes}
    store.fetch("train-000000.tar", tmp_path / "new" / "back", sha256=sha256)
    store.fetch("train-000000.tar", tmp_path / "new" / "again")
    assert (tmp_path / "new" / "back").read_bytes() == source.read_bytes() == (tmp_path / "new" / "again").read_bytes()
    assert store.read("train-000000.tar") == source.read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["again", "back"]


def test_what_is_missing_is_a_missing_file(store: Store, tmp_path: Path) -> None:
    store.write("folder/file", b"x")
    for name in ("nothing", "folder"):
        with pytest.raises(FileNotFoundError):
            store.read(name)
        with pytest.raises(FileNotFoundError):
            store.fetch(name, tmp_path / "there" / "file")
    assert list((tmp_path / "there").glob("*")) == []


def test_another_sha256_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.write("x", b"some bytes")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_bytes(b"from before")
    with pytest.raises(ShardError, match="sha256"):
        store.fetch("x", tmp_path / "out" / "x", sha256="0" * 64)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"x": b"from before"}


def test_partial_files_are_not_listed(store: Store) -> None:
    store.write("train-000000.tar", b"x")
    store.write("deep/.train-000001.tar.partial-4711", b"half")
    assert list(store.names()) == ["train-000000.tar"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b", "", ".", "a//b", "a/", "./x"])
def test_no_name_leads_out_of_the_store(store: Store, tmp_path: Path, name: str) -> None:
    source, _ = file_of(tmp_path / "source", 3)
    calls = (
        lambda: store.read(name),
        lambda: store.write(name, b"x"),
        lambda: store.delete(name),
        lambda: store.put(source, name),
        lambda: store.fetch(name, tmp_path / "fetched"),
        lambda: store.local_path(name),
    )
    for call in calls:
        with pytest.raises(ShardError, match="not the name of a file"):
            call()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]


def test_a_store_is_sent_to_another_process(store: Store) -> None:
    store.write("x", b"seen there")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(store.read, "x").result() == b"seen there"
        assert pool.submit(store.names).result() == {"x": 10}


def test_only_a_folder_has_its_files_here(tmp_path: Path, bucket: str) -> None:
    assert open_store(str(tmp_path)).local_path("a/b") == tmp_path / "a" / "b"
    assert open_store(bucket).local_path("a/b") is None
    assert open_store(bucket + "/").uri == bucket


@pytest.mark.parametrize(
    "uri", ["gs://bucket/x", "https://me:hunter2@host/x", "file:///x", "s3://", "s3:///x", "s3://me:hunter2@host/x"]
)
def test_another_scheme_is_refused_without_showing_the_address(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"name a folder, or s3://|names no bucket") as caught:
        open_store(uri)
    assert "hunter2" not in str(caught.value)


def test_a_prefix_does_not_lead_out_of_its_bucket() -> None:
    with pytest.raises(ShardError):
        open_store("s3://bucket/a/../b")


def test_a_folder_is_opened_without_boto3() -> None:
    code = "import sys; from data_shards.storage.store import open_store; open_store('x').names(); print('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_file_built_in_place_is_published_as_it_is(tmp_path: Path) -> None:
    path, _ = file_of(tmp_path / "x", 10)
    before = path.stat()
    LocalStore(tmp_path).put(path, "x")
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_in_the_way_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"a file")
    with pytest.raises(StorageError, match="cannot be written"):
        LocalStore(tmp_path / "store").write("x", b"y")
