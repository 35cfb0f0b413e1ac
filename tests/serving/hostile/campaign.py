"""Attacks one after another on one server, and whether all that was promised held."""

import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.serving.hostile.attack import CLOSED, END, Attack, HostileFile, Reply, converse, multipart, post, upload
from tests.serving.hostile.clients import client_attacks
from tests.serving.hostile.credentials import TargetKeys, bearer, key_attacks
from tests.serving.hostile.files import hostile_files
from tests.serving.hostile.forms import form_attacks
from tests.serving.hostile.lessons import lesson_attacks
from tests.serving.hostile.oddities import odd_clips
from tests.serving.hostile.requests import explain_attacks, request_attacks
from tests.serving.hostile.target import Target

__all__ = ["Row", "Verdict", "all_attacks", "campaign", "sampled"]

LONGEST_S = 75.0  # a clip's 60 s, and what a busy machine takes; a lesson bounds itself
GROWN_MIB = 400.0  # of a process that answers: an upload of 100 MiB is held as a form, as bytes and on its way to the next
_TELLS_TOO_MUCH = re.compile(r"/tmp|/home|/root|/usr|site-packages|Traceback|\.py\b|0x[0-9a-f]{6,}|rapt-decode")


@dataclass
class Row:
    """A kind of attack: how many, which statuses came, the slowest in seconds, and what went wrong."""

    kind: str
    count: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """rows by kind; broken: what did not hold of the server as a whole; measured: figures by name."""

    rows: list[Row]
    broken: list[str]
    measured: dict[str, float]

    @property
    def failures(self) -> list[str]:
        return [*self.broken, *(failure for row in self.rows for failure in row.failures)]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "rows": [{**vars(row), "statuses": dict(row.statuses)} for row in self.rows]}


def all_attacks(clips: Mapping[str, bytes], canary: str, keys: TargetKeys, jobs: Path, seed: int = 0) -> list[Attack]:
    """Files, requests, forms and clients; then, to a server that asks for keys, credentials and lessons. jobs: its folder of
    lessons."""
    good = clips["no_face.mp4"]
    files: list[HostileFile] = [*hostile_files(clips, canary, seed), *odd_clips()]
    open_ones = [
        *map(upload, files),
        *request_attacks(good),
        *explain_attacks(files),
        *form_attacks(good, seed),
        *client_attacks(good),
    ]
    return [*open_ones, *key_attacks(good, keys), *lesson_attacks(good, files, keys, jobs)]


def sampled(attacks: Iterable[Attack], count: int, seed: int) -> list[Attack]:
    """So many of them, of every kind at least one, chosen by the seed."""
    rng, by_kind = random.Random(seed), dict[str, list[Attack]]()
    for attack in attacks:
        by_kind.setdefault(attack.kind, []).append(attack)
    chosen = [rng.choice(found) for found in by_kind.values()]
    rest = [attack for found in by_kind.values() for attack in found if attack not in chosen]
    return chosen + rng.sample(rest, max(0, count - len(chosen)))


def campaign(
    target: Target, attacks: Iterable[Attack], good: bytes, *, most_s: float = float("inf"), say: bool = False
) -> Verdict:
    """Run them, those without keys first. A server that dies ends it, and so does their time, most_s; afterwards `good`, a clip,
    must be scored as ever."""
    rows: dict[str, Row] = {}
    servers, rss_before_mib, broken = target.servers(), target.now_mib(), list[str]()
    until_s = time.monotonic() + most_s
    for attack in sorted(attacks, key=lambda attack: attack.keyed):
        if time.monotonic() > until_s:
            break
        if attack.keyed:
            target.ask_for_keys()
        if say and attack.kind not in rows:
            print(f"{sum(row.count for row in rows.values()):5d}  {attack.kind}", flush=True)
        row = rows.setdefault(attack.kind, Row(attack.kind))
        reply = _answered(attack, target)
        row.count += 1
        row.statuses[reply.status] += 1
        row.slowest_s = max(row.slowest_s, reply.took_s)
        if wrong := _wrong(attack, reply):
            row.failures.append(wrong)
            if say:
                print(wrong, flush=True)
        if target.process.poll() is not None:
            broken.append(f"the server died of '{attack.kind}: {attack.name}'")
            break
    time.sleep(1.5)
    grown_mib = target.now_mib() - rss_before_mib
    broken += [] if target.servers() == servers else ["other processes answer than before"]
    broken += _not_held(target, good, grown_mib)
    measured = {
        "attacks": float(sum(row.count for row in rows.values())),
        "rss_before_mib": rss_before_mib,
        "rss_after_mib": rss_before_mib + grown_mib,
        "rss_highest_mib": max(target.rss_mib, default=0.0),
        "children_highest_mib": max(target.children_mib, default=0.0),
        "healthz_asked": float(len(target.healthy_s)),
        "healthz_slowest_s": max(target.healthy_s, default=0.0),
    }
    return Verdict(sorted(rows.values(), key=lambda row: row.kind), broken, measured)


def _not_held(target: Target, good: bytes, grown_mib: float) -> list[str]:
    """What does not hold of the server as a whole."""
    last = Attack(
        "after", "a good clip", lambda address: converse(address, [post(multipart(good) + END, bearer(target.keys.whole))])
    )
    scored = _answered(last, target).status == 200
    broken = [] if scored else ["a good clip was not scored afterwards"]
    left, children = target.left_on_disk(), target.children()
    broken += [f"left on disk: {', '.join(left[:5])}"] if left else []
    broken += [f"{len(children)} child processes"] if len(children) > 1 else []
    broken += [f"{target.canary.touched} calls of an address that a file named"] if target.canary.touched else []
    broken += [f"/healthz did not answer {target.unhealthy()} times"] if target.unhealthy() else []
    broken += [f"the server grew by {grown_mib:.0f} MiB"] if grown_mib > GROWN_MIB * max(1, len(target.servers())) else []
    return broken


def _answered(attack: Attack, target: Target) -> Reply:
    """The reply, asked again as Retry-After says while clips of an attack before, whose clients have left, are under way."""
    for _ in range(30):
        reply = attack.run(target.address)
        if reply.status != 503 or "waiting" not in reply.sentence:
            break
        time.sleep(1)
    return reply


def _wrong(attack: Attack, reply: Reply) -> str:
    """What is wrong with the reply, empty where nothing is."""
    what = f"{attack.kind}: {attack.name}"
    if reply.status not in attack.may:
        return f"{what}: {reply.status} {reply.body[:150]!r}"
    if reply.took_s > LONGEST_S and not attack.kind.startswith("lesson"):
        return f"{what}: {reply.took_s:.0f} s"
    if reply.status == CLOSED or reply.status < 300:
        return ""
    if reply.body.startswith(b"{") and not reply.sentence:
        return f"{what}: {reply.status} without a reason: {reply.body[:150]!r}"
    if reply.sentence and attack.sentences and not reply.sentence.startswith(attack.sentences):
        return f"{what}: another reason than others get: {reply.sentence[:150]}"
    if _TELLS_TOO_MUCH.search(reply.sentence) or len(reply.sentence) > 400:
        return f"{what}: a reason that tells too much: {reply.sentence[:150]}"
    return ""


def clips_of(folder: Path) -> dict[str, bytes]:
    """The real clips by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
