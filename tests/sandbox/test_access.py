"""Who may come in, how often, and what every answer tells."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest

from leadlex.sandbox import Sandbox

from .conftest import STREAM, ask, client_of, code_of

ENDPOINTS = [
    ("POST", "/v1/lexi/chat", "lexi"),
    ("POST", STREAM, "write:ai"),
    ("GET", "/v1/lexi/conversations", "read:ai"),
    ("GET", "/v1/lexi/conversations/x", "read:ai"),
    ("GET", "/v1/lexi/tasks", "lexi"),
    ("POST", "/v1/lexi/tasks/x/approve", "lexi"),
    ("POST", "/v1/lexi/tasks/x/dismiss", "lexi"),
]


@pytest.mark.parametrize(("method", "path", "permission"), ENDPOINTS)
def test_asks_for_one_permission(sandbox: Sandbox, method: str, path: str, permission: str) -> None:
    """A key with that permission comes in; one with the two others is told which is lacking."""
    others = {"lexi", "read:ai", "write:ai"} - {permission}
    with client_of(sandbox, sandbox.add_key([permission])) as http:
        assert http.request(method, path).status_code not in (401, 403)
    with client_of(sandbox, sandbox.add_key(others)) as http:
        answer = http.request(method, path)
        assert code_of(answer) == (403, "insufficient_permissions")
        assert permission in answer.json()["error"]["message"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wbk_wrong", "Basic {key}", "{key}"])
def test_refuses_keys_that_are_none(sandbox: Sandbox, authorization: str) -> None:
    """Without a key, with an unknown one or with another scheme the answer is 401."""
    headers = {"Authorization": authorization.format(key=sandbox.api_key)}
    answer = httpx.get(f"{sandbox.url}/v1/lexi/tasks", headers=headers)
    assert code_of(answer) == (401, "invalid_key")


def test_keys_expire(sandbox: Sandbox) -> None:
    """A key works until its time has come."""
    now = datetime.now(UTC)
    with client_of(sandbox, sandbox.add_key(expires_at=now + timedelta(hours=1))) as http:
        assert http.get("/v1/lexi/tasks").status_code == 200
        sandbox.advance(3600)
        assert code_of(http.get("/v1/lexi/tasks")) == (401, "invalid_key")
    with client_of(sandbox, sandbox.add_key(expires_at=now)) as http:
        assert code_of(http.get("/v1/lexi/tasks")) == (401, "invalid_key")


def test_unknown_permissions_are_named(sandbox: Sandbox) -> None:
    """A key can't have a permission that does not exist."""
    with pytest.raises(ValueError, match=r"read:all.*read:ai"):
        sandbox.add_key(["read:all"])


@pytest.mark.parametrize("path", ["/v1/lexi/tasks", "/v1/lexi/conversations/none", "/nowhere", "/openapi.yaml"])
def test_every_answer_tells_the_quota(http: httpx.Client, path: str) -> None:
    """Quota, request id and date are on every answer, right or wrong; the ids differ."""
    first, second = http.get(path), http.get(path)
    midnight = datetime.fromtimestamp(int(first.headers["X-RateLimit-Reset"]), UTC)
    assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
    assert timedelta(0) < midnight - datetime.now(UTC) <= timedelta(days=1)
    assert first.headers["X-RateLimit-Limit"] == "10000"
    assert int(first.headers["X-RateLimit-Remaining"]) <= 10_000
    assert "GMT" in first.headers["Date"]
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_the_quota_is_the_keys_and_ends_at_midnight() -> None:
    """A key that used up its quota is refused until midnight UTC; another key is not."""
    ahead = (12 - datetime.now(UTC).hour) % 24 * 3600  # no midnight of the machine comes between
    with Sandbox(quota=2) as sandbox, client_of(sandbox) as http:
        sandbox.advance(ahead)
        left = [http.get("/v1/lexi/tasks").headers["X-RateLimit-Remaining"] for _ in range(2)]
        refused = http.get("/v1/lexi/tasks")
        assert left == ["1", "0"]
        assert code_of(refused) == (429, "rate_limited")
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        midnight = datetime.fromtimestamp(int(refused.headers["X-RateLimit-Reset"]), UTC)
        with client_of(sandbox, sandbox.add_key()) as other:
            assert other.get("/v1/lexi/tasks").status_code == 200
        sandbox.advance((midnight - datetime.now(UTC)).total_seconds() - ahead - 60)
        assert http.get("/v1/lexi/tasks").status_code == 429
        sandbox.advance(61)
        renewed = http.get("/v1/lexi/tasks")
        assert (renewed.status_code, renewed.headers["X-RateLimit-Remaining"]) == (200, "1")
        next_midnight = datetime.fromtimestamp(int(renewed.headers["X-RateLimit-Reset"]), UTC)
        assert next_midnight - midnight == timedelta(days=1)
        assert midnight <= parsedate_to_datetime(renewed.headers["Date"]) < midnight + timedelta(minutes=1)


def test_unknown_paths_and_methods_get_the_shape_of_errors(http: httpx.Client) -> None:
    """What is not in the contract is 404 or 405, in JSON, and named, so that nobody looks for a wrong id."""
    unknown = http.get("/v1/lexi/nothing")
    assert code_of(unknown) == (404, "not_found")
    assert unknown.json()["error"]["message"] == "The sandbox has no endpoint GET /v1/lexi/nothing"
    assert code_of(http.get("/v1/lexi/chat/")) == (404, "not_found")
    refused = http.delete("/v1/lexi/chat")
    assert code_of(refused) == (405, "method_not_allowed")
    assert refused.headers["Allow"] == "POST"


def test_shows_what_it_saw(sandbox: Sandbox, http: httpx.Client) -> None:
    """Requests can be looked at: all but the key."""
    ask(http, "hello")
    http.get("/v1/lexi/conversations", params={"page": 2})
    chat, listing = sandbox.requests
    assert (chat.method, chat.path, chat.status, chat.complete) == ("POST", "/v1/lexi/chat", 200, True)
    assert chat.body == b'{"message":"hello","context":{}}'
    assert (listing.query, listing.idempotency_key, listing.fault) == ("page=2", None, None)
    assert not listing.disconnected
    assert sandbox.api_key not in repr(sandbox.requests)
