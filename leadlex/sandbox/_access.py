"""Who may come in, how often, and what it costs: keys, permissions, the daily quota and the credits."""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ._replies import Refusal
from ._store import now

PERMISSIONS = frozenset({"lexi", "read:ai", "write:ai"})


@dataclass(frozen=True, slots=True)
class Key:
    """A workspace key: whose it is, what it may do and until when."""

    user_id: str
    permissions: frozenset[str]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Charge:
    """One entry of the ledger: `what` is "chat", "stream" or "prospect_search", `credits` what it cost."""

    what: str
    credits: int
    idempotency_key: str | None


class Gate:
    """The keys, and how many requests each of them has made today; a day is one of UTC, as the quota is."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self._keys: dict[str, Key] = {}
        self._used: Counter[tuple[str, str]] = Counter()

    def add(self, key: str, user_id: str, permissions: Iterable[str], expires_at: datetime | None) -> None:
        """Let a key in; ValueError names the permissions there are."""
        if unknown := set(permissions) - PERMISSIONS:
            raise ValueError(f"no such permission: {sorted(unknown)}; there are {sorted(PERMISSIONS)}")
        self._keys[key] = Key(user_id, frozenset(permissions), expires_at)

    def admit(self, authorization: str, permission: str) -> Key:
        """Count a request and give its key, or refuse it with 401, 403 or 429."""
        token = _token(authorization)
        key = self._keys.get(token)
        if not key or (key.expires_at and key.expires_at <= now()):
            raise Refusal(401, "invalid_key", "The API key is missing, invalid or expired")
        if not self._left(token):
            raise Refusal(429, "rate_limited", "The quota is used up until midnight UTC")
        self._used[token, _today()] += 1
        if permission not in key.permissions:
            raise Refusal(403, "insufficient_permissions", f"The API key lacks the permission {permission}")
        return key

    def headers(self, authorization: str) -> dict[str, str]:
        """Tell what is left of the quota of the key that was sent."""
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return {
            "X-RateLimit-Limit": str(self.quota),
            "X-RateLimit-Remaining": str(self._left(_token(authorization))),
            "X-RateLimit-Reset": str(int(midnight.timestamp())),
        }

    def _left(self, token: str) -> int:
        return max(0, self.quota - self._used[token, _today()])


def _today() -> str:
    return now().date().isoformat()


def _token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def new_key() -> str:
    """Invent a key that looks like one of the service."""
    return f"wbk_{secrets.token_hex(16)}"


class Ledger:
    """The workspace's credits and what took from them."""

    def __init__(self, credits: int) -> None:
        self.credits = credits
        self.charges: list[Charge] = []

    def check(self, credits: int) -> None:
        """Refuse with 402 what the workspace can't pay."""
        if credits > self.credits:
            raise Refusal(
                402, "insufficient_credits", f"This takes {credits} credits; {self.credits} are left"
            )

    def charge(self, what: str, credits: int, idempotency_key: str | None = None) -> None:
        """Take credits."""
        self.credits -= credits
        self.charges.append(Charge(what, credits, idempotency_key))
