"""What things cost, what is left, and what was taken."""

from dataclasses import dataclass

from ._replies import Refusal

# In credits. A message that does a prospect search costs what the search costs.
PRICES = {"chat": 1, "stream": 1, "prospect_search": 5, "campaign_start": 0}


@dataclass(frozen=True, slots=True)
class Charge:
    """An entry: `what` is "chat", "stream" or "prospect_search", `amount` the credits it took."""

    what: str
    amount: int
    idempotency_key: str | None


class Ledger:
    """The workspace's credits, and what took from them."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.charges: list[Charge] = []

    def affords(self, what: str) -> bool:
        """Tell whether there are credits for this."""
        return PRICES[what] <= self.balance

    def charge(self, what: str, idempotency_key: str | None = None) -> None:
        """Take the price of something, or refuse it with 402."""
        if not self.affords(what):
            raise Refusal(402, "insufficient_credits", f"This takes {PRICES[what]} credits, {self.balance} are left")
        self.balance -= PRICES[what]
        if PRICES[what]:
            self.charges.append(Charge(what, PRICES[what], idempotency_key))
