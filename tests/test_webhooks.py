"""Webhooks: what is signed and fresh is read, everything else is refused, and the secret is shown nowhere."""

from __future__ import annotations

import ast
import hashlib
import hmac
import inspect
import json
import os
import textwrap
import traceback
import uuid
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from leadlex import ConfigurationError, WebhookVerificationError, webhooks

SECRET = "whsec_4f0c9b1d"
NOW = datetime(2026, 4, 17, 10, 30, tzinfo=UTC)
REAL_NOW = webhooks.now
TASK = {"id": "task_01HY1", "type": "prospect_search", "status": "pending"}
TOLD = {"event": "task.created", "timestamp": "2026-04-17T10:30:00Z", "workspace_id": "ws_1", "data": TASK}


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]  # autouse
    monkeypatch.setattr(webhooks, "now", lambda: NOW)


def body_of(told: object = TOLD) -> bytes:
    """Write a delivery."""
    return json.dumps(told).encode()


def headers_for(body: bytes, secret: str = SECRET, **others: str) -> dict[str, str]:
    """Sign a delivery as LeadLex does."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-LeadLex-Signature": f"sha256={digest}", **others}


def refusal(body: bytes) -> str:
    """Verify what is signed well and must be refused all the same; return why it was."""
    with pytest.raises(WebhookVerificationError) as caught:
        webhooks.verify(body, headers_for(body), SECRET)
    return str(caught.value)


def test_a_signed_and_fresh_delivery_is_read() -> None:
    """A delivery with the right signature becomes an event with every field of the contract."""
    body = body_of({**TOLD, "attempt": 2})
    event = webhooks.verify(body, headers_for(body, **{"X-LeadLex-Delivery-ID": "7d1f"}), SECRET)
    assert event == webhooks.WebhookEvent(
        event="task.created", timestamp=NOW, workspace_id="ws_1", data=TASK, delivery_id="7d1f", extra={"attempt": 2}
    )
    assert event.timestamp.tzinfo is UTC


def test_the_signature_is_the_one_that_openssl_makes() -> None:
    """The scheme is HMAC-SHA256 of the raw body in lower-case hex: a vector made with `openssl dgst -hmac`."""
    body = b'{"event":"task.approved","timestamp":"2026-04-17T10:30:00Z","workspace_id":"ws_1","data":{}}'
    signature = "sha256=e5cad3f5cf52d4bae9023af83937cb1b93fe5dc2b2d24362c0d85a8a3dd93844"
    event = webhooks.verify(body, {"X-LeadLex-Signature": signature}, "secret")
    assert event.event == "task.approved"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-17t10:30:00z", NOW),
        ("2026-04-17T23:59:60Z", datetime(2026, 4, 18, tzinfo=UTC)),
        ("2026-04-17 23:59:60.5+00:00", datetime(2026, 4, 18, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_read_as_it_may_be_written(text: str, moment: datetime) -> None:
    """Small letters and a leap second are dates too (RFC 3339)."""
    body = body_of({**TOLD, "timestamp": text})
    assert webhooks.verify(body, headers_for(body), SECRET, tolerance=1e6).timestamp == moment


@pytest.mark.parametrize("data", [b"[%b1]" % (b"{}," * 600_000), b'"%b"' % (b"a" * (17 << 20))], ids=["values", "text"])
def test_a_body_that_would_fill_memory_is_refused(data: bytes) -> None:
    """What is signed is bounded all the same, before any of it is read."""
    assert "too large to be a delivery" in refusal(b'{"event": "e", "data": %b}' % data)


def test_an_event_without_delivery_id_is_read() -> None:
    """The delivery's id is None where the header is absent."""
    body = body_of()
    assert webhooks.verify(body, headers_for(body), SECRET).delivery_id is None


@pytest.mark.parametrize("name", ["X-LeadLex-Signature", "x-leadlex-signature", "X-LEADLEX-SIGNATURE"])
def test_header_names_are_found_in_any_case(name: str) -> None:
    """Any mapping will do, whatever case its names are in."""
    body = body_of()
    signature = headers_for(body)["X-LeadLex-Signature"]
    assert webhooks.verify(body, {name: signature}, SECRET).event == "task.created"
    assert webhooks.verify(body, httpx.Headers({name: signature}), SECRET).event == "task.created"
    message = Message()
    message[name] = signature
    assert webhooks.verify(body, message, SECRET).event == "task.created"


def test_bytes_do_for_secret_and_bytearray_for_body() -> None:
    """A secret may be bytes; a body may be a bytearray, as some servers give it."""
    body = body_of()
    assert webhooks.verify(bytearray(body), headers_for(body), SECRET.encode()).data == TASK


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("2026-04-17T10:30:00.250Z", NOW + timedelta(milliseconds=250)),
        ("2026-04-17T10:30:00", NOW),
        ("2026-04-17T12:30:00+02:00", NOW),
    ],
)
def test_a_timestamp_is_aware_and_utc(timestamp: str, moment: datetime) -> None:
    """With fractions, without a zone, or in another one: it is the same moment in UTC."""
    body = body_of({**TOLD, "timestamp": timestamp})
    read = webhooks.verify(body, headers_for(body), SECRET).timestamp
    assert (read, read.utcoffset()) == (moment, timedelta())


@pytest.mark.parametrize(("seconds", "is_taken"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_the_tolerance_holds_in_both_directions(seconds: int, is_taken: bool) -> None:  # noqa: FBT001
    """A delivery from more than five minutes ago, or ahead, is refused: it may be an old one repeated."""
    body = body_of({**TOLD, "timestamp": (NOW - timedelta(seconds=seconds)).isoformat()})
    if is_taken:
        webhooks.verify(body, headers_for(body), SECRET)
        return
    with pytest.raises(WebhookVerificationError, match=r"301 s (ago|in the future)"):
        webhooks.verify(body, headers_for(body), SECRET)
    webhooks.verify(body, headers_for(body), SECRET, tolerance=301)


def test_the_unsigned_time_header_is_not_believed() -> None:
    """An old delivery stays old, whatever `X-LeadLex-Timestamp` says."""
    body = body_of({**TOLD, "timestamp": "2026-04-16T10:30:00Z"})
    headers = headers_for(body, **{"X-LeadLex-Timestamp": NOW.isoformat()})
    with pytest.raises(WebhookVerificationError, match="86400 s ago"):
        webhooks.verify(body, headers, SECRET)


def test_the_clock_is_the_machines() -> None:
    """Outside of tests the time is now, and aware."""
    assert abs((datetime.now(UTC) - REAL_NOW()).total_seconds()) < 60


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (None, "missing"),
        ("", "missing"),
        ("deadbeef", "not of the form sha256="),
        ("sha256=", "does not fit"),
        ("sha256=deadbeef", "does not fit"),
        ("sha256=é\udcff", "does not fit"),
        ("sha512=" + "0" * 128, "not of the form"),
    ],
)
def test_a_wrong_signature_is_refused(signature: str | None, why: str) -> None:
    """A missing, malformed or wrong signature is a WebhookVerificationError that says which."""
    headers = {} if signature is None else {"X-LeadLex-Signature": signature}
    with pytest.raises(WebhookVerificationError, match=why):
        webhooks.verify(body_of(), headers, SECRET)


def test_every_changed_byte_breaks_the_signature() -> None:
    """A body that differs in one bit anywhere is refused."""
    body = body_of()
    headers = headers_for(body)
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        with pytest.raises(WebhookVerificationError, match="does not fit"):
            webhooks.verify(changed, headers, SECRET)


def test_another_secret_is_refused() -> None:
    """A delivery signed with another endpoint's secret is refused."""
    body = body_of()
    with pytest.raises(WebhookVerificationError, match="the secret is another one"):
        webhooks.verify(body, headers_for(body, "whsec_other"), SECRET)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5_000, b'{"a": 1'])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    """What is signed but is not JSON is a WebhookVerificationError, never an error of json."""
    assert "not JSON" in refusal(body) or "not a JSON object" in refusal(body)


@pytest.mark.parametrize("told", [[], "task.created", None, 5])
def test_a_body_that_is_no_object_is_refused(told: object) -> None:
    """JSON that is not an object is refused."""
    assert "not a JSON object" in refusal(body_of(told))


@pytest.mark.parametrize("name", ["event", "timestamp", "workspace_id", "data"])
def test_a_missing_field_is_named(name: str) -> None:
    """Each field of the contract is needed; null is the same as absent."""
    assert f"{name!r} is missing" in refusal(body_of({key: value for key, value in TOLD.items() if key != name}))
    assert f"{name!r} is missing" in refusal(body_of({**TOLD, name: None}))
    assert f"{name!r} is of the wrong type" in refusal(body_of({**TOLD, name: 5}))


@pytest.mark.parametrize("timestamp", ["", "today", "2026-02-31T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_timestamp_that_is_none_is_refused(timestamp: str) -> None:
    """What is not ISO 8601, or no moment at all, is refused."""
    assert "not ISO 8601" in refusal(body_of({**TOLD, "timestamp": timestamp}))


@pytest.mark.parametrize("body", ["{}", None, {}])
def test_a_body_that_is_not_bytes_is_a_configuration_error(body: Any) -> None:
    """JSON that was read already can't be verified, and the error says what is needed."""
    with pytest.raises(ConfigurationError, match="raw bytes of the request"):
        webhooks.verify(body, {}, SECRET)


def test_two_secrets_while_one_is_rotated() -> None:
    """What any of several secrets signed is right, in whatever order they stand; what none of them did is not."""
    body = body_of()
    for secrets in (["whsec_new", SECRET], (SECRET.encode(), "whsec_new")):
        assert webhooks.verify(body, headers_for(body), secrets).event == "task.created"
        assert webhooks.verify(body, headers_for(body, "whsec_new"), secrets).event == "task.created"
        with pytest.raises(WebhookVerificationError, match="does not fit"):
            webhooks.verify(body, headers_for(body, "whsec_old"), secrets)


# Signing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode()])
def test_what_is_signed_verifies(secret: str | bytes) -> None:
    """`sign` gives the headers of the contract, with the signature that `verify` and openssl find right."""
    body = body_of()
    headers = webhooks.sign(body, secret)
    assert {name: headers[name] for name in ("X-LeadLex-Signature", "X-LeadLex-Timestamp", "Content-Type")} == {
        **headers_for(body),
        "X-LeadLex-Timestamp": "2026-04-17T10:30:00Z",
        "Content-Type": "application/json",
    }
    event = webhooks.verify(body, headers, SECRET)
    assert event.delivery_id == headers["X-LeadLex-Delivery-ID"]
    assert str(uuid.UUID(event.delivery_id)) == event.delivery_id
    assert webhooks.sign(bytearray(body), secret)["X-LeadLex-Delivery-ID"] != event.delivery_id


@pytest.mark.parametrize(("body", "secret"), [("{}", SECRET), (b"{}", ""), (b"{}", None), (b"{}", [SECRET])])
def test_what_can_t_be_signed_is_refused(body: Any, secret: Any) -> None:
    """A body is bytes, and a delivery is signed with one secret; none of it is shown."""
    with pytest.raises(ConfigurationError, match=r"body must be|secret must be") as caught:
        webhooks.sign(body, secret)
    captured = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert all(SECRET not in str(frame.locals) for frame in list(captured.stack)[1:])


def examples() -> dict[str, str]:
    """Cut the examples out of the docstrings."""
    texts = {each.__name__: inspect.cleandoc(each.__doc__ or "") for each in (webhooks, webhooks.verify, webhooks.sign)}
    return {name: textwrap.dedent(text.partition("\nExample:\n")[2]) for name, text in texts.items()}


@pytest.mark.parametrize("example", examples().values(), ids=examples())
def test_every_example_runs(example: str, environ: MutableMapping[str, str]) -> None:
    """Who pastes an example into an endpoint, or into its test, sees it work."""
    environ["LEADLEX_WEBHOOK_SECRET"] = SECRET
    body = body_of()
    scope = {"type": "http", "headers": [(k.lower().encode(), v.encode()) for k, v in headers_for(body).items()]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    app = FastAPI()

    @app.post("/webhooks/leadlex")
    async def endpoint(request: Request) -> None:
        webhooks.verify(await request.body(), request.headers, SECRET, tolerance=1e9)

    known = {"webhooks": webhooks, "os": os, "json": json, "datetime": datetime, "UTC": UTC, "secret": SECRET}
    known |= {"request": Request(scope, receive), "client": TestClient(app)}
    code = compile(example, "<example>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)

    async def run() -> None:
        outcome = eval(code, known)  # noqa: S307  # our own docstring
        if outcome is not None:
            await outcome

    anyio.run(run)
    assert known.get("response", httpx.Response(200)).is_success  # type: ignore[attr-defined]


# The plain form ----------------------------------------------------------------------------------------------------


def test_an_event_has_a_plain_form() -> None:
    """An event can be put into a queue and read again, and pydantic knows it."""
    body = body_of({**TOLD, "attempt": 2})
    event = webhooks.verify(body, webhooks.sign(body, SECRET), SECRET)
    plain = json.loads(json.dumps(event.to_dict()))
    assert plain == {**TOLD, "attempt": 2, "delivery_id": event.delivery_id}
    assert webhooks.WebhookEvent.from_dict(plain) == event
    assert TypeAdapter(webhooks.WebhookEvent).validate_json(json.dumps(plain)) == event
    with pytest.raises(ConfigurationError, match="data is missing"):
        webhooks.WebhookEvent.from_dict({**TOLD, "data": None})


@pytest.mark.parametrize("secret", [None, "", b"", 5, [], ["a", ""], ["a", 5], {"a"}, bytearray(b"a")])
def test_a_secret_that_is_none_is_a_configuration_error(secret: Any) -> None:
    """An empty secret, as from an unset variable, would let anybody sign."""
    with pytest.raises(ConfigurationError, match="secret must be"):
        webhooks.verify(body_of(), {}, secret)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf"), True, "300", None, 10**400])
def test_a_tolerance_that_is_none_is_a_configuration_error(tolerance: Any) -> None:
    """A tolerance is a number of seconds above 0."""
    with pytest.raises(ConfigurationError, match="tolerance must be"):
        webhooks.verify(body_of(), {}, SECRET, tolerance=tolerance)


@pytest.mark.parametrize("headers", [None, [("X-LeadLex-Signature", "sha256=")], "sha256="])
def test_headers_that_are_no_mapping_are_a_configuration_error(headers: Any) -> None:
    """Headers are a mapping; names that are not text are passed over, values that are not are refused."""
    with pytest.raises(ConfigurationError, match="headers must be a mapping"):
        webhooks.verify(body_of(), headers, SECRET)
    wrong: Any = {b"X-LeadLex-Signature": b"sha256=", "x-leadlex-signature": b"sha256="}
    with pytest.raises(ConfigurationError, match="must be a str; given: bytes"):
        webhooks.verify(body_of(), wrong, SECRET)


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), SECRET + "\ud800", [SECRET, SECRET], [SECRET, ""]])
def test_the_secret_is_shown_nowhere(secret: str | bytes | list[str | bytes]) -> None:
    """Neither the error's text nor the locals of leadlex's frames in a captured traceback have the secret."""
    for headers in ({}, {"X-LeadLex-Signature": "sha256=00"}, {"X-LeadLex-Signature": 5}):
        with pytest.raises((WebhookVerificationError, ConfigurationError)) as caught:
            webhooks.verify(body_of(), headers, secret)  # type: ignore[arg-type]  # one is wrong on purpose
        captured = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert SECRET not in str(caught.value)
        assert all(SECRET not in str(frame.locals) for frame in list(captured.stack)[1:])
