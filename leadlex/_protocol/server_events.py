"""Server-Sent Events to the library's own, and back."""

from __future__ import annotations

import json
from typing import Any, Final

from cattrs import ClassValidationError

from leadlex._values.events import StreamEvent, UnknownEvent
from leadlex._values.plain import WireError, fields_of
from leadlex._values.problem import WireProblem
from leadlex._values.structure import EVENTS, event_hook, explain, joined, unread

from .event_blocks import is_end
from .json_text import MAX_EVENT_VALUES, loads
from .problems import problem_in, problem_of


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


# Back --------------------------------------------------------------------------------------------------------------

COMMENT: Final = b": keep-alive\n\n"

LAST: Final = b"data: [DONE]\n\n"


def bytes_of(event: StreamEvent) -> bytes:
    """Write an event as the service does; what the service left out is left out."""
    if isinstance(event, UnknownEvent):
        return _framed("" if event.event == "message" else event.event, event.data)
    sent = {name: value for name, value in fields_of(event).items() if value is not None or name in event.extra}
    return _framed(event.plain_type, _json(sent))


def bytes_of_error(code: str, message: str) -> bytes:
    """Write an `error` event as the service does."""
    return _framed("error", _json({"code": code, "message": message}))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _framed(name: str, data: str) -> bytes:
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in data.split("\n")]
    return "\n".join([*lines, "", ""]).encode("utf-8", "replace")
