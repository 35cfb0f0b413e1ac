"""How often and how much at once: a token bucket and a count for each key, and a bucket for a service without keys.

No clock is read here: each call is told the time, in seconds of a clock that never goes back.
"""

import math
from dataclasses import dataclass, field

from serving.access.keys import KeyRecord

__all__ = ["Limits", "TokenBucket"]


class TokenBucket:
    """A minute's requests at once at the most, and then as many as trickle in.

    [choice] The bucket holds a whole minute's tokens, so that "60 a minute" lets a person send 60 clips one after another
    and not one a second; over any longer time the rate holds.
    """

    def __init__(self, rate_per_minute: int, now_s: float) -> None:
        self._per_s = rate_per_minute / 60
        self._most = self._tokens = float(rate_per_minute)
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """0 where a token was taken; else the seconds until there is one, and none is taken."""
        self._tokens = min(self._most, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = max(self._at_s, now_s)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_s


@dataclass
class _Use:
    """What one key has under way."""

    rate_per_minute: int
    bucket: TokenBucket
    under_way: int = field(default=0)


class Limits:
    """The use of every key. Of one event loop: it holds no lock. As many entries as keys were used, which an operator makes."""

    def __init__(self, *, open_rate_per_minute: int) -> None:
        self._open_rate_per_minute = open_rate_per_minute
        self._open: TokenBucket | None = None
        self._uses: dict[str, _Use] = {}

    def take_open(self, now_s: float) -> int:
        """A request to a service without keys: 0, or after how many whole seconds to ask again."""
        if self._open is None:
            self._open = TokenBucket(self._open_rate_per_minute, now_s)
        return math.ceil(self._open.take(now_s))

    def has_room(self, key: KeyRecord) -> bool:
        """Whether the key has fewer requests under way than it may have."""
        use = self._uses.get(key.id)
        return use is None or use.under_way < key.concurrency

    def take(self, key: KeyRecord, now_s: float) -> int:
        """A request with a key: 0, or after how many whole seconds to ask again."""
        use = self._uses.get(key.id)
        if use is None:
            use = self._uses[key.id] = _Use(key.rate_per_minute, TokenBucket(key.rate_per_minute, now_s))
        elif use.rate_per_minute != key.rate_per_minute:
            use.rate_per_minute, use.bucket = key.rate_per_minute, TokenBucket(key.rate_per_minute, now_s)
        return math.ceil(use.bucket.take(now_s))

    def enter(self, key: KeyRecord) -> None:
        """The request begins; `leave` must follow."""
        self._uses[key.id].under_way += 1

    def leave(self, key: KeyRecord) -> None:
        """The request has its answer, or is given up."""
        self._uses[key.id].under_way -= 1
