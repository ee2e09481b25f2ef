"""Who may come in, and how often: keys, permissions and the daily quota."""

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from leadlex._errors import ConfigurationError

from ._clock import Clock
from ._replies import Refusal

PERMISSIONS = frozenset({"lexi", "read:ai", "write:ai"})


class Key(NamedTuple):
    """A workspace key: whose it is, of which workspace, what it may do, and from when on nothing."""

    user_id: str
    workspace_id: str
    permissions: frozenset[str]
    expires_at: datetime | None


class Gate:
    """The keys, and how many requests each has made today; a day is one of UTC, as for the service."""

    def __init__(self, quota: int, clock: Clock) -> None:
        self.quota, self._clock = quota, clock
        self._keys: dict[str, Key] = {}
        self._used: Counter[tuple[str, str]] = Counter()

    def add(self, token: str, key: Key) -> None:
        """Let a key in; ConfigurationError names the permissions there are."""
        if unknown := key.permissions - PERMISSIONS:
            raise ConfigurationError(f"no such permission: {sorted(unknown)}; there are {sorted(PERMISSIONS)}")
        self._keys[token] = key

    def reset(self) -> None:
        """Give every key its quota back."""
        self._used.clear()

    def admit(self, authorization: str, permission: str) -> Key:
        """Count a request and give its key, or refuse it with 401, 429 or 403."""
        token = _token(authorization)
        key = self._keys.get(token)
        if not key or (key.expires_at and key.expires_at <= self._clock.now()):
            raise Refusal(401, "invalid_key", "The API key is missing, invalid or expired")
        if not self._left(token):
            raise Refusal(429, "rate_limited", "The quota is used up until midnight UTC")
        self._used[token, self._today()] += 1
        if permission not in key.permissions:
            raise Refusal(403, "insufficient_permissions", f"The API key lacks the permission {permission}")
        return key

    def headers(self, authorization: str) -> dict[str, str]:
        """Tell what is left of the quota of the key that was sent."""
        midnight = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return {
            "X-RateLimit-Limit": str(self.quota),
            "X-RateLimit-Remaining": str(self._left(_token(authorization))),
            "X-RateLimit-Reset": str(int(midnight.timestamp())),
        }

    def _left(self, token: str) -> int:
        return self.quota - self._used[token, self._today()]

    def _today(self) -> str:
        return self._clock.now().date().isoformat()


def _token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
