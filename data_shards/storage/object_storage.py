"""Files below a prefix of an S3 bucket, at any endpoint.

What boto3's own upload_file and download_file (s3transfer) do not do, so that transfers are made here:
- an upload that was broken off is continued (see multipart.py)
- an answer shorter than what was asked for is refused, whatever it says of its own length; s3transfer leaves a hole
- a download that breaks goes on from its last byte, after a pause; s3transfer asks at once, for the whole part again
- all transfers of a store share one bounded set of connections; s3transfer starts ten threads for each

Checksums: every body goes with its Content-MD5 and botocore's CRC32, which the server refuses where they do not fit; the
server compares the parts' ETags when it joins them; the object's ETag and length are compared by us. AWS and SeaweedFS
4.48 do all of these. Where an ETag is no MD5 (SSE-KMS), the object is read back. Downloads of one part are compared with
the server's CRC32 by botocore; larger ones have no checksum but their length, and `sha256` where it is given.

An object is one PUT or one joined upload, both atomic: nothing else is ever visible under its final name.
"""

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_shards.atomic import is_partial, whole_file
from data_shards.errors import ConfigError, ShardError
from data_shards.storage.multipart import PART_BYTES, Piece, md5_header, pieces_of, upload_in_parts
from data_shards.storage.object_client import ClientError, Connecting, ObjectClient, SpoiledError, code_of, status_of, streaming
from data_shards.storage.store import checked_name, file_sha256, writing

__all__ = ["S3Store"]

_SINGLE_PUT_BYTES = 2 * PART_BYTES
_CHUNK_BYTES = 1 << 20
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)


class _Object(NamedTuple):
    """What an object is told by: its size, and its ETag without quotes."""

    size_bytes: int
    etag: str


class S3Store:
    """The objects below `s3://bucket/prefix`. Safe between threads, and picklable: a process connects when it first asks."""

    def __init__(self, uri: str, connecting: Connecting | None = None) -> None:
        address = _ADDRESS.fullmatch(uri)
        if address is None:  # which is not shown: somebody may have written a key into it
            raise ConfigError(
                "s3://...: names no bucket; write s3://BUCKET/PREFIX, and leave credentials to boto3's own settings"
            )
        prefix = (address[2] or "").strip("/")
        self.uri = f"s3://{address[1]}/{prefix}".rstrip("/")
        self._bucket = address[1]
        self._prefix = checked_name(prefix) + "/" if prefix else ""
        self._connecting = connecting or Connecting()
        self._client = ObjectClient(self._connecting)

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, Connecting]]:
        return S3Store, (self.uri, self._connecting)

    def names(self) -> dict[str, int]:
        """As `Store.names`, without keys that no file below a folder can have: folder markers, "a//b", "../c"."""
        with self._client.sentences(self.uri):
            pages = self._client.s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            listed = {item["Key"].removeprefix(self._prefix): item["Size"] for page in pages for item in page.get("Contents", ())}
        return {name: listed[name] for name in sorted(listed) if _is_file_name(name)}

    def local_path(self, name: str) -> None:
        checked_name(name)

    def read(self, name: str) -> bytes:
        key, where = self._locate(name)

        def get() -> bytes:
            with streaming(self._client.s3.get_object(Bucket=self._bucket, Key=key)) as body:
                return bytes(body.read())

        with self._client.sentences(where):
            return self._client.again(where, get)

    def fetch(self, name: str, path: Path, *, sha256: str | None = None) -> None:
        key, where = self._locate(name)
        before = ""
        with self._client.sentences(where), writing(path), whole_file(path) as beside:
            for _ in range(self._connecting.num_attempts):
                there = self._client.again(where, partial(self._download, key, where, beside))
                if sha256 in (None, there):
                    return
                if there == before:  # the same bytes twice: it was not the way here
                    break
                before = there
            raise ShardError(f"{where}: its sha256 is not the one that is asked for; upload it again, or build it again")

    def put(self, path: Path, name: str) -> None:
        key, where = self._locate(name)

        def upload() -> None:
            size_bytes = path.stat().st_size
            if size_bytes <= _SINGLE_PUT_BYTES:
                etag = self._put_content(key, path.read_bytes())
            else:
                etag = upload_in_parts(self._client.s3, self._bucket, key, path, self._client.each)
            self._confirm(key, _Object(size_bytes, etag), sha256=partial(file_sha256, path))

        with self._client.sentences(where):
            self._client.again(where, upload)

    def write(self, name: str, content: bytes) -> None:
        key, where = self._locate(name)

        def upload() -> None:
            etag = self._put_content(key, content)
            self._confirm(key, _Object(len(content), etag), sha256=lambda: hashlib.sha256(content).hexdigest())

        with self._client.sentences(where):
            self._client.again(where, upload)

    def delete(self, name: str) -> None:
        key, where = self._locate(name)
        with self._client.sentences(where):
            self._client.s3.delete_object(Bucket=self._bucket, Key=key)

    def _locate(self, name: str) -> tuple[str, str]:
        """(key, the same for a message)."""
        key = self._prefix + checked_name(name)
        return key, f"s3://{self._bucket}/{key}"

    def _download(self, key: str, where: str, path: Path) -> str:
        """The object as it is now, in concurrent pieces, and its sha256; SpoiledError where it is replaced meanwhile."""
        there = self._look_at(key)
        digest = hashlib.sha256()
        with path.open("w+b") as file:
            descriptor = file.fileno()
            file.truncate(there.size_bytes)
            try:
                self._client.each(
                    partial(self._get_piece, key, where, there, descriptor),
                    pieces_of(there.size_bytes),
                    then=lambda piece: digest.update(os.pread(descriptor, piece.end - piece.begin, piece.begin)),
                )
            except ClientError as error:
                if code_of(error) in ("PreconditionFailed", "412"):
                    raise SpoiledError("replaced while it was read") from None
                raise
        return digest.hexdigest()

    def _get_piece(self, key: str, where: str, there: _Object, descriptor: int, piece: Piece) -> None:
        """Write one piece to its place in the file, going on where a connection broke."""
        at = piece.begin
        is_whole = piece.end - piece.begin == there.size_bytes

        def rest() -> None:
            nonlocal at
            if is_whole:  # from its start every time and without a range: only then does the server send its checksum
                at, span = piece.begin, {}
            else:
                span = {"Range": f"bytes={at}-{piece.end - 1}"}
            answer = self._client.s3.get_object(Bucket=self._bucket, Key=key, IfMatch=f'"{there.etag}"', **span)
            with streaming(answer) as body:
                if answer["ContentLength"] != piece.end - at:
                    raise SpoiledError(f"{answer['ContentLength']} bytes came where {piece.end - at} were asked for")
                while chunk := body.read(_CHUNK_BYTES):
                    at += os.pwrite(descriptor, chunk, at)

        self._client.again(where, rest)

    def _put_content(self, key: str, content: bytes) -> str:
        """PUT in one request; returns the ETag that the object should have."""
        md5 = hashlib.md5(content, usedforsecurity=False)
        self._client.s3.put_object(Bucket=self._bucket, Key=key, Body=content, ContentMD5=md5_header(md5.digest()))
        return md5.hexdigest()

    def _confirm(self, key: str, sent: _Object, *, sha256: Callable[[], str]) -> None:
        """Compare what is there with what was sent; delete it where it is something else."""
        try:
            there = self._look_at(key)
        except ClientError as error:
            raise (SpoiledError("not there after it was sent") if status_of(error) == 404 else error) from None
        if there != sent and (there.size_bytes != sent.size_bytes or self._sha256_there(key) != sha256()):
            self._client.s3.delete_object(Bucket=self._bucket, Key=key)
            raise SpoiledError("what is there is not what was sent")

    def _look_at(self, key: str) -> _Object:
        try:
            answer = self._client.s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if status_of(error) == 404:  # a HEAD's answer does not say whether the key or the bucket is missing
                self._client.s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
            raise
        return _Object(answer["ContentLength"], answer["ETag"].strip('"'))

    def _sha256_there(self, key: str) -> str:
        digest = hashlib.sha256()
        with streaming(self._client.s3.get_object(Bucket=self._bucket, Key=key)) as body:
            while chunk := body.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def _is_file_name(name: str) -> bool:
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and "\0" not in name and not is_partial(parts[-1])
