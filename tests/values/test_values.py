"""What the service sends becomes values that hold what was sent: nothing is coerced, lost or made up."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError
from markdown_it import MarkdownIt
from markdown_it.token import Token

import leadlex
from leadlex import (
    ChatReply,
    Conversation,
    ConversationSummary,
    Done,
    EntityContext,
    Message,
    Meta,
    Task,
    TaskDecision,
    TextDelta,
    Thinking,
    ToolStep,
    UnknownEvent,
)
from leadlex._protocol.event_blocks import ends_stream
from leadlex._protocol.json_text import dumps, loads, loads_bytes
from leadlex._protocol.problems import problem_of_body
from leadlex._protocol.server_events import END, event_of
from leadlex._values.plain import WireError
from leadlex._values.problem import WireProblem
from leadlex._values.structure import field_of, structure

VALUES = {
    name: kind
    for name in leadlex.__all__
    if isinstance(kind := getattr(leadlex, name), type) and attrs.has(kind) and kind.__module__ != "leadlex._config"
}
EVENTS = (Thinking, ToolStep, TextDelta, Done, UnknownEvent)
SECRET = "privileged: merger of Acme"


# Shape -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VALUES.values(), ids=VALUES)
def test_every_value_is_frozen_and_slotted(kind: type[Any]) -> None:
    """A value can't be changed, by assignment or by a new attribute, and takes little room."""
    value = sample(kind)
    with pytest.raises(FrozenInstanceError):
        setattr(value, attrs.fields(kind)[0].name, "changed")
    with pytest.raises(AttributeError):
        object.__setattr__(value, "more", 1)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("kind", VALUES.values(), ids=VALUES)
def test_a_value_with_many_fields_is_made_by_name(kind: type[Any]) -> None:
    """Above two fields no position has to be remembered; events are made and matched by position."""
    own = [field for field in attrs.fields(kind) if field.name not in ("meta", "extra")]
    by_name = all(field.kw_only for field in own)
    assert by_name or len(own) <= 2 or kind in EVENTS


@pytest.mark.parametrize("kind", VALUES.values(), ids=VALUES)
def test_every_value_pickles_and_can_be_hashed(kind: type[Any]) -> None:
    """A value goes into a set, a cache or another process."""
    value = sample(kind)
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301  # our own
    assert hash(value) == hash(sample(kind))


def sample(kind: type[Any]) -> Any:
    """Make a value with the fields that it must have."""
    needed = [field for field in attrs.fields(kind) if field.default is attrs.NOTHING]
    texts = {field.name: f"a {field.name}" for field in needed}
    return kind(**{**texts, **dict.fromkeys(texts.keys() & {"messages", "items"}, ())})


def test_events_match_by_position() -> None:
    """A program takes an event apart with `case`, without naming its fields."""
    events = [Thinking("t"), ToolStep("crm", "started", "s"), TextDelta("d", "c"), Done(1, "m"), UnknownEvent("e", "x")]
    assert [kind.__match_args__ for kind in EVENTS] == [
        ("text",),
        ("tool", "status", "summary"),
        ("delta", "conversation_id"),
        ("credits_remaining", "message_id"),
        ("event", "data"),
    ]
    match events[1]:
        case ToolStep(tool, status, summary):
            assert (tool, status, summary) == ("crm", "started", "s")
        case _:
            raise AssertionError(events[1])


def test_how_a_value_arrived_takes_no_part_in_equality() -> None:
    """Two answers that say the same are equal, whenever and however they came."""
    one = ChatReply(response="Hi", meta=Meta(status_code=200, request_id="req_1"))
    other = ChatReply(response="Hi", meta=Meta(status_code=200, request_id="req_2"))
    assert one == other
    assert one != ChatReply(response="Ho")
    assert {one, other} == {one}
    assert leadlex.RawReply({}, one.meta) == leadlex.RawReply({}, other.meta)


def test_what_was_asked_for_is_no_part_of_a_conversation() -> None:
    """Whether there may be more depends on the question: it is in no plain form, and equality passes over it."""
    one = Conversation(id="c", messages=(), may_have_more=True)
    assert one == Conversation(id="c", messages=())
    assert "may_have_more" not in one.to_dict()
    assert Conversation.from_dict(one.to_dict()).may_have_more is None
    sent = structure(Conversation, {"id": "c", "messages": [], "may_have_more": True})
    assert (sent.may_have_more, sent.extra) == (None, {"may_have_more": True})
    assert pickle.loads(pickle.dumps(one)).may_have_more  # noqa: S301  # our own


def test_a_value_does_not_show_how_it_arrived() -> None:
    """The repr of a value is short; headers and what is beyond the contract are asked for by name."""
    reply = ChatReply(response="Hi", meta=Meta(status_code=200, headers={"x": SECRET}), extra={"more": SECRET})
    assert SECRET not in repr(reply)
    assert SECRET not in repr(reply.meta)


# From JSON ---------------------------------------------------------------------------------------------------------

WHOLE: dict[type[Any], dict[str, Any]] = {
    ChatReply: {"response": "Hi", "conversation_id": "c", "task_id": "t", "requires_approval": True},
    ConversationSummary: {
        "id": "c",
        "title": "T",
        "message_count": 14,
        "last_message_at": "2026-04-17T10:30:00Z",
        "context": {"contact_id": "k"},
        "archived": True,
        "created_at": "2026-04-15T09:00:00Z",
    },
    Conversation: {
        "id": "c",
        "messages": [
            {"id": "m", "role": "tool", "tool_name": "crm", "tool_output": {"a": [1]}, "tool_calls": [{"b": 2}]}
        ],
        "title": "T",
        "archived": False,
    },
    Task: {"id": "t", "status": "paused", "type": "brand_new", "description": "D", "metadata": {"n": 1}},
    TaskDecision: {"task_id": "t", "status": "approved", "execution_started": True},
    EntityContext: {"contact_id": "k", "page": "deals"},
}


@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_a_value_has_what_was_sent(kind: type[Any]) -> None:
    """Every field of the contract arrives under its own name; roles, statuses and types may be new ones."""
    value = structure(kind, WHOLE[kind])
    for name, sent in WHOLE[kind].items():
        got = getattr(value, name)
        # Lists, contexts and timestamps become values, which other tests look at.
        assert got == sent or type(got) in (tuple, EntityContext, datetime)
    assert value.extra == {}


@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_what_the_contract_does_not_name_is_kept(kind: type[Any]) -> None:
    """A newer service's fields are in `extra`, as sent, whatever they are called."""
    more = {"brand_new": {"deep": [None]}, "meta": {"mine": 1}, "extra": 5, "_private": True, "class": "x"}
    value = structure(kind, {**WHOLE[kind], **more})
    assert value.extra == more
    assert value == attrs.evolve(structure(kind, WHOLE[kind]), extra=more)


@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_null_is_absent(kind: type[Any]) -> None:
    """A field that is null and one that was not sent make the same value, or the same refusal."""
    for name in WHOLE[kind]:
        absent = {other: sent for other, sent in WHOLE[kind].items() if other != name}
        assert outcome(kind, {**WHOLE[kind], name: None}) == outcome(kind, absent)


def outcome(kind: type[Any], sent: object) -> Any:
    """Return the value, or what is said against it."""
    try:
        return structure(kind, sent)
    except WireError as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "sent", "said"),
    [
        (ChatReply, {}, "data.response is missing"),
        (ChatReply, {"response": 5}, "data.response should be a text, is a number"),
        (ChatReply, [SECRET], "data should be an object, is a list"),
        (ChatReply, SECRET, "data should be an object, is a text"),
        (ChatReply, None, "data should be an object, is null"),
        (ConversationSummary, {"id": 7}, "data.id should be a text, is a number"),
        (Conversation, {"id": "c"}, "data.messages is missing"),
        (Conversation, {"id": "c", "messages": {}}, "data.messages should be a list, is an object"),
        (
            Conversation,
            {"id": "c", "messages": [{"id": "m"}, SECRET]},
            "data.messages[1] should be an object, is a text",
        ),
        (Conversation, {"id": "c", "messages": [{"id": "m"}, {}]}, "data.messages[1].id is missing"),
        (Task, {"id": "t"}, "data.status is missing"),
        (Task, {"id": "t", "status": 5, "created_at": 5}, "data.status should be a text, is a number"),
    ],
)
def test_what_is_not_the_contracts_is_refused(kind: type[Any], sent: object, said: str) -> None:
    """No type is coerced: the refusal says where and what, and shows nothing of the content."""
    with pytest.raises(WireError) as caught:
        structure(kind, sent)
    assert str(caught.value) == said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("kind", "needed", "strange"),
    [
        (ChatReply, {"response": "x"}, {"requires_approval": 1, "task_id": 17, "conversation_id": ["c"]}),
        (ChatReply, {"response": "x"}, {"requires_approval": "false", "message_id": 5, "credits_remaining": 2.5}),
        (ChatReply, {"response": "x"}, {"thinking": SECRET, "tool_steps": {"tool": "a"}}),
        (ChatReply, {"response": "x"}, {"thinking": [5], "tool_steps": [{"tool": "a"}, 5]}),
        (ConversationSummary, {"id": "c"}, {"message_count": "3", "context": [], "archived": "yes", "title": {}}),
        (ConversationSummary, {"id": "c"}, {"message_count": 2.9, "created_at": 1, "last_message_at": SECRET}),
        (ConversationSummary, {"id": "c"}, {"message_count": True}),
        (EntityContext, {}, {"page": 1, "contact_id": {}}),
        (Conversation, {"id": "c", "messages": []}, {"title": 5, "created_at": "noon", "archived": 0, "context": 1}),
        (Message, {"id": "m"}, {"content": [SECRET], "role": 1, "tool_calls": [{}, 1], "tool_output": []}),
        (Message, {"id": "m"}, {"tool_calls": "none", "tool_name": 0, "tool_output": "text"}),
        (Task, {"id": "t", "status": "s"}, {"metadata": SECRET, "description": 5, "type": [], "created_at": 5}),
        (TaskDecision, {}, {"task_id": 5, "status": {}, "execution_started": "yes"}),
        (Thinking, {}, {"text": 5}),
        (ToolStep, {}, {"tool": {}, "status": 1, "summary": {"found": 1}}),
        (TextDelta, {"delta": "a"}, {"conversation_id": 5}),
        (Done, {}, {"message_id": 5, "credits_remaining": "4840"}),
    ],
)  # fmt: skip
def test_a_side_field_never_loses_an_answer(
    kind: type[Any], needed: dict[str, Any], strange: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What an answer can do without and can't be read is left out, kept as sent, and logged without its content."""
    value = structure(kind, {**needed, **strange, "brand_new": None})
    assert value == attrs.evolve(structure(kind, needed), extra={**strange, "brand_new": None})
    assert caplog.messages == [f"ignored field={name}" for name in sorted(strange)]
    assert structure(kind, {**needed, **strange}).extra == strange


def test_a_side_field_deep_inside_never_loses_an_answer() -> None:
    """What can't be read stays where it was sent: in its message, its context, its step."""
    sent = {"id": "c", "messages": [{"id": "m", "created_at": "noon"}], "context": {"page": 5, "deal_id": "d"}}
    value = structure(Conversation, sent)
    assert value.messages == (Message(id="m", extra={"created_at": "noon"}),)
    assert value.context == EntityContext(deal_id="d", extra={"page": 5})
    step = {"tool": "crm", "status": "s", "summary": {}}
    reply = structure(ChatReply, {"response": "x", "tool_steps": [step]})
    assert reply.tool_steps == (ToolStep("crm", "s", extra={"summary": {}}),)


def test_the_place_begins_where_the_caller_says() -> None:
    """A list inside of an answer is named by its own place."""
    with pytest.raises(WireError, match=r"^data\.tasks\[0\]\.status is missing$"):
        structure(tuple[Task, ...], [{"id": "t"}], "data.tasks")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-17T10:30:00Z", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17T10:30:00.5Z", datetime(2026, 4, 17, 10, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-04-17T10:30:00.123456789Z", datetime(2026, 4, 17, 10, 30, 0, 123_456, tzinfo=UTC)),
        ("2026-04-17T10:30:00", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17T12:30:00+02:00", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("20260417T103000Z", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17t10:30:00z", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17 10:30:00z", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17T10:30:00,5+0000", datetime(2026, 4, 17, 10, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-04-17T10:30:00." + "1" * 40 + "-00:00", datetime(2026, 4, 17, 10, 30, 0, 111_111, tzinfo=UTC)),
        ("2026-04-17T05:30-0500", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-W16-5T10:30Z", datetime(2026, 4, 17, 10, 30, tzinfo=UTC)),
        ("2026-04-17", datetime(2026, 4, 17, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31t23:59:60.25z", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("20161231T235960", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T15:59:60-08:00", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2026-04-16T24:00:00Z", datetime(2026, 4, 17, tzinfo=UTC)),
        ("2026-04-16T24:00", datetime(2026, 4, 17, tzinfo=UTC)),
        ("20260416 240000.000+0200", datetime(2026, 4, 16, 22, tzinfo=UTC)),
        ("20260416T24", datetime(2026, 4, 17, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_aware_and_utc(text: str, moment: datetime) -> None:
    """With a fraction or without, with an offset or none: what comes out can be compared."""
    found = structure(Message, {"id": "m", "created_at": text}).created_at
    assert found == moment
    assert found is not None
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1708905600",
        "2026-04-17T24:00:01Z",
        "2026-04-17T25:00:00Z",
        "2026-04-17T10:30:60Z",
        "2026-04-17T23:59:61Z",
        "2026-04-17T23:59:600Z",
        "9999-12-31T24:00Z",
        "9999-12-31T23:59:60Z",
    ],
)
def test_what_is_no_timestamp_is_left_as_it_was_sent(text: str) -> None:
    """A date that no calendar has is not guessed at, and takes nothing from what it stands in."""
    assert structure(Message, {"id": "m", "created_at": text}) == Message(id="m", extra={"created_at": text})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(4840, 4840), (-3, -3), (0, 0), (2.5, None), ("4840", None), (True, None), ([], None), (None, None)],
)
def test_strange_credits_never_lose_an_answer(sent: object, kept: int | None) -> None:
    """An answer that was paid for comes through, whatever its balance looks like; only a whole number is believed."""
    event = event_of("done", json.dumps({"credits_remaining": sent, "message_id": "m"}))
    assert event == Done(kept, "m", extra={} if kept == sent else {"credits_remaining": sent})
    assert structure(ChatReply, {"response": "Hi", "credits_remaining": sent}).credits_remaining == kept


# Hostile JSON ------------------------------------------------------------------------------------------------------

HOSTILE = {
    "nesting": "[" * 200_000,
    "nested objects": '{"a":' * 200_000,
    "5,000 digits": "1" * 5_000,
    "NaN": '{"a": NaN}',
    "Infinity": "[Infinity]",
    "-Infinity": "-Infinity",
    "1e999": '{"a": 1e999}',
    "-1e999": "-1e999",
    "nothing": "",
    "two values": "{} {}",
    "half": '{"a": ',
    "single quotes": "{'a': 1}",
    "a comma too many": "[1,]",
    "control character": '"a\x00b"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused_plainly(text: str) -> None:
    """Depth, digits and numbers beyond all measure are one error of ours, without the text in it."""
    with pytest.raises(WireError, match=r"^it is not valid JSON$") as caught:
        loads(text)
    assert caught.value.__suppress_context__
    refusals = "is not valid JSON|should be an object, is a list|has more than 100,000 values"
    with pytest.raises(WireError, match=f"^the event text ({refusals})$"):
        event_of("text", text or "x")


def test_of_a_repeated_name_the_last_counts() -> None:
    """Two values under one name are no error; which one counts is documented."""
    assert event_of("text", '{"delta": "a", "delta": "b"}') == TextDelta("b")


def test_a_body_is_utf8() -> None:
    """JSON is UTF-8 with or without a mark at its head, whatever a header says."""
    assert loads_bytes('\ufeff["é"]'.encode()) == ["é"]
    with pytest.raises(WireError, match=r"^it is not UTF-8$"):
        loads_bytes(b"\xff\xfe[\x00]\x00")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("\ud800", "a lone surrogate, which is not text"),
        ({"a": float("nan")}, "something that JSON can't hold"),
        ({"a": {1, 2}}, "something that JSON can't hold"),
        ({"a": object()}, "something that JSON can't hold"),
    ],
)
def test_what_has_no_json_is_refused(value: object, said: str) -> None:
    """What can't be written is refused before anything is sent."""
    with pytest.raises(WireError, match=said):
        dumps(value)


def test_a_cycle_has_no_json() -> None:
    """A dict that contains itself, or one nested beyond all measure, is refused."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(WireError, match="something that JSON can't hold"):
            dumps(value)
    while deep:
        deep = deep.pop()  # or freeing it would be nested as deep


def test_json_is_written_as_it_reads() -> None:
    """Text goes out as UTF-8, without white space that nobody asked for."""
    assert dumps({"message": "Grüße 🙂", "n": [1, None, True]}) == '{"message":"Grüße 🙂","n":[1,null,true]}'.encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [([], "the answer should be an object, is a list"), ({}, "data is missing"), ({"data": None}, "data is missing")],
)
def test_an_envelope_has_what_it_carries(value: object, said: str) -> None:
    """An answer without its envelope says so."""
    with pytest.raises(WireError, match=said):
        field_of(value, "data")


# Events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "event"),
    [
        ("thinking", '{"text": "Looking"}', Thinking("Looking")),
        ("tool_step", '{"tool": "crm", "status": "half"}', ToolStep("crm", "half")),
        ("tool_step", '{"tool": "crm", "status": "completed", "summary": null}', ToolStep("crm", "completed")),
        ("text", '{"delta": "", "conversation_id": "c"}', TextDelta("", "c")),
        ("text", '{"delta": "a", "more": 1}', TextDelta("a", extra={"more": 1})),
        ("text", '{"delta": "a", "conversation_id": 5}', TextDelta("a", extra={"conversation_id": 5})),
        ("thinking", '{"text": null}', Thinking()),
        ("thinking", "[1]", Thinking(extra={"data": "[1]"})),
        ("tool_step", '{"tool": "crm"}', ToolStep("crm")),
        ("tool_step", "oops", ToolStep(extra={"data": "oops"})),
        ("done", "{}", Done()),
        ("done", "5", Done(extra={"data": "5"})),
        ("done", '{"credits', Done(extra={"data": '{"credits'})),
        ("message", "[DONE]", END),
        ("message", " [DONE]\t", END),
        ("done", "[DONE]", END),
        ("error", '{"code": "c", "message": "m"}', WireProblem("c", "m")),
        ("error", '{"error": {"code": "c", "message": "m"}}', WireProblem("c", "m")),
        ("error", '{"code": 5, "message": []}', WireProblem(None, None)),
        ("error", "[]", WireProblem(None, None)),
        ("error", "not JSON", WireProblem(None, "not JSON")),
        ("message", '{"delta": "a"}', UnknownEvent("message", '{"delta": "a"}')),
        ("brand_new", "not JSON", UnknownEvent("brand_new", "not JSON")),
    ],
)
def test_an_event_is_what_was_sent(name: str, data: str, event: object) -> None:
    """Known events become values, unknown ones are passed on untouched, an error event is read in both its forms."""
    assert event_of(name, data) == event


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("text", "oops " + SECRET, "the event text is not valid JSON"),
        ("text", f'["{SECRET}"]', "the event text should be an object, is a list"),
        ("text", "null", "the event text should be an object, is null"),
        ("text", "{}", "the event text.delta is missing"),
        ("text", '{"delta": null}', "the event text.delta is missing"),
        ("text", '{"delta": 5}', "the event text.delta should be a text, is a number"),
        ("message", '"[DONE]"', "the end of the stream is not the contract's [DONE]"),
        ("message", "[done]", "the end of the stream is not the contract's [DONE]"),
    ],
)
def test_a_known_event_that_is_broken_is_refused(name: str, data: str, said: str) -> None:
    """Half an event is never passed off as one; the refusal names event and field, and shows no content."""
    with pytest.raises(WireError) as caught:
        event_of(name, data)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("tail", "ends"),
    [
        ('event: done\ndata: {"credits_remaining": 1}', True),
        ("data: [DONE]", True),
        ("data:[DONE]", True),
        ("event:\ndata: [DONE]", True),
        (": a comment\nid: 7\ndata: [DONE]", True),
        ('event: done\ndata: {"credits_remaining": "x"}', True),
        ('event: done\ndata: {"credits_remaining": 1', False),
        ("event: done\ndata: 4840", False),
        ("event: done", False),
        ('event: text\ndata: {"delta": "a"}', False),
        ("data: [DONE", False),
        ("data: [done]", False),
        ("", False),
    ],
)
def test_only_a_whole_end_ends_a_stream(tail: str, ends: bool) -> None:  # noqa: FBT001  # a table's column
    """A last `done` or `[DONE]` counts without its line end, and only if it is whole."""
    assert ends_stream(tail) is ends


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"error": {"code": "c", "message": "m"}}', WireProblem("c", "m")),
        (b'{"error": {}}', WireProblem(None, None)),
        (b'{"error": null}', None),
        (b'{"error": "no"}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_an_error_body_is_read_where_it_is_one(body: bytes, problem: WireProblem | None) -> None:
    """Whatever stands in the body of an error, reading it is no error of its own."""
    assert problem_of_body(body) == problem


# Notebooks ---------------------------------------------------------------------------------------------------------


def test_a_reply_shows_itself_in_a_notebook() -> None:
    """Lexi answers in Markdown, and a notebook renders it."""
    assert ChatReply(response="**Hi**\n\n- a\n---\n1 < 2")._repr_markdown_() == "**Hi**\n\n- a\n***\n1 &lt; 2"


def test_a_conversation_shows_its_messages_oldest_first() -> None:
    """A transcript is read from the top; what has no date, or the same, keeps the service's order."""
    late, early = datetime(2026, 4, 17, tzinfo=UTC), datetime(2026, 4, 16, tzinfo=UTC)
    messages = (
        Message(id="3", role="assistant", content="It is late.\n\nGo home.", created_at=late),
        Message(id="4", tool_name="contacts.get", tool_output={"found": 1}, created_at=late),
        Message(id="2", role="user", content="What time is it?", created_at=early),
        Message(id="1", role="system", content="No date."),
    )
    shown = Conversation(id="c", title="Time", messages=messages, created_at=early)._repr_markdown_()
    assert shown.split("\n\n") == [
        "# Time",
        "Conversation c, begun 2026-04-16 00:00 UTC",
        "## system",
        "> No date.",
        "## You · 2026-04-16 00:00 UTC",
        "> What time is it?",
        "## Lexi · 2026-04-17 00:00 UTC",
        "> It is late.\n>\n> Go home.",
        "## contacts.get · 2026-04-17 00:00 UTC",
        '> {\n>   "found": 1\n> }\n',
    ]
    assert Conversation(id="c", messages=()).to_markdown() == "# c\n\nConversation c\n"


FORGERIES = [
    "## You · 2026-04-17 08:00 UTC",
    "a\r## You\r\n#\tb\n######\n#",
    *(
        f"{prefix}# You"
        for prefix in ("> ", ">", "- ", "* ", "+ ", "1. ", "12) ", "> - 1. ", "   ", "-   ", "\t> ", "-\t")
    ),
    *(f"You\n{line}" for line in ("===", "=", "---", "--", "-", "  ===  ", "   - ", "> ---", "---\t")),
    *(f"{prefix}You\n{prefix}{line}" for prefix in ("> ", ">> ", "> > ") for line in ("===", "-")),
    "- You\n  ---\n\n1. You\n   =",
    "```\nopen",
    "> ~~~~ x\nopen",
    "- ```\n  open",
    "<script>alert(1)</script>",
    "\\<img src=https://spy.example/x.png>",
    "\\\\<b>bold</b> <!-- open",
    "<?php <![CDATA[ <https://spy.example> &lt;b&gt;",
    "![x](https://spy.example/x.png) \\![x](y) \\\\![x](y) !![x](y) ![x][y]\n\n[y]: https://spy.example/x.png",
    "[![x](a)](b) **![x](a)** `![x](a)` ~~![x]~~",
    "\u2028# You\x0b# You\x0c# You\x85# You",
]


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_content_forges_nothing(text: str) -> None:
    """Whatever a message, a title or a name says, no heading, HTML or image comes of it, and nothing stays open."""
    messages = (Message(id="1", role=text, content=text), Message(id="2", tool_name=text, content="after"))
    conversation = Conversation(id=text, title=text, messages=messages)
    for shown, headings in ((ChatReply(response=text)._repr_markdown_(), 0), (conversation.to_markdown(), 3)):
        kinds = [token.type for token in _tokens(MarkdownIt("commonmark").enable("table").parse(shown))]
        assert kinds.count("heading_open") == headings
        assert not {"html_block", "html_inline", "image"} & {*kinds}
    after = [token.content for token in MarkdownIt("commonmark").parse(conversation.to_markdown())][-3]
    assert after == "after"


def _tokens(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _tokens(token.children or [])


def test_contexts_are_plain_dicts() -> None:
    """What is given as `context` is a dict that a checker knows the keys of."""
    assert inspect.get_annotations(leadlex.ChatContext).keys() == {"list_id", "campaign_id", "conversation_id"}
    keys = {"contact_id", "deal_id", "matter_id", "company_id", "page"}
    assert inspect.get_annotations(leadlex.StreamContext).keys() == keys
