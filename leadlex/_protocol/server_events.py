"""Server-Sent Events to the library's own."""

from __future__ import annotations

from typing import Final

from cattrs import ClassValidationError

from leadlex._values.events import StreamEvent, UnknownEvent
from leadlex._values.structure import EVENTS, WireError, event_hook, explain, joined, unread

from .event_blocks import is_end
from .json_text import MAX_EVENT_VALUES, loads
from .problems import WireProblem, problem_in, problem_of


class End:
    """The literal `[DONE]` that follows the last event."""


END: Final = End()


def event_of(name: str, data: str) -> StreamEvent | WireProblem | End:
    """Make an event of its name and data.

    Raises:
        WireError: A piece of text does not carry what the contract says, or an end only looks like one.
    """
    if name not in EVENTS or (name == "done" and is_end(data)):
        return _rare_event(name, data)
    try:
        return event_hook(name)(loads(data, MAX_EVENT_VALUES), None)  # type: ignore[no-any-return]  # cattrs gives what it was asked for
    except (WireError, ClassValidationError) as error:
        if name != "text":
            # That it came is all that an answer needs of it.
            return unread(EVENTS[name], data, "data")  # type: ignore[no-any-return]  # an event
        raise WireError(f"the event {name}{joined(explain(error))}") from None


def _rare_event(name: str, data: str) -> StreamEvent | WireProblem | End:
    if name == "error":
        return _problem_event(data)
    if name == "done" or (name == "message" and is_end(data)):
        return END
    return UnknownEvent(name, data)


def _problem_event(data: str) -> WireProblem:
    try:
        value = loads(data, MAX_EVENT_VALUES)
    except WireError:
        return WireProblem(None, data)
    fields = value if isinstance(value, dict) else {}
    return problem_of(fields) or problem_in(fields)
