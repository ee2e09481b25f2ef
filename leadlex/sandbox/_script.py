"""What a test has laid out for the requests to come: faults, and answers in place of the rules'."""

from collections.abc import Iterable
from typing import NamedTuple, cast

from leadlex._errors import ConfigurationError
from leadlex._values.events import TextDelta, Thinking, ToolStep, UnknownEvent

from ._faults import Fault
from ._ledger import check_price
from ._lexi import Reply, words

Event = Thinking | ToolStep | TextDelta | UnknownEvent
SHOWN = 40  # characters of an answer that was never used


class ScriptedFault(NamedTuple):
    """A fault: its name, the end of the paths that it waits for, and what it does."""

    name: str
    path: str
    fault: Fault


class ScriptedAnswer(NamedTuple):
    """What Lexi says, what that costs (None: as any other answer), and the task that then waits for approval."""

    reply: Reply
    price: int | None
    task_id: str | None


class Script:
    """The faults and answers that have not happened yet, those of each kind in their order."""

    def __init__(self) -> None:
        self.faults: list[ScriptedFault] = []
        self.answers: list[ScriptedAnswer] = []

    @property
    def unused(self) -> list[str]:
        """Name what has not happened yet."""
        answers = [f"the answer {answer.reply.text[:SHOWN]!r}" for answer in self.answers]
        return [fault.name for fault in self.faults] + answers

    def next_fault(self, path: str) -> ScriptedFault | None:
        """Take the first fault that is for this path."""
        found = next((each for each in self.faults if path.endswith(each.path)), None)
        if found:
            self.faults.remove(found)
        return found

    def clear(self) -> None:
        """Forget all of it."""
        self.faults.clear()
        self.answers.clear()


def scripted_answer(text: str, events: Iterable[object], price: int | None, task_id: str | None) -> ScriptedAnswer:
    """Make an answer; ConfigurationError tells what it can't be."""
    if price is not None:
        check_price("an answer", price)
    told = (*events, *words(text))
    if not all(isinstance(each, Event) for each in told):
        raise ConfigurationError("events may be Thinking, ToolStep, TextDelta and UnknownEvent; `done` comes by itself")
    return ScriptedAnswer(Reply(cast("tuple[Event, ...]", told)), price, task_id)
