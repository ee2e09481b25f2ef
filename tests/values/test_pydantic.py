"""Values give themselves to pydantic, and so to FastAPI and to what makes tools of functions."""

from __future__ import annotations

import json
import sys
from typing import Any, get_type_hints

import pytest
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter, ValidationError

import leadlex
from leadlex import (
    ChatContext,
    ChatReply,
    ConversationSummary,
    Done,
    LeadLexError,
    NotFoundError,
    Page,
    StreamContext,
    StreamEvent,
    TextDelta,
    Timeout,
    ToolStep,
)
from tests.values.test_plain import ERRORS, VALUES

REPLY = ChatReply(response="Done.", tool_steps=(ToolStep("contacts.get", "started"),), extra={"requires_approval": 1})
TYPES: dict[str, Any] = {
    **VALUES,
    **ERRORS,
    "ChatContext": ChatContext,
    "StreamContext": StreamContext,
    "StreamEvent": StreamEvent,
    "Charged": leadlex.Charged,
    "Page of conversations": Page[ConversationSummary],
    "list of replies": list[ChatReply],
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_every_type_has_a_schema(name: str, mode: Any) -> None:
    """Pydantic can read, write and describe whatever is public and no handle."""
    assert json.dumps(TypeAdapter(TYPES[name]).json_schema(mode=mode))


@pytest.mark.parametrize("kind", [leadlex.AsyncLeadLex, leadlex.LeadLex])
@pytest.mark.parametrize(("method", "known"), [("chat", "list_id"), ("stream_chat", "deal_id")])
def test_annotations_can_be_read(kind: type, method: str, known: str) -> None:
    """What makes tools of functions reads the signature that runs, whatever the overloads before it say."""
    annotation = get_type_hints(getattr(kind, method))["context"]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    assert adapter.validate_python({known: "x"}) == {known: "x"}
    assert adapter.validate_python(None) is None
    assert known in json.dumps(adapter.json_schema())


def test_a_reply() -> None:
    """Pydantic writes a value as its plain form and reads it back, a value itself included."""
    adapter = TypeAdapter(ChatReply)
    assert adapter.validate_json(adapter.dump_json(REPLY)) == adapter.validate_python(REPLY) == REPLY
    assert adapter.dump_python(REPLY) == REPLY.to_dict()


def test_a_union_of_events() -> None:
    """An event in a union is known by its type."""
    adapter: TypeAdapter[Any] = TypeAdapter(StreamEvent)
    for event in (TextDelta("a"), Done(3), ToolStep("t", "started")):
        assert adapter.validate_json(adapter.dump_json(event)) == event


def test_an_error() -> None:
    """An error is written and read too."""
    adapter: TypeAdapter[LeadLexError] = TypeAdapter(LeadLexError)
    again = adapter.validate_json(adapter.dump_json(NotFoundError(404, "not_found", "No such task")))
    assert type(again) is NotFoundError
    assert again.message == "No such task"


def test_what_is_refused() -> None:
    """What can't be read is pydantic's own error, with our words."""
    with pytest.raises(ValidationError, match="response is missing"):
        TypeAdapter(ChatReply).validate_python({})


def test_a_field_of_a_model() -> None:
    """Values and options can be fields of a user's model."""

    class Answered(BaseModel):
        reply: ChatReply
        timeout: Timeout = Timeout()

    answered = Answered(reply=REPLY)
    assert Answered.model_validate_json(answered.model_dump_json()) == answered


def test_described() -> None:
    """A schema names the fields, which are needed, and the type of an event."""
    read = TypeAdapter(TextDelta).json_schema(mode="validation")
    assert read["required"] == ["type", "delta"]
    assert read["properties"]["type"] == {"const": "text", "type": "string"}
    written = TypeAdapter(ChatReply).json_schema(mode="serialization")
    assert set(written["required"]) == set(REPLY.to_dict())


def test_an_endpoint() -> None:
    """A FastAPI endpoint answers with the plain form, whether its return type is written or not."""
    app = FastAPI()

    @app.get("/typed")
    def typed() -> ChatReply:
        return REPLY

    @app.get("/untyped")
    def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202  # as people write it
        return REPLY

    @app.post("/stored")
    def stored(reply: ChatReply = Body(embed=True)) -> list[StreamEvent]:  # noqa: B008, FAST002  # as people write it
        return [TextDelta(reply.response), Done(reply.credits_remaining)]

    with TestClient(app) as web:
        assert web.get("/typed").json() == web.get("/untyped").json() == REPLY.to_dict()
        assert web.post("/stored", json={"reply": REPLY.to_dict()}).json()[0]["delta"] == "Done."
        assert web.post("/stored", json={"reply": {}}).status_code == 422
        assert "ChatReply" in str(web.get("/openapi.json").json())


def test_behind_any() -> None:
    """Where pydantic was told of no type, a value is written in its plain form all the same."""
    reply = leadlex.ChatReply(response="Hi", thinking=("…",))
    writer = TypeAdapter[Any](Any)
    assert writer.dump_python({"reply": [reply]}) == {"reply": [reply.to_dict()]}
    assert json.loads(writer.dump_json(reply)) == reply.to_dict()


def test_without_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pydantic, what asks for its attribute hears that there is none."""
    monkeypatch.delitem(sys.modules, "leadlex._values.schema", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic_core", None)
    assert not hasattr(leadlex.ChatReply(response="Hi"), "__pydantic_serializer__")
