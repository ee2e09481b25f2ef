"""The stream: its bytes, its pace, and what a repeated key gets."""

import uuid
from pathlib import Path

import httpx

from leadlex.sandbox import Charge, Sandbox
from tests.support.runners import wait_until

from .conftest import CEOS, KEY, STREAM, client_of, code_of, said, stream

JANE = "Where is Jane Doe?"


def repeat(http: httpx.Client, key: str = KEY, message: str = JANE) -> httpx.Response:
    """Stream with a key."""
    return http.post(STREAM, json={"message": message}, headers={"Idempotency-Key": key})


def replayed(http: httpx.Client, key: str = KEY) -> bytes:
    """Stream with a key, and give all bytes."""
    answer = repeat(http, key)
    assert answer.status_code == 200, answer.text
    return answer.content


def leave_early(http: httpx.Client, key: str = KEY) -> bytes:
    """Leave a stream after its first bytes, and give them."""
    headers = {"Idempotency-Key": key}
    with http.stream("POST", STREAM, json={"message": JANE}, headers=headers) as answer:
        return next(answer.iter_raw())


def test_looks_like_the_capture_of_the_contract(sandbox: Sandbox, http: httpx.Client) -> None:
    """Framing, order and fields are those of the documentation, down to the last newline."""
    answer = http.post(STREAM, json={"message": JANE})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = '"summary": "Found 1 contact"'
    frames = answer.content.decode().split("\n\n")
    assert frames[:4] == [
        'event: thinking\ndata: {"text": "Looking up the contact in your pipeline..."}',
        'event: tool_step\ndata: {"tool": "contacts.get", "status": "started"}',
        f'event: tool_step\ndata: {{"tool": "contacts.get", "status": "completed", {found}}}',
        'event: text\ndata: {"delta": "Jane", "conversation_id": "conv_000001"}',
    ]
    done = f'{{"credits_remaining": {sandbox.credits}, "message_id": "msg_000003"}}'
    assert frames[-2:] == [f"event: done\ndata: {done}", "data: [DONE]\n"]


def test_speaks_word_by_word(http: httpx.Client) -> None:
    """Each delta is one word with the space before it."""
    deltas = [data["delta"] for event, data in stream(http, JANE) if event == "text"]
    assert deltas[:3] == ["Jane", " Doe", " is"]


def test_takes_its_time() -> None:
    """With a pace the first words arrive while the last ones are not yet said."""
    with Sandbox(pace=200) as sandbox, client_of(sandbox) as http:
        with http.stream("POST", STREAM, json={"message": JANE}) as answer:
            chunks = list(answer.iter_raw())
        assert len(chunks) > 3
        assert chunks[-1].endswith(b"data: [DONE]\n")


def test_continues_a_conversation(http: httpx.Client) -> None:
    """A stream begins a conversation, tells its id, and can go on with it; an unknown one is 404."""
    conversation_id = stream(http, CEOS)[-2][1]["conversation_id"]
    events = stream(http, "Filter to only Buffalo", conversation_id=conversation_id)
    assert "Rosa Marchetti" in said(events)
    assert events[-2][1]["conversation_id"] == conversation_id
    answer = http.post(STREAM, json={"message": "hi", "conversation_id": "conv_none"})
    assert code_of(answer) == (404, "conversation_not_found")


def test_replay_sends_the_recorded_stream_again(sandbox: Sandbox, http: httpx.Client) -> None:
    """The same key gets the same bytes, and is charged once."""
    first, other = replayed(http), str(uuid.uuid4())
    assert replayed(http) == first
    assert replayed(http, other) != first
    assert sandbox.charges == [Charge("stream", 2, KEY), Charge("stream", 2, other)]


def test_keys_are_uuids_and_bound_to_a_body(http: httpx.Client) -> None:
    """A key that is no UUID is 400, one that was used with another body 422."""
    for key in ("", "mine", f"{{{KEY}}}", KEY.replace("-", "")):
        assert code_of(repeat(http, key)) == (400, "validation_error")
    replayed(http)
    assert code_of(repeat(http, message="other")) == (422, "idempotency_key_reused")


def test_goes_on_without_the_client() -> None:
    """A client that leaves is seen; the answer is finished, recorded whole, and kept in the conversation."""
    with Sandbox(pace=100) as sandbox, client_of(sandbox) as http:
        begun = leave_early(http)
        wait_until(lambda: sandbox.requests[0].disconnected)
        again = replayed(http)
        assert again.startswith(begun)
        assert again.endswith(b"data: [DONE]\n")
        assert sandbox.charges == [Charge("stream", 2, KEY)]
        assert (sandbox.requests[0].complete, sandbox.requests[0].idempotency_key) == (False, KEY)
        conversation = http.get("/v1/lexi/conversations/conv_000001").json()["data"]
        assert [message["role"] for message in conversation["messages"]] == ["user", "assistant"]


def test_regenerate_answers_again_free_of_charge() -> None:
    """The second generation has other words, is in the same conversation and costs nothing."""
    with Sandbox(pace=0, idempotency="regenerate") as sandbox, client_of(sandbox) as http:
        first, second = stream(http, CEOS, key=KEY), stream(http, CEOS, key=KEY)
        assert said(second) == f"Once more: {said(first)}"
        assert second[-2][1]["conversation_id"] == first[-2][1]["conversation_id"]
        assert sandbox.charges == [Charge("stream", 2, KEY)]


def test_conflict_refuses_while_the_first_runs() -> None:
    """409 until the first stream is finished, then the recorded one; other keys are not concerned."""
    with Sandbox(pace=50, idempotency="conflict") as sandbox, client_of(sandbox) as http:
        leave_early(http)
        assert code_of(repeat(http)) == (409, "conflict")
        wait_until(lambda: repeat(http).status_code == 200)
        assert replayed(http).endswith(b"data: [DONE]\n")
        assert len(sandbox.charges) == 1


def test_forgets_keys_after_24_hours(sandbox: Sandbox, http: httpx.Client) -> None:
    """A day later the same key is a new request, and is charged."""
    replayed(http)
    sandbox.advance(24 * 3600 - 60)
    replayed(http)
    assert len(sandbox.charges) == 1
    sandbox.advance(60)
    replayed(http)
    assert len(sandbox.charges) == 2


def test_keys_are_the_workspace_s(sandbox: Sandbox, http: httpx.Client) -> None:
    """Another API key of the workspace gets the recorded stream, one of another workspace has its own keys."""
    first = replayed(http)
    with client_of(sandbox, sandbox.add_key(user_id="user_other")) as same:
        assert replayed(same) == first
    with client_of(sandbox, sandbox.add_key(workspace_id="ws_other")) as other:
        assert replayed(other) != first
        assert code_of(repeat(other, message="other")) == (422, "idempotency_key_reused")
    assert [charge.idempotency_key for charge in sandbox.charges] == [KEY, KEY]


def test_a_stream_that_a_restart_lost_is_not_charged_again(tmp_path: Path) -> None:
    """It was paid before the restart; the same key gets it generated again."""
    path = tmp_path / "data.sqlite"
    with Sandbox(path, pace=10) as sandbox, client_of(sandbox) as http:
        leave_early(http)
    with Sandbox(path, pace=0) as sandbox, client_of(sandbox) as http:
        events = stream(http, JANE, key=KEY)
        assert events[-1] == ("done", {"credits_remaining": 4_998, "message_id": "msg_000005"})
        assert sandbox.charges == []


def test_words_are_utf_8(http: httpx.Client) -> None:
    """What is not ASCII is sent as it is, and comes back whole."""
    topic = "\u00e9t\u00e9 \u2028 \U0001f600"
    answer = http.post(STREAM, json={"message": f"Start a campaign for Q1 Leads about {topic}"})
    assert all(word.encode() in answer.content for word in topic.split())
