"""What things cost, what is left, and what was taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from leadlex._errors import ConfigurationError

from ._replies import Refusal


class Prices(NamedTuple):
    """What things cost, in credits: a stream costs `stream` and, for each tool that it takes, `tool_step`."""

    chat: int = 1
    search: int = 5
    stream: int = 1
    tool_step: int = 1

    @classmethod
    def of(cls, given: Mapping[Any, int]) -> Self:
        """Put some prices in place of the contract's; ConfigurationError names those there are."""
        if unknown := given.keys() - {*cls._fields}:
            raise ConfigurationError(f"nothing has the price {sorted(unknown)}; there are {', '.join(cls._fields)}")
        for name, price in given.items():
            check_price(name, price)
        return cls(**given)


def check_price(name: str, price: object) -> None:
    """Refuse what can't be charged."""
    if isinstance(price, bool) or not isinstance(price, int) or price < 0:
        raise ConfigurationError(f"the price of {name} must be a whole number from 0 on")


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

    def charge(self, what: str, amount: int, idempotency_key: str | None = None) -> None:
        """Take the price of something, or refuse it with 402."""
        if amount > self.balance:
            raise Refusal(402, "insufficient_credits", f"This takes {amount} credits, {self.balance} are left")
        self.balance -= amount
        if amount:
            self.charges.append(Charge(what, amount, idempotency_key))
