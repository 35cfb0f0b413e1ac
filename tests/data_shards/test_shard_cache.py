"""The cache of remote shards: whole, bounded, shared by processes, and honest about what went wrong."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_shards.errors import ConfigError, ShardError, StorageError
from data_shards.storage.multipart import PART_BYTES
from data_shards.storage.object_client import Connecting
from data_shards.storage.object_storage import S3Store
from data_shards.storage.shard_cache import CacheSettings, ShardCache
from tests.conftest import ROOT
from tests.data_shards.test_object_storage import wait_for
from tests.fault_proxy import Fault, FaultProxy

SIZE = 100_000
Shards = list[dict[str, object]]


@pytest.fixture
def store(proxy: FaultProxy, bucket: str) -> S3Store:
    return S3Store(bucket, Connecting(num_connections=4, num_attempts=2, connect_timeout_s=2.0, read_timeout_s=20.0))


@pytest.fixture
def shards(store: S3Store) -> Shards:
    """Eight shards in the store, as `path` and `open` take them."""
    return [put_shard(store, f"train-{number:06d}.tar", os.urandom(SIZE)) for number in range(8)]


def put_shard(store: S3Store, name: str, content: bytes) -> dict[str, object]:
    store.write(name, content)
    return {"name": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def held(folder: Path) -> int:
    """Bytes of whole shards and of those on their way."""
    return sum(size_of(path) for path in folder.iterdir() if re.search(r"[0-9a-f]{64}(?!\.lock)", path.name))


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_whole(path: Path, shard: dict[str, object]) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]


def test_a_shard_is_fetched_once(store: S3Store, proxy: FaultProxy, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as cache:
        for shard in shards[:2] * 3:
            assert is_whole(cache.path(**shard), shard)
        assert (cache.hits, cache.misses, cache.num_fetched, cache.fetched_bytes) == (4, 2, 2, 2 * SIZE)
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as later:
        later.path(**shards[0])
        assert (later.hits, later.num_fetched) == (1, 0)
    assert len(proxy.of("GET")) == 2


def test_threads_that_want_one_shard_fetch_it_once(store: S3Store, proxy: FaultProxy, shards: Shards, tmp_path: Path) -> None:
    proxy.faults = [Fault("delay", times=1, delay_s=0.5)]
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as cache:
        cache.prefetch(**shards[0])
        threads = [threading.Thread(target=cache.path, kwargs=shards[0]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.num_fetched == 1
    assert len(proxy.of("GET")) == 1


def test_what_is_prefetched_is_there_when_it_is_asked_for(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as cache:
        for shard in shards:
            cache.prefetch(**shard)
            cache.prefetch(**shard)
        wait_for(lambda: cache.num_fetched == 8)
        assert all(is_whole(cache.path(**shard), shard) for shard in shards)
        assert (cache.hits, cache.misses, cache.num_fetched) == (8, 0, 8)


def test_the_error_of_a_prefetch_comes_out_where_the_shard_is_asked_for(
    store: S3Store, proxy: FaultProxy, shards: Shards, tmp_path: Path
) -> None:
    proxy.faults = [Fault("status", "HEAD")]
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as cache:
        cache.prefetch(**shards[0])
        wait_for(lambda: cache._ahead[str(shards[0]["sha256"])].done())
        proxy.faults = []
        cache.prefetch(**shards[0])
        with pytest.raises(StorageError, match="503"):
            cache.open(**shards[0])
        assert is_whole(cache.path(**shards[0]), shards[0])


def test_the_shard_asked_for_longest_ago_is_evicted(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", 3 * SIZE + 10)) as cache:
        for number in (0, 1, 2, 0, 3):
            cache.path(**shards[number])
        left = {path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}
        assert left == {shards[number]["sha256"] for number in (2, 0, 3)}


def test_an_open_shard_stays_readable_when_it_is_evicted(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", SIZE)) as cache:
        descriptor = cache.open(**shards[0])
        cache.path(**shards[1])
        assert not (tmp_path / "cache" / str(shards[0]["sha256"])).exists()
        assert hashlib.sha256(os.pread(descriptor, SIZE, 0)).hexdigest() == shards[0]["sha256"]
        os.close(descriptor)


def test_a_prefetch_evicts_nothing_that_waits_to_be_read(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with (
        ShardCache(store, CacheSettings(tmp_path / "cache", 3 * SIZE)) as cache,
        ShardCache(store, CacheSettings(tmp_path / "cache", 3 * SIZE)) as other,
    ):
        cache.path(**shards[0])
        for shard in shards[1:3]:
            cache.prefetch(**shard)
        wait_for(lambda: cache.num_fetched == 3)
        other.prefetch(**shards[3])  # takes the place of what was read
        wait_for(lambda: other.num_fetched == 1)
        other.prefetch(**shards[4])  # finds no place
        wait_for(lambda: other._ahead[str(shards[4]["sha256"])].done())
        assert [cache.path(**shard).exists() for shard in shards[1:3]] == [True, True]
        assert cache.hits == 2
        assert is_whole(other.path(**shards[4]), shards[4])  # what is needed now may take any place


def test_a_shard_larger_than_the_cache_is_a_setting_that_cannot_apply(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", SIZE - 1)) as cache:
        for call in (cache.path, cache.open, cache.prefetch):
            with pytest.raises(ConfigError, match=f"allow it at least {SIZE}"):
                call(**shards[0])


def test_a_manifest_that_lies_is_found_out(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    with ShardCache(store, CacheSettings(tmp_path / "cache", 10 * SIZE)) as cache:
        with pytest.raises(ShardError, match="sha256"):
            cache.path(**{**shards[0], "sha256": shards[1]["sha256"]})
        with pytest.raises(ShardError, match=f"has {SIZE} bytes, the manifest says 17"):
            cache.path(**{**shards[0], "size_bytes": 17})
        with pytest.raises(ShardError, match="is no sha256"):
            cache.path(**{**shards[0], "sha256": "../../etc/passwd"})
        with pytest.raises(FileNotFoundError):
            cache.path(**{**shards[0], "name": "train-000099.tar"})
        assert held(tmp_path / "cache") == 0


IN_A_PROCESS = """
import json, random, sys
from pathlib import Path
from data_shards.storage.shard_cache import CacheSettings, ShardCache
from data_shards.storage.store import open_store

uri, folder, max_bytes, seed, shards = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])
with ShardCache(open_store(uri), CacheSettings(folder, max_bytes)) as cache:
    draw = random.Random(seed)
    order = draw.choices(shards, k=60) if seed else shards
    print("started", flush=True)
    for number, shard in enumerate(order):
        for ahead in order[number + 1 : number + 3]:
            cache.prefetch(**ahead)
        import hashlib, os
        descriptor = cache.open(**shard)
        assert hashlib.sha256(os.pread(descriptor, 1 << 30, 0)).hexdigest() == shard["sha256"]
        os.close(descriptor)
    print(cache.num_fetched, flush=True)
"""


def reading_process(uri: str, folder: Path, shards: Shards, *, max_bytes: int, seed: int = 0) -> subprocess.Popen[str]:
    """A process that reads the shards through a cache: once in order, or 60 of them at random."""
    import json

    arguments = [uri, str(folder), str(max_bytes), str(seed), json.dumps(shards)]
    return subprocess.Popen([sys.executable, "-c", IN_A_PROCESS, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_fetch_a_shard_once(bucket: str, store: S3Store, proxy: FaultProxy, shards: Shards, tmp_path: Path) -> None:
    proxy.faults = [Fault("delay", delay_s=0.3)]
    readers = [reading_process(bucket, tmp_path / "cache", shards[:3], max_bytes=10 * SIZE) for _ in range(2)]
    outputs = [reader.communicate()[0].split() for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert sum(int(output[1]) for output in outputs) == 3
    assert len(proxy.of("GET")) == 3


def test_the_bound_holds_with_several_processes(bucket: str, store: S3Store, shards: Shards, tmp_path: Path) -> None:
    """Looked at from outside all the while: listing a folder is not one moment, so a renamed file may count twice."""
    folder = tmp_path / "cache"
    folder.mkdir()
    readers = [reading_process(bucket, folder, shards, max_bytes=3 * SIZE, seed=seed) for seed in (1, 2)]
    most = 0
    while any(reader.poll() is None for reader in readers):
        names = {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}
        contents = {re.search(r"[0-9a-f]{64}", name)[0] for name in names}
        most = max(most, len(contents))
        time.sleep(0.002)
    assert [reader.wait() for reader in readers] == [0, 0]
    assert 1 < most <= 3 + 1
    assert held(folder) <= 3 * SIZE


def test_what_a_killed_process_leaves_is_neither_whole_nor_in_the_way(
    bucket: str, store: S3Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    size = 3 * PART_BYTES
    large, other = (put_shard(store, f"train-{number:06d}.tar", os.urandom(size)) for number in range(2))
    proxy.faults = [Fault("delay", skip=1, delay_s=300)]
    folder = tmp_path / "cache"
    reader = reading_process(bucket, folder, [large], max_bytes=size)
    wait_for(lambda: len(proxy.of("GET")) == 1)
    reader.send_signal(signal.SIGKILL)
    reader.communicate()
    assert len(list(folder.glob(".*.arriving*"))) == 1
    proxy.faults = []
    with ShardCache(store, CacheSettings(folder, size)) as cache:
        assert is_whole(cache.path(**other), other)  # there is room for one alone: what was taken is free again
        assert list(folder.glob(".*.arriving*")) == []
        assert is_whole(cache.path(**large), large)
        assert cache.num_fetched == 2
        assert held(folder) == size


def test_reading_at_random_with_little_room(store: S3Store, shards: Shards, tmp_path: Path) -> None:
    draw = random.Random(7)
    with ShardCache(store, CacheSettings(tmp_path / "cache", 2 * SIZE), num_fetchers=3) as cache:
        order = draw.choices(shards, k=80)
        for number, shard in enumerate(order):
            for ahead in order[number : number + 4]:
                cache.prefetch(**ahead)
            descriptor = cache.open(**shard)
            assert hashlib.sha256(os.pread(descriptor, SIZE, 0)).hexdigest() == shard["sha256"]
            os.close(descriptor)
            assert held(tmp_path / "cache") <= 2 * SIZE
        assert cache.hits + cache.misses >= 80
