"""The quota that bounds a client's retries."""

from __future__ import annotations

import os
import threading
from typing import Final

from leadlex._policy.failures import THROTTLES, FailureKind


class RetryQuota:
    """A bound of a client's retries, so that an outage is not made worse: a bucket that failures empty.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html (standard mode).
    """

    CAPACITY: Final = 500
    TRANSIENT_COST: Final = 14
    THROTTLE_COST: Final = 5

    def __init__(self) -> None:
        self.level: int = self.CAPACITY
        self._owned = os.getpid(), threading.Lock()

    @property
    def _lock(self) -> threading.Lock:
        """Return the lock of this process: in a forked child a thread that is gone may hold the parent's."""
        if self._owned[0] != os.getpid():
            self._owned = os.getpid(), threading.Lock()
        return self._owned[1]

    def take(self, kind: FailureKind) -> int:
        """Take the cost of one retry and return it; 0 means that there is not enough left."""
        cost = self.THROTTLE_COST if kind in THROTTLES else self.TRANSIENT_COST
        with self._lock:
            if self.level < cost:
                return 0
            self.level -= cost
            return cost

    def give(self, amount: int) -> None:
        """Give back what a retry cost that succeeded, or 1 for a success at the first try."""
        with self._lock:
            self.level = min(self.CAPACITY, self.level + amount)
