"""A sandbox in which no time passes, and plain ways to talk to it."""

import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from leadlex.sandbox import Sandbox

CEOS = "Find me 20 CEOs at law firms in New York"
STREAM = "/v1/lexi/chat/stream"
KEY = "123e4567-e89b-42d3-a456-426614174000"
TLS = ssl.create_default_context()  # not used, but to make one takes longer than to start a sandbox
Event = tuple[str, dict[str, Any]]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Start a sandbox."""
    with Sandbox(pace=0, task_seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """Give a client with the sandbox's key."""
    with client_of(sandbox) as http:
        yield http


def client_of(sandbox: Sandbox, key: str | None = None) -> httpx.Client:
    """Make a client with a key, the sandbox's own by default."""
    headers = {"Authorization": f"Bearer {key or sandbox.api_key}"}
    return httpx.Client(base_url=sandbox.url, headers=headers, timeout=10, verify=TLS)


def ask(http: httpx.Client, message: str, **context: str) -> dict[str, Any]:
    """Chat, and give the `data` of the answer."""
    answer = http.post("/v1/lexi/chat", json={"message": message, "context": context})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def stream(http: httpx.Client, message: str, *, key: str | None = None, **body: object) -> list[Event]:
    """Read a stream to its end, and give its events without `[DONE]`."""
    headers = {"Idempotency-Key": key} if key else {}
    with connect_sse(http, "POST", STREAM, json={"message": message, **body}, headers=headers) as source:
        return [(event.event, json.loads(event.data)) for event in source.iter_sse() if event.event != "message"]


def said(events: list[Event]) -> str:
    """Join the words of a stream."""
    return "".join(data["delta"] for event, data in events if event == "text")


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Give the status and the code of an error, whose shape is the contract's."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    return answer.status_code, error["code"]
