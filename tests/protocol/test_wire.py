"""The edges between bytes and values: JSON, events, and what is told when they break."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from leadlex import (
    ChatReply,
    Conversation,
    Done,
    Meta,
    Task,
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


class TestJson:
    """JSON is RFC 8259's, and what can't be held is refused."""

    @pytest.mark.parametrize("text", ["", "{", "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 100_000, "'a'", "1 2"])
    def test_refused(self, text: str) -> None:
        """What is no JSON, or no value, is a WireError and nothing else."""
        with pytest.raises(WireError, match="not valid JSON"):
            loads(text)

    def test_read(self) -> None:
        """Of a repeated name the last counts; a body is UTF-8 with or without BOM."""
        assert loads('{"a": 1, "a": 2.5e3}') == {"a": 2500.0}
        assert loads_bytes(b"\xef\xbb\xbf[1]") == [1]
        with pytest.raises(WireError, match="not UTF-8"):
            loads_bytes(b'"\xff"')

    @pytest.mark.parametrize("value", ["\ud800", float("nan"), {1, 2}, {"a": object()}, {("a",): 1}])
    def test_not_written(self, value: object) -> None:
        """What has no JSON is refused before it is sent."""
        with pytest.raises(WireError, match=r"surrogate|can't hold"):
            dumps(value)

    def test_written(self) -> None:
        """JSON is written short and as UTF-8; a value inside itself is refused."""
        assert dumps({"a": ["é", None, 1]}) == '{"a":["é",null,1]}'.encode()
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(WireError, match="can't hold"):
            dumps(circle)

    @pytest.mark.parametrize("text", ["[%s1]", '{"a": [%s1]}', '["a,[{", "\\",",%s"a"]'])
    @pytest.mark.parametrize("items", ["{},", "[ ],", "1,", '"",', '"\\"",', '{"a":{}},', '[[1],"{,,"],'])
    def test_too_many_values(self, text: str, items: str) -> None:
        """JSON of more than 500,000 values is refused before one is made; as many signs in its texts are none."""
        many = items * 20
        assert loads(text % many)
        for count, is_refused in ((100_000, False), (600_000, True)):
            whole = text % (items * count)
            if is_refused:
                with pytest.raises(WireError, match="more than 500,000 values"):
                    loads(whole)
            else:
                assert loads(whole)

    def test_many_signs_in_text(self) -> None:
        """Commas and brackets in texts are no values, however many; what is no JSON is told as before."""
        signs = ",[{" * 400_000
        assert loads(f'["{signs}", {{"a": "{signs}"}}]') == [signs, {"a": signs}]
        assert loads("[" + ",".join(['"a,b"'] * 300_000) + "]") == ["a,b"] * 300_000
        for none in ('"a,"' * 700_000, '"' + signs, signs + '"'):
            with pytest.raises(WireError, match=r"not valid JSON|more than 500,000 values"):
                loads(none)

    def test_too_many_values_to_write(self) -> None:
        """What holds one thing many times is refused before it is written."""
        laughs: Any = "ha" * 1000
        for _ in range(9):
            laughs = {str(number): laughs for number in range(10)}
        for value in (laughs, [[0] * 1000] * 1000, ["ha" * 1000] * 50_000, ((),) * 600_000):
            with pytest.raises(WireError, match="more than 500,000 values"):
                dumps(value)
        assert len(dumps([1] * 400_000)) == 800_001


class TestValues:
    """Values are taken as they are, never coerced, and what is wrong is told by its place."""

    @pytest.mark.parametrize(
        ("kind", "value", "told"),
        [
            (ChatReply, {}, "data.response is missing"),
            (ChatReply, {"response": None}, "data.response is missing"),
            (ChatReply, {"response": 5}, "data.response should be a text, is a number"),
            (ChatReply, {"response": True}, "data.response should be a text, is a boolean"),
            (ChatReply, [], "data should be an object, is a list"),
            (ChatReply, None, "data should be an object, is null"),
            (Conversation, {"id": "a", "messages": {}}, "data.messages should be a list, is an object"),
            (Conversation, {"id": "a", "messages": [{"id": "b"}, {}]}, r"data.messages\[1\].id is missing"),
            (int, 2.9, "data should be a whole number, is a number"),
            (int, True, "data should be a whole number, is a boolean"),
            (float, "1", "data should be a number, is a text"),
        ],
    )  # fmt: skip
    def test_refused(self, kind: type[Any], value: object, told: str) -> None:
        """A field that is missing or of another type is told by its place, and its content is not."""
        with pytest.raises(WireError, match=f"^{told}$" if told.startswith("data") else told):
            structure(kind, value)

    def test_moments(self) -> None:
        """Times are aware and in UTC, whatever zone or precision they were sent with."""
        sent = ["2026-04-17T10:30:00Z", "2026-04-17T12:30:00.000000+02:00", "2026-04-17T10:30:00"]
        tasks = [structure(Task, {"id": "a", "status": "b", "created_at": each}) for each in sent]
        assert {task.created_at for task in tasks} == {datetime(2026, 4, 17, 10, 30, tzinfo=UTC)}
        assert all(task.created_at and task.created_at.tzinfo is UTC for task in tasks)

    def test_null_and_more(self) -> None:
        """Null means absent, and what the contract does not name is kept, even under our own names."""
        reply = structure(ChatReply, {"response": "a", "task_id": None, "meta": 1, "extra": 2, "x": None})
        assert reply == ChatReply(response="a", extra={"meta": 1, "extra": 2, "x": None})
        assert reply.meta == Meta(status_code=0)

    def test_credits(self, caplog: pytest.LogCaptureFixture) -> None:
        """A balance that is no whole number is None, and logged without its value."""
        caplog.set_level(logging.WARNING)
        told = [structure(Done, {"credits_remaining": each}).credits_remaining for each in (3, None, 3.5, "3", True)]
        assert told == [3, None, None, None, None]
        assert caplog.messages == ["ignored field=credits_remaining"] * 3

    def test_envelope(self) -> None:
        """An envelope is an object with the field that is asked for."""
        assert field_of({"data": 1}, "data") == 1
        for value, told in (([], "should be an object, is a list"), ({"data": None}, "data is missing")):
            with pytest.raises(WireError, match=told):
                field_of(value, "data")


class TestEvents:
    """An event is what its name and data say, and only an end is an end."""

    @pytest.mark.parametrize(
        ("name", "data", "event"),
        [
            ("thinking", '{"text": "Hm"}', Thinking("Hm")),
            ("tool_step", '{"tool": "a", "status": "b"}', ToolStep("a", "b")),
            ("text", ' {"delta": ""}', TextDelta("")),
            ("done", "{}", Done()),
            ("done", "[DONE]", END),
            ("done", " [DONE]", END),
            ("message", "[DONE]", END),
            ("message", " \t[DONE] ", END),
            ("message", "[done", UnknownEvent("message", "[done")),
            ("note", "[DONE]", UnknownEvent("note", "[DONE]")),
            ("note", " ", UnknownEvent("note", " ")),
            ("error", '{"code": "a", "message": "b"}', WireProblem("a", "b")),
            ("error", '{"error": {"code": "a"}}', WireProblem("a", None)),
            ("error", '{"error": "a"}', WireProblem(None, None)),
            ("error", '{"code": 1, "message": 2}', WireProblem(None, None)),
            ("error", "[1]", WireProblem(None, None)),
            ("error", "oh no", WireProblem(None, "oh no")),
        ],
    )
    def test_read(self, name: str, data: str, event: object) -> None:
        """A known event is its value, an unknown one is passed on, an error is what it says in any form."""
        assert event_of(name, data) == event

    @pytest.mark.parametrize(
        ("name", "data", "told"),
        [
            ("text", "{}", "the event text.delta is missing"),
            ("text", "5", "the event text should be an object, is a number"),
            ("text", "[]", "the event text should be an object"),
            ("done", "[DONE]\n", r"not the contract's \[DONE\]"),
            ("message", "'[DONE]'", r"not the contract's \[DONE\]"),
        ],
    )
    def test_refused(self, name: str, data: str, told: str) -> None:
        """What a known event lacks, and what only looks like the end, is told."""
        with pytest.raises(WireError, match=told):
            event_of(name, data)

    @pytest.mark.parametrize(
        ("tail", "ends"),
        [
            ("data: [DONE]", True),
            ("event: done\ndata: {}\n", True),
            ("event\ndata: [DONE]", True),
            ("event: done\n: ping\ndata: {\ndata: }", True),
            ("", False),
            ("event: done", False),
            ("event: done\ndata: {", False),
            ("data: {}", False),
            ("data: [done]", False),
            ('event: error\ndata: {"code": "a"}', False),
        ],
    )
    def test_tail(self, tail: str, *, ends: bool) -> None:
        """An unfinished last event counts where it is the end, whole but for its line ends."""
        assert ends_stream(tail) is ends

    def test_problem_of_body(self) -> None:
        """An error is read from a body that has one; from any other there is none."""
        assert problem_of_body(b'{"error": {"code": "a", "message": "b"}}') == WireProblem("a", "b")
        assert [problem_of_body(body) for body in (b"", b"\xff", b"[]", b'{"error": []}')] == [None] * 4
