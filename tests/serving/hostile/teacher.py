"""Who hands in hostile lessons: with a key, and tidying up behind itself, which tells whether anything was left."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from tests.serving.hostile.attack import ANSWERED, Address, Reply, converse, request
from tests.serving.hostile.credentials import TargetKeys, bearer

__all__ = ["LessonAttack", "Teacher"]

_BYTES = b"application/octet-stream"


class Teacher:
    """Hands in lessons with a key, and knows whether anything of one is left."""

    def __init__(self, keys: TargetKeys, jobs: Path, address: Address = ("", 0)) -> None:
        self.keys, self.jobs, self.address = keys, jobs, address

    def runs(self, attack: "LessonAttack") -> Callable[[Address], Reply]:
        def run(address: Address) -> Reply:
            begun_s = time.monotonic()
            teacher = Teacher(self.keys, self.jobs, address)
            try:
                reply = attack.run(teacher)
            except (AssertionError, ValueError, KeyError) as error:  # a step on the way was not answered as it should be
                reply = Reply(-1, repr(error).encode())
            try:
                left = teacher.tidied()
            except ValueError:
                left = ["perhaps something, for the lessons could not be asked for"]
            what = Reply(-1, f"left on disk: {', '.join(left)}".encode()) if left else reply
            return replace(what, took_s=time.monotonic() - begun_s)

        return run

    def ask(self, method: bytes, path: bytes, body: bytes = b"", *headers: bytes, content_type: bytes | None = _BYTES) -> Reply:
        return self.send(request(method, path, body, bearer(self.keys.whole), *headers, content_type=content_type))

    def send(self, *pieces: bytes) -> Reply:
        return converse(self.address, pieces)

    def begins(self, size_bytes: int) -> bytes:
        """A lesson to upload, as its path."""
        size = json.dumps({"size_bytes": size_bytes}).encode()
        reply = self.ask(b"POST", b"/v1/jobs", size, content_type=b"application/json")
        assert reply.status == 201, reply
        return b"/v1/jobs/" + json.loads(reply.body)["id"].encode()

    def piece(self, path: bytes, offset: bytes, body: bytes) -> Reply:
        return self.ask(b"PATCH", path + b"/recording", body, b"Upload-Offset: " + offset)

    def tidied(self) -> list[str]:
        """Delete every lesson of the key; what is there still, a moment later."""
        for job in json.loads(self.ask(b"GET", b"/v1/jobs").body):
            self.ask(b"DELETE", b"/v1/jobs/" + job["id"].encode())
        for _ in range(100):
            left = sorted(str(path.relative_to(self.jobs)) for path in self.jobs.rglob("*"))
            if not left:
                break
            time.sleep(0.1)  # a request that was broken off is seen to be
        return left


class LessonAttack:
    """run: does it as that teacher."""

    def __init__(self, kind: str, name: str, run: Callable[[Teacher], Reply], may: Iterable[int] = ANSWERED) -> None:
        self.kind, self.name, self.run, self.may = f"lesson: {kind}", name, run, frozenset(may)
