"""What comes of a recording onto the disk: piece after piece, bounded, and gone on with where it broke off."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import BinaryIO

from data_shards.errors import ClipError
from serving.http.sniffing import HEAD_BYTES, check_clip
from serving.jobs.record import Job, JobRefused
from serving.jobs.runner import JobRunner

__all__ = ["MAX_PIECE_BYTES", "Uploads"]

MAX_PIECE_BYTES = 32 << 20


class Uploads:
    """The uploads of one service: for each job one request at a time writes."""

    def __init__(self, jobs: JobRunner) -> None:
        self._jobs, self._store = jobs, jobs.store
        self._writing: set[str] = set()

    async def take_whole(self, owner: str, said_bytes: int | None, pieces: AsyncIterator[bytes]) -> Job:
        """A recording that comes in one request; said_bytes: about how long the request is, where it says so. What breaks off is
        deleted."""
        limits = self._store.limits
        job = self._store.create(owner, max(1, min(said_bytes or 1, limits.max_bytes + (1 << 20))))
        try:
            await self._append(job, pieces, up_to=limits.max_bytes)
            job = self._store.keep(job, size_bytes=self._store.uploaded_bytes(job))
            return self._whole(job)
        except BaseException:
            self._store.delete(job)
            raise

    async def take_piece(self, job: Job, offset: int, said_bytes: int | None, pieces: AsyncIterator[bytes]) -> Job:
        """A piece of the recording, from byte `offset` on. What has come stays, also where the request breaks off."""
        if job.state != "uploading":
            raise JobRefused(409, f"the recording is whole already; the lesson is {job.state}")
        if said_bytes is not None and said_bytes > MAX_PIECE_BYTES:
            raise JobRefused(413, f"the piece is over {MAX_PIECE_BYTES >> 20} MiB; send smaller ones")
        has = self._store.uploaded_bytes(job)
        if offset != has:
            raise JobRefused(409, f"{has} bytes are there; send from Upload-Offset {has} on")
        await self._append(job, pieces, up_to=min(job.size_bytes, offset + MAX_PIECE_BYTES))
        if self._store.uploaded_bytes(job) == job.size_bytes:
            try:
                return self._whole(job)
            except ClipError:
                self._store.delete(job)
                raise
        return self._store.keep(job, touched_at=datetime.now(UTC))

    def _whole(self, job: Job) -> Job:
        """All bytes are there: what is no video by its first ones is refused now, not when its turn comes."""
        with self._store.recording(job).open("rb") as file:
            check_clip(file.read(HEAD_BYTES))
        return self._jobs.enqueue(job)

    async def _append(self, job: Job, pieces: AsyncIterator[bytes], *, up_to: int) -> None:
        if job.id in self._writing:
            raise JobRefused(409, "another request sends a piece of this recording; wait for it, then ask how far it is")
        self._writing.add(job.id)
        try:
            with self._store.recording(job).open("ab") as file:
                async for piece in pieces:
                    if file.tell() + len(piece) > up_to:
                        raise JobRefused(413, f"more than the {up_to} bytes that may come; begin the upload again")
                    await asyncio.to_thread(self._write, file, piece)
                    self._touch(job)
        except OSError as error:  # of the closing too, which writes what a full disk did not take
            raise JobRefused(
                503, f"the recording cannot be written ({error.strerror}); try again later", retry_after_s=600
            ) from None
        finally:
            self._writing.discard(job.id)
        self._touch(job)

    def _touch(self, job: Job) -> None:
        if not self._store.touch(job):
            raise JobRefused(404, "the lesson was deleted meanwhile; submit it again")

    def _write(self, file: BinaryIO, piece: bytes) -> None:
        self._store.check_room(len(piece))
        file.write(piece)
        file.flush()
