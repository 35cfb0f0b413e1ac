"""S3Store against boto3's own upload_file and download_file, with their defaults, on one SeaweedFS on this machine.

Ours also compares the object with the file after an upload, and the sha256 of a download, which it brings to the disk.

python -m benchmarks.bench_object_storage
"""

import hashlib
import os
import tempfile
from pathlib import Path

import boto3

from benchmarks.measure import compare, save
from data_shards.storage.object_storage import S3Store
from tests.object_server import BUCKET, running_object_server

_SIZE_MIB = 256


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as name:
        folder = Path(name)
        with running_object_server(folder / "server", volume_mb=1024) as server:
            os.environ.update(server.environment)
            save("object_storage", transfers(folder))


def transfers(folder: Path) -> list[dict[str, object]]:
    """Both ways, five rounds in turn, of the same random file."""
    source = folder / "source"
    content = os.urandom(_SIZE_MIB << 20)
    source.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    store, client = S3Store(f"s3://{BUCKET}/bench"), boto3.client("s3")

    def put() -> int:
        store.put(source, "ours")
        return _SIZE_MIB

    def upload_file() -> int:
        client.upload_file(str(source), BUCKET, "bench/peer")
        return _SIZE_MIB

    def fetch() -> int:
        store.fetch("ours", folder / "ours", sha256=sha256)
        return _SIZE_MIB

    def download_file() -> int:
        client.download_file(BUCKET, "bench/peer", str(folder / "peer"))
        return _SIZE_MIB

    title = f"a file of {_SIZE_MIB} MiB, SeaweedFS on loopback"
    return [
        compare(f"Upload: {title}", ("rapt put", put), ("boto3 upload_file", upload_file), unit="MiB", rounds=5),
        compare(f"Download: {title}", ("rapt fetch", fetch), ("boto3 download_file", download_file), unit="MiB", rounds=5),
    ]


if __name__ == "__main__":
    main()
