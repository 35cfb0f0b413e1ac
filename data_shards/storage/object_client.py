"""A process's connection to a bucket's server: boto3's client, bounded threads, retries, and errors as sentences.

The one module that imports boto3. Credentials, endpoint, signatures and certificates follow boto3's own rules. botocore's
`standard` mode tries every request again that fails before its answer's body begins (500, 503, no connection, no answer
in time), with exponential backoff and jitter; `again` does the same for transfers that end short or wrong.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from random import SystemRandom
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from data_shards.errors import StorageError

__all__ = ["ClientError", "Connecting", "ObjectClient", "SpoiledError", "code_of", "status_of", "streaming"]

_LONGEST_PAUSE_S = 20.0
_SPOILED_CODES = {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
_OVERTAKEN_CODES = {"NoSuchUpload", "InvalidPart"}  # another process joined or ended the same upload
_EXPIRED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}

T = TypeVar("T")
U = TypeVar("U")


class SpoiledError(Exception):
    """A transfer ended short or wrong; another attempt may not."""


@dataclass(frozen=True, kw_only=True)
class Connecting:
    """num_connections bounds the parts under way at once, over all threads of a process. num_attempts bounds how often a
    request, or a transfer that ended short or wrong, is tried; pauses are drawn from [0, 1), [0, 2), ... [0, 20) s."""

    num_connections: int = 8
    num_attempts: int = 6
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0


class _Made(NamedTuple):
    """What belongs to one process: a forked one makes its own."""

    pid: int
    client: Any
    threads: ThreadPoolExecutor


class ObjectClient:
    """Connects when it is first asked. Safe between threads."""

    def __init__(self, connecting: Connecting) -> None:
        self._connecting = connecting
        self._lock = Lock()
        self._made: _Made | None = None

    @property
    def s3(self) -> Any:
        """boto3's client."""
        return self._connection().client

    def each(self, work: Callable[[U], None], items: Iterable[U], then: Callable[[U], object] = lambda item: None) -> None:
        """Do `work` for every item, num_connections at once; an error ends it when those under way are done.

        then: called here with every item in turn as soon as it is done, while others are under way.
        """
        threads = self._connection().threads
        futures = {threads.submit(work, item): item for item in items}
        try:
            for future, item in futures.items():
                future.result()
                then(item)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def again(self, where: str, work: Callable[[], T]) -> T:
        """Do `work` until it does not end spoiled, with pauses drawn at random between; StorageError after num_attempts."""
        reason, attempts = "", self._connecting.num_attempts
        for attempt in range(attempts):
            if attempt:
                time.sleep(SystemRandom().uniform(0, min(_LONGEST_PAUSE_S, 2.0 ** (attempt - 1))))
            try:
                return work()
            except SpoiledError as error:
                reason = str(error)
            except ClientError as error:
                reason = code_of(error)
                if reason not in _SPOILED_CODES | _OVERTAKEN_CODES:
                    raise
        raise StorageError(f"{where}: the transfer ended wrong {attempts} times ({reason}); look at the network, try again later")

    @contextmanager
    def sentences(self, where: str) -> Iterator[None]:
        """botocore's errors as ours. Their own texts are not shown: some hold addresses with passwords."""
        attempts = self._connecting.num_attempts
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, where) from None
        except (NoConnectionError, HTTPClientError, ResponseParserError) as error:
            raise StorageError(
                f"{where}: no usable answer from {self._server()} ({type(error).__name__}, {attempts} attempts); "
                "check AWS_ENDPOINT_URL_S3 and the network, then try again"
            ) from None
        except BotoCoreError as error:
            raise StorageError(
                f"{where}: boto3 cannot be used as it is set up ({type(error).__name__}); "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or look at ~/.aws"
            ) from None

    def _refusal(self, error: ClientError, where: str) -> Exception:
        code, status, server = code_of(error), status_of(error), self._server()
        if code == "NoSuchBucket":
            return StorageError(f"{where}: no such bucket at {server}; make it, or name another")
        if status == 404:
            return FileNotFoundError(f"{where}: no such object")
        if status in (401, 403) or code in _EXPIRED_CODES:
            return StorageError(
                f"{where}: {server} refused access ({code}); check the credentials that boto3 finds "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE, a role) and their rights on the bucket"
            )
        if status >= 500 or status == 429:
            return StorageError(f"{where}: {server} answered {code} to {self._connecting.num_attempts} attempts; try again later")
        return StorageError(f"{where}: {server} refused the request ({code}); check the address and the bucket's settings")

    def _server(self) -> str:
        """Host and port, without a user and password that may be written before them."""
        return str(urlsplit(self.s3.meta.endpoint_url).netloc.rpartition("@")[2])

    def _connection(self) -> _Made:
        with self._lock:
            if self._made is None or self._made.pid != os.getpid():
                self._made = _make(self._connecting)
            return self._made


def _make(connecting: Connecting) -> _Made:
    config = Config(
        connect_timeout=connecting.connect_timeout_s,
        read_timeout=connecting.read_timeout_s,
        max_pool_connections=connecting.num_connections,
        retries={"mode": "standard", "total_max_attempts": connecting.num_attempts},
        tcp_keepalive=True,
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except ValueError:
        raise StorageError("AWS_ENDPOINT_URL_S3 is no address; write http://HOST:PORT or https://HOST") from None
    return _Made(os.getpid(), client, ThreadPoolExecutor(connecting.num_connections, thread_name_prefix="rapt-s3"))


@contextmanager
def streaming(answer: dict[str, Any]) -> Iterator[Any]:
    """The body of an answer; SpoiledError for what goes wrong while it is read."""
    with closing(answer["Body"]) as body:
        try:
            yield body
        except BotoCoreError as error:
            raise SpoiledError(type(error).__name__) from None


def code_of(error: ClientError) -> str:
    """S3's name for what went wrong, such as NoSuchKey; of a HEAD the status alone."""
    return str(error.response.get("Error", {}).get("Code", "no code"))


def status_of(error: ClientError) -> int:
    """The HTTP status."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
