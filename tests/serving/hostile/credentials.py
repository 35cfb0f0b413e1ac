"""Hostile credentials: keys of every shape that are none, or no longer, or not for this; and paths that would go round them."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from serving.access.keys import create_key, revoke_key, utc_now
from tests.serving.hostile.attack import END, OR_CLOSED, Address, Attack, Reply, converse, multipart, request

__all__ = ["TargetKeys", "bearer", "key_attacks", "make_keys"]

UNKNOWN = ("an API key is needed; send one as", "this API key is not known; send one as", "two API keys; send one")
_MAY = frozenset({400, 401, 403})


@dataclass(frozen=True)
class TargetKeys:
    """The attacked server's: one for everything, another teacher's, one for clips alone, and two that are over."""

    whole: bytes
    other: bytes
    scores: bytes
    expired: bytes
    revoked: bytes


def make_keys(path: Path) -> TargetKeys:
    """Write the keys file. Their limits are far away: it is no campaign of 429."""
    now, yesterday = utc_now(), utc_now() - timedelta(days=1)

    def key(name: str, *, scopes: tuple[str, ...] = ("score", "jobs", "metrics"), over: bool = False) -> bytes:
        made = create_key(
            path,
            name,
            now=now - timedelta(days=2),
            scopes=scopes,  # type: ignore[arg-type]
            expires_at=yesterday if over else None,
            rate_per_minute=1_000_000,
            concurrency=1000,
        )
        return made[1].encode()

    keys = TargetKeys(key("whole"), key("other"), key("scores", scopes=("score",)), key("expired", over=True), key("revoked"))
    revoke_key(path, "revoked", now=now)
    return keys


def bearer(key: bytes) -> bytes:
    return b"Authorization: Bearer " + key


def key_attacks(clip: bytes, keys: TargetKeys) -> Iterator[Attack]:
    """All of them; clip: one that is scored."""
    yield from _shapes(keys)
    yield from _several(keys)
    yield from _over_or_of_other_scopes(clip, keys)
    yield from _ways_round(keys)


def _shapes(keys: TargetKeys) -> Iterator[Attack]:
    """Each alone, in both headers; none is told from another but for whether there was one at all."""
    _, key_id, secret = keys.whole.split(b"_")
    _, other_id, other_secret = keys.other.split(b"_")
    whole = keys.whole
    shapes = {
        "nothing": b"",
        "blanks": b"    ",
        "a word": b"secret",
        "the prefix": b"rapt_",
        "an id alone": b"rapt_" + key_id,
        "an id and no secret": b"rapt_" + key_id + b"_",
        "a secret alone": secret,
        "an id with another's secret": b"rapt_" + key_id + b"_" + other_secret,
        "another's id with the secret": b"rapt_" + other_id + b"_" + secret,
        "an id and zeros": b"rapt_" + key_id + b"_" + b"0" * 64,
        "an unknown id": b"rapt_" + b"0" * 12 + b"_" + secret,
        "the digest that lies in the file": b"rapt_" + key_id + b"_" + hashlib.sha256(secret).hexdigest().encode(),
        "one digit short": whole[:-1],
        "one digit more": whole + b"0",
        "its last digit turned": whole[:-1] + (b"0" if whole[-1:] != b"0" else b"1"),
        "twice": whole + whole,
        "in capitals": whole.upper(),
        "in quotes": b'"' + whole + b'"',
        "with a comma": whole + b",",
        "with another word": whole + b" x",
        "with a tab inside": whole[:20] + b"\t" + whole[20:],
        "with dashes": whole.replace(b"_", b"-"),
        "percent-encoded": whole.replace(b"_", b"%5f"),
        "base64": base64.b64encode(whole),
        "digits of another script": b"rapt_" + key_id + b"_" + "٣".encode() * 64,
        "full-width letters": "ｒａｐｔ_".encode() + whole[5:],
        "a letter that looks alike": b"r\xd0\xb0pt_" + whole[5:],
        "not UTF-8": b"rapt_\xff\xfe" + whole[5:],
        "a NUL behind it": whole + b"\0",
        "a byte-order mark": b"\xef\xbb\xbf" + whole,
        "15 kB": b"rapt_" + key_id + b"_" + b"a" * 15_000,
        "60 kB": b"rapt_" + key_id + b"_" + b"a" * 60_000,
        "1 MB": b"a" * 1_000_000,
        "SQL": b"' OR '1'='1",
        "a path": b"../../keys.json",
        "a wildcard": b"rapt_*_*",
        "an expression": b"rapt_[0-9a-f]{12}_[0-9a-f]{64}",
        "format words": b"%s%n{0.__class__}",
        "markup": b"<script>alert(1)</script>",
        "a JWT that is not signed": b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3aG9sZSJ9.",
        "null": b"null",
        "true": b"true",
    }
    for name, shape in shapes.items():
        is_long = len(shape) > 16_000  # what a server reads of a head is the server's
        may = OR_CLOSED - {200} if is_long or b"\0" in shape else _MAY
        says = () if is_long else UNKNOWN
        for header in (b"Authorization: Bearer ", b"X-API-Key: "):
            yield _asked("key", f"{name}, {header.split(b':')[0].decode()}", header + shape, may=may, says=says)
    schemes = (b"", b"Basic", b"Digest", b"Token", b"ApiKey", b"Bearer:", b"Bearer,", b"BearerBearer", b"Negotiate", b"Bearer=")
    for scheme in schemes:
        yield _asked("key", f"a key as {scheme.decode() or 'no scheme'}", b"Authorization: " + scheme + b" " + whole)
    yield _asked("key", "as Basic's name", b"Authorization: Basic " + base64.b64encode(whole + b":"))
    yield _asked("key", "a scheme and no blank", b"Authorization: Bearer" + whole)
    yield _asked("key", "a cookie", b"Cookie: Authorization=Bearer%20" + whole + b"; key=" + whole)
    yield _asked("key", "a header of a like name", b"X_API_Key: " + whole, b"X-Api-Keys: " + whole, b"Proxy-" + bearer(whole))
    for query in (b"key=", b"api_key=", b"access_token=", b"token=", b"authorization=Bearer%20"):
        yield _asked("key", f"in the address, {query.decode()}", path=b"/v1/model?" + query + whole)


def _several(keys: TargetKeys) -> Iterator[Attack]:
    """Which of two counts would be a matter of who reads them: a proxy before the endpoint may take the other one."""
    bad = b"rapt_" + b"0" * 12 + b"_" + b"0" * 64
    for name, headers in {
        "a bearer and X-API-Key": (bearer(keys.whole), b"X-API-Key: " + bad),
        "X-API-Key and a bearer": (b"X-API-Key: " + keys.whole, bearer(bad)),
        "two keys of two people": (bearer(keys.whole), b"X-API-Key: " + keys.other),
        "the same in both": (bearer(keys.whole), b"X-API-Key: " + keys.whole),
        "two bearers": (bearer(keys.whole), bearer(bad)),
        "two bearers, the right one last": (bearer(bad), bearer(keys.whole)),
        "two X-API-Keys": (b"X-API-Key: " + keys.whole, b"X-API-Key: " + bad),
        "two in one header": (bearer(keys.whole + b", Bearer " + bad),),
        "an empty bearer and X-API-Key": (b"Authorization: Bearer", b"X-API-Key: " + keys.whole),
        "a thousand": tuple([bearer(bad)] * 20 + [b"X-API-Key: " + bad] * 20),
    }.items():
        yield _asked("two keys", name, *headers)


def _over_or_of_other_scopes(clip: bytes, keys: TargetKeys) -> Iterator[Attack]:
    """A whole key that is over is told so, for who has its secret is its owner; a scope that lacks is named."""
    for path in (b"/v1/model", b"/v1/jobs", b"/metrics", b"/v1/nothing"):
        yield _asked("key over", f"expired, {path.decode()}", bearer(keys.expired), path=path, says=("this API key has expired",))
        yield _asked("key over", f"revoked, {path.decode()}", bearer(keys.revoked), path=path, says=("this API key was revoked",))
    form = multipart(clip) + END
    for name, key in {"expired": keys.expired, "revoked": keys.revoked, "none": b""}.items():
        says = ("this API key has expired", "this API key was revoked", *UNKNOWN)
        for path in (b"/v1/score", b"/v1/explain?at_s=1", b"/v1/jobs"):
            sent = request(b"POST", path, form, bearer(key))
            yield _keyed("key over", f"{name}, a clip to {path.decode()}", sent, _MAY, says)
    lacks = ("this API key is for score, not for",)
    for path in (
        b"/v1/jobs",
        b"/v1/jobs/" + b"0" * 32,
        b"/v1/jobs/x/result",
        b"/v1/jobs//",
        b"/metrics",
        b"/metrics/x",
        b"/%6d%65trics",
    ):
        yield _asked("key scope", f"scores, GET {path.decode()}", bearer(keys.scores), path=path, says=lacks)
    for method, path in ((b"POST", b"/v1/jobs"), (b"DELETE", b"/v1/jobs/" + b"0" * 32), (b"PATCH", b"/v1/jobs/x/recording")):
        sent = request(method, path, form, bearer(keys.scores))
        yield _keyed("key scope", f"scores, {method.decode()} {path.decode()[:20]}", sent, frozenset({403}), lacks)


def _ways_round(keys: TargetKeys) -> Iterator[Attack]:
    """A closed route by a path that looks like an open one: nobody is let in, whatever else is said."""
    for path in (
        b"//v1/model", b"/v1/model/", b"/V1/MODEL", b"/healthz/../v1/model", b"/page/../v1/model", b"/docs/../metrics",
        b"/%761/model", b"/v1%2fmodel", b"/healthz/..%2fv1/model", b"/page/%2e%2e/metrics", b"/v1/model;/healthz",
        b"/v1/model?/healthz", b"/v1/model%00/healthz", b"/v1/model#/healthz", b"http://rapt/v1/model", b"/./metrics",
        b"/metrics%20", b"/page/a/../../v1/jobs", b"/readyz/v1/model", b"/openapi.json/../v1/jobs", b"/\\v1\\model",
        b"/v1/./model", b"/-/../metrics",
    ):  # fmt: skip
        sent = request(b"GET", path, b"", content_type=None)
        yield _keyed("way round", path.decode(), sent, (OR_CLOSED | {307}) - {200}, ())
    for method in (b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"get", b"G" * 3000):
        sent = request(method, b"/v1/jobs", b"", content_type=None)
        yield _keyed("way round", f"{method[:12].decode()} without a key", sent, OR_CLOSED - {200}, ())
    for header in (
        b"X-Original-URL: /healthz", b"X-Rewrite-URL: /healthz", b"X-HTTP-Method-Override: OPTIONS", b"X-Forwarded-User: whole",
        b"X-Forwarded-For: 127.0.0.1", b"Host: 127.0.0.1", b"X-Owner: anna", b"Origin: null",
    ):  # fmt: skip
        yield _asked("way round", header.decode(), header, may=_MAY | {404})
    for path in (b"/v1//jobs", b"/v1/score/../jobs", b"/v1/score%2f..%2fjobs", b"//v1/jobs", b"/V1/jobs", b"/v1/jobs%2f"):
        sent = request(b"GET", path, b"", bearer(keys.scores), content_type=None)
        yield _keyed("way round", f"a key for scores at {path.decode()}", sent, (OR_CLOSED | {307}) - {200}, ())


def _asked(
    kind: str,
    name: str,
    *headers: bytes,
    path: bytes = b"/v1/model",
    may: frozenset[int] = _MAY,
    says: tuple[str, ...] = UNKNOWN,
) -> Attack:
    return _keyed(kind, name, request(b"GET", path, b"", *headers, content_type=None), may, says)


def _keyed(kind: str, name: str, sent: bytes, may: frozenset[int], says: tuple[str, ...]) -> Attack:
    def run(address: Address) -> Reply:
        return converse(address, [sent])

    return Attack(kind, name, run, may, says, keyed=True)
