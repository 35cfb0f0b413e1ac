"""A large file to an object in parts, going on from an upload that was broken off.

s3transfer, boto3's own, starts such an upload again from its first byte and leaves the old parts behind. Here the parts
that a server holds are compared with the file, by their MD5: what is equal is kept, what is missing is sent. Joining the
parts is one step on the server: until then the object is not there, or is the one from before.
"""

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["PART_BYTES", "Each", "Piece", "md5_header", "pieces_of", "upload_in_parts"]

PART_BYTES = 8 << 20
_MOST_PARTS = 10_000  # of S3; files of more than 80 GiB go in larger parts


class Piece(NamedTuple):
    """Part `number` of a file, from 1: bytes begin to end."""

    number: int
    begin: int
    end: int


class _Part(NamedTuple):
    """A part that the server holds: as it is named when the parts are joined, and its MD5."""

    named: dict[str, Any]
    md5: bytes


Each = Callable[[Callable[[Piece], None], Iterable[Piece]], None]
"""Does some work for every piece, a bounded number of them at once, and waits for all."""


def pieces_of(size_bytes: int) -> list[Piece]:
    """The parts of a file of `size_bytes`; none where it is empty."""
    step = max(PART_BYTES, -(-size_bytes // _MOST_PARTS))
    return [Piece(number, begin, min(begin + step, size_bytes)) for number, begin in enumerate(range(0, size_bytes, step), 1)]


def md5_header(md5: bytes) -> str:
    """A Content-MD5: the server refuses a body that does not have it."""
    return b64encode(md5).decode()


def upload_in_parts(client: Any, bucket: str, key: str, path: Path, each: Each) -> str:
    """Send what the server does not hold yet, join it, and return the ETag that the object should have.

    A process that is killed, or fails, leaves its finished parts for the next one to go on from.
    """
    pieces = pieces_of(path.stat().st_size)
    with path.open("rb") as file:
        upload_id, held = _broken_off(client, bucket, key, pieces, file.fileno())
        target = {"Bucket": bucket, "Key": key, "UploadId": upload_id or _begin(client, bucket, key)}

        def send(piece: Piece) -> None:
            content = _content(file.fileno(), piece)
            md5 = hashlib.md5(content, usedforsecurity=False).digest()
            answer = client.upload_part(**target, PartNumber=piece.number, Body=content, ContentMD5=md5_header(md5))
            held[piece.number] = _Part(_named(piece.number, answer), md5)

        each(send, [piece for piece in pieces if piece.number not in held])
    parts = [held[piece.number] for piece in pieces]
    with suppress(client.exceptions.NoSuchUpload):  # joined already, and the answer lost: what is there will tell
        client.complete_multipart_upload(**target, MultipartUpload={"Parts": [part.named for part in parts]})
    return f"{hashlib.md5(b''.join(part.md5 for part in parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _begin(client: Any, bucket: str, key: str) -> str:
    return str(client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])


def _broken_off(client: Any, bucket: str, key: str, pieces: list[Piece], descriptor: int) -> tuple[str | None, dict[int, _Part]]:
    """(upload id, its parts) of the fullest upload of this very file that was broken off, None where there is none.

    All others to this key are aborted: nobody else will, and their parts are paid for.
    """
    best: tuple[str | None, dict[int, _Part]] = (None, {})
    others = []
    for upload_id in _upload_ids(client, bucket, key):
        held = _held(client, bucket, key, upload_id, pieces, descriptor)
        if held is None or (best[0] is not None and len(held) <= len(best[1])):
            others.append(upload_id)
        else:
            others += [best[0]] if best[0] is not None else []
            best = (upload_id, held)
    for upload_id in others:
        with suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    return best


def _upload_ids(client: Any, bucket: str, key: str) -> list[str]:
    """Unfinished uploads to `key`. To list them is a right of its own, and unknown to some servers: then there are none."""
    try:
        pages = list(client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key))
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 501):
            return []
        raise
    return [upload["UploadId"] for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == key]


def _held(client: Any, bucket: str, key: str, upload_id: str, pieces: list[Piece], descriptor: int) -> dict[int, _Part] | None:
    """The parts of an upload; None where one of them is not of this file, so that none can be trusted to be."""
    held = {}
    try:
        pages = list(client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload_id))
    except client.exceptions.NoSuchUpload:
        return None
    for part in (part for page in pages for part in page.get("Parts", ())):
        number = part["PartNumber"]
        if number > len(pieces):
            return None
        md5 = hashlib.md5(_content(descriptor, pieces[number - 1]), usedforsecurity=False).digest()
        if part["ETag"].strip('"') != md5.hex():
            return None
        held[number] = _Part(_named(number, part), md5)
    return held


def _content(descriptor: int, piece: Piece) -> bytes:
    return os.pread(descriptor, piece.end - piece.begin, piece.begin)


def _named(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """A part as the request that joins them names it: S3 wants every checksum back that it was sent."""
    checksums = {name: value for name, value in answer.items() if name == "ETag" or name.startswith("Checksum")}
    return {"PartNumber": number, **checksums}
