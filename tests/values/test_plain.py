"""Every value, event and error has a plain form that JSON can hold, and is made of it again, the same."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leadlex
from leadlex import (
    Attempt,
    ChatReply,
    ConfigurationError,
    ConversationSummary,
    Done,
    EntityContext,
    LeadLexError,
    Message,
    Meta,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StreamDivergedError,
    StreamInterruptedError,
    TextDelta,
    Thinking,
    Timeout,
    ToolStep,
    UnknownEvent,
    event_from_dict,
)
from leadlex._values.plain import BESIDE, Value
from leadlex._values.structure import structure

PUBLIC = {name: getattr(leadlex, name) for name in leadlex.__all__}
CLASSES = {name: kind for name, kind in PUBLIC.items() if isinstance(kind, type)}
VALUES = {name: kind for name, kind in CLASSES.items() if issubclass(kind, Value)}
ERRORS = {name: kind for name, kind in CLASSES.items() if issubclass(kind, LeadLexError)}
EVENTS = (Thinking, ToolStep, TextDelta, Done, UnknownEvent)
OPTIONS = (Timeout, RetryPolicy)

LIST: Any = []  # what no plain form is, whatever a checker thinks

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
#: What the contract has in fields of these types.
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    bool: st.booleans(),
    int: st.integers(1, 1 << 40),
    float: st.integers(1, 1 << 40),
    NoneType: st.none(),
    Any: JSON,
    datetime: st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))])).map(datetime.isoformat),
}
#: What is not in the contract, and may have a name that a plain form or a value needs for itself.
FOREIGN = st.dictionaries(st.sampled_from(["type", "extra", "meta", "to_dict", "x"]) | TEXTS, JSON, max_size=3)


def name_of(kind: type) -> str:
    """Name a class."""
    return kind.__name__


def in_json(value: Any) -> Any:
    """Send something through JSON."""
    return json.loads(json.dumps(value))


def fitting(hint: Any) -> st.SearchStrategy[Any]:
    """Make what the contract has in a field of this type."""
    if isinstance(hint, TypeVar):
        return sent(ConversationSummary)
    if isinstance(hint, type) and issubclass(hint, Value):
        return sent(hint)
    if get_origin(hint) is UnionType:
        return st.one_of(*(fitting(each) for each in get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(fitting(get_args(hint)[0]), max_size=2)
    return SIMPLE.get(hint, st.dictionaries(TEXTS, TEXTS, max_size=2))


def sent(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Make what the service may send for a value: the contract's fields, some unreadable, and others."""
    hints = get_type_hints(kind)
    fields = [each for each in attrs.fields(kind) if each.name not in BESIDE]
    needed = {each.name: fitting(hints[each.name]) for each in fields if each.default is attrs.NOTHING}
    others = {each.name: fitting(hints[each.name]) | JSON for each in fields if each.default is not attrs.NOTHING}
    parts = st.tuples(FOREIGN, st.fixed_dictionaries(needed, optional=others))
    return parts.map(lambda both: {**both[0], **both[1]})


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [kind for kind in VALUES.values() if kind not in OPTIONS], ids=lambda kind: kind.__name__
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_sent(kind: type[Any], data: st.DataObject) -> None:
    """A value that was read is the same after a journey through JSON, with all that was unknown or unreadable."""
    value = structure(kind, data.draw(sent(kind)))
    plain = in_json(value.to_dict())
    assert kind.from_dict(plain) == value
    assert kind.from_dict(plain).to_dict() == plain


@pytest.mark.parametrize("kind", EVENTS, ids=name_of)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_event_is_sent(kind: type[Any], data: st.DataObject) -> None:
    """An event says first of which type it is, so that a line of a log can be read without knowing it."""
    event = structure(kind, data.draw(sent(kind)))
    plain = event.to_dict()
    assert next(iter(plain)) == "type"
    assert event_from_dict(in_json(plain)) == event


def test_the_form() -> None:
    """A plain form has the contract's names, times in UTC that end in Z, and no account of how it arrived."""
    moment = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))
    message = Message(id="m", content="Hi", created_at=moment, extra={"language": "en"})
    assert message.to_dict() == {
        "id": "m",
        "role": None,
        "content": "Hi",
        "tool_calls": [],
        "tool_name": None,
        "tool_output": None,
        "created_at": "2026-03-01T07:30:00Z",
        "language": "en",
    }
    assert ToolStep("contacts.get", "started").to_dict() == {
        "type": "tool_step",
        "tool": "contacts.get",
        "status": "started",
        "summary": None,
    }


def test_what_could_not_be_read_is_told_as_it_was_sent() -> None:
    """A field that could not be read has its raw value in the plain form."""
    reply = structure(ChatReply, {"response": "a", "requires_approval": 1})
    assert reply.requires_approval is None
    assert reply.to_dict()["requires_approval"] == 1


def test_a_reply_without_an_answer() -> None:
    """A value that came from no answer says so in its meta, which is there for strict programs all the same."""
    reply = ChatReply.from_dict({"response": "a"})
    assert reply.meta == Meta(status_code=0)
    assert reply.meta.request_id is None


def test_plain_forms_share_nothing() -> None:
    """Changing a plain form changes no value, and the other way round; however deep it is."""
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    plain: dict[str, Any] = {"response": "a", "context": {"deal": ["x"]}, "deep": deep}
    reply = ChatReply.from_dict(plain)
    plain["context"]["deal"].append("y")
    written = reply.to_dict()
    written["context"]["deal"].append("z")
    assert reply.extra["context"] == {"deal": ["x"]}


@pytest.mark.parametrize(
    "value", [ChatReply(response="a", tool_steps=(ToolStep("t", "started"),)), TextDelta("a", "c")]
)
def test_pairs(value: Any) -> None:
    """A value iterates as pairs, as pydantic's models do."""
    assert dict(value) == value.to_dict()
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value  # noqa: S301  # our own


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: ChatReply.from_dict({}), "ChatReply.response is missing"),
        (lambda: ChatReply.from_dict({"response": 3}), "ChatReply.response should be a text, is a number"),
        (lambda: ChatReply.from_dict(LIST), "ChatReply is made of a mapping, not of list"),
        (lambda: TextDelta.from_dict({"type": "done", "delta": "a"}), "another event than TextDelta"),
        (lambda: event_from_dict({"delta": "a"}), "must be one of thinking, tool_step, text, done, unknown"),
        (lambda: event_from_dict({"type": [], "delta": "a"}), "must be one of"),
        (lambda: event_from_dict(LIST), "An event is made of a mapping, not of list"),
        (lambda: event_from_dict({"type": "text", "delta": "a", "extra": 1}), "extra of an event is a mapping"),
        (lambda: LeadLexError.from_dict({"type": "ValueError"}), "none of its classes"),
        (lambda: LeadLexError.from_dict(LIST), "not the plain form of a LeadLexError"),
        (lambda: NotFoundError.from_dict({"type": "RateLimitError", "args": []}), "plain form of a NotFoundError"),
        (lambda: LeadLexError.from_dict({"type": "RateLimitError"}), "RateLimitError can't be made"),
        (lambda: LeadLexError.from_dict({"type": "RateLimitError", "args": []}), "RateLimitError can't be made"),
        (lambda: Timeout.from_dict({"first_event": -1}), "timeout.first_event must be"),
        (lambda: Timeout.from_dict({"first": 1}), "Timeout is made of a mapping with these names: connect, write"),
        (lambda: RetryPolicy.from_dict(LIST), "RetryPolicy is made of a mapping"),
    ],
)
def test_no_plain_form(read: Any, said: str) -> None:
    """What is no plain form is refused in words, and shows nothing of what it holds."""
    with pytest.raises(ConfigurationError, match=said):
        read()


def test_extra_of_an_event_is_what_the_service_named_so() -> None:
    """An event with fields that are named as the plain form's own keeps them."""
    event = ToolStep("t", "started", extra={"type": "q", "extra": 3, "z": None})
    assert event.to_dict()["extra"] == {"type": "q", "extra": 3}
    assert event_from_dict(event.to_dict()) == event


# Options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", [Timeout(), Timeout(total=None), Timeout(connect=1, total=9.5), RetryPolicy(retries=0, cap=2)], ids=repr
)
def test_options(option: Timeout | RetryPolicy) -> None:
    """An option is the same after JSON, a copy and a pickle."""
    assert type(option).from_dict(in_json(option.to_dict())) == option
    assert copy.deepcopy(option) == pickle.loads(pickle.dumps(option)) == option  # noqa: S301  # our own


# Errors ------------------------------------------------------------------------------------------------------------

FACTS = {"charged": "unknown", "idempotency_key": "k", "request_id": "req_1", "first_sent": "2026-03-01T07:30:00+00:00"}
ARGS: dict[str, tuple[Any, ...]] = {
    "APITimeoutError": ("idle", 5.0, "", FACTS),
    "StreamInterruptedError": ("It broke off.", "k", FACTS),
    "StreamDivergedError": ("k", "it says something else", FACTS),
    "StreamBusyError": ("This stream", {}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    """An error is the same after a journey through JSON: its class, its words, its charge and what had arrived."""
    status = (429, "rate_limited", "Slow down", {**FACTS, "retry_after": 7.5, "from_service": True})
    usual = status if issubclass(ERRORS[name], leadlex.APIStatusError) else ("It failed.", FACTS)
    error = ERRORS[name](*ARGS.get(name, usual))
    error.partial = ChatReply(response="Half", tool_steps=(ToolStep("t", "started"),))
    error.attempt_log = (Attempt(failure="lost", elapsed=1.5),)
    plain = in_json(error.to_dict())
    again = LeadLexError.from_dict(plain)
    assert type(again) is type(error)
    assert (str(again), again.charged, again.partial) == (str(error), error.charged, error.partial)
    assert (again.attempt_log, again.to_dict()) == (error.attempt_log, plain)


def test_what_diverged_is_told() -> None:
    """What two streams said travels with the error that tells of it."""
    error = StreamDivergedError("k", delivered="ab", replayed_prefix="ac", conversation_ids=("c", None))
    again = StreamInterruptedError.from_dict(in_json(error.to_dict()))
    assert isinstance(again, StreamDivergedError)
    assert (again.delivered, again.replayed_prefix, again.common_len) == ("ab", "ac", 1)
    assert again.conversation_ids == ("c", None)


def test_the_form_of_an_error() -> None:
    """An error's plain form is what `--json` writes: its type, its words, whether it was charged, and what is known."""
    plain = RateLimitError(429, "rate_limited", "Slow down", {"charged": "no", "retry_after": 7}).to_dict()
    assert list(plain)[:3] == ["type", "message", "charged"]
    assert (plain["type"], plain["charged"], plain["code"]) == ("RateLimitError", "no", "rate_limited")
    assert plain["retry_after"] == 7


def test_a_users_error() -> None:
    """An error of a user's own below one of ours travels too."""

    class TooBusy(ServerError):
        pass

    assert type(ServerError.from_dict(in_json(TooBusy(503).to_dict()))) is TooBusy


def test_a_nested_value_that_could_not_be_read() -> None:
    """A part that is no object is kept as sent."""
    row = structure(ConversationSummary, {"id": "c", "context": 5})
    assert row.context == EntityContext()
    assert ConversationSummary.from_dict(in_json(row.to_dict())) == row
