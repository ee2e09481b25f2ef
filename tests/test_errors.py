"""Every error says what happened, whether it was charged and what to do; it travels, and never shows the key."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

import leadlex
from leadlex import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    Attempt,
    AuthenticationError,
    BadRequestError,
    Charged,
    ChatReply,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    IdempotencyError,
    InsufficientCreditsError,
    LeadLexError,
    Meta,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimit,
    RateLimitError,
    ServerError,
    StreamBusyError,
    StreamDivergedError,
    StreamInterruptedError,
    WebhookVerificationError,
)
from leadlex._errors import Fact, TimeoutName, status_error_class
from leadlex.sandbox import Sandbox
from tests.support.answers import answer, json_answer, sse_head
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, ScriptedServer, dead_port

KEY = "0b2ad1b1-1c0c-4ed3-8f7f-2f9d1a3f9c55"
NOON = datetime(2026, 4, 17, 12, tzinfo=UTC)


def every_error() -> list[LeadLexError]:
    """Make one of each class, as the library does."""
    limited = RateLimitError(429, "rate_limited", "Rate limit exceeded", "{}")
    limited.retry_after, limited.reset_at = 32_400.0, NOON
    denied = PermissionDeniedError(403, "insufficient_permissions", "Missing permission")
    denied.permission = "write:ai"
    return [
        LeadLexError("Something went wrong."),
        ConfigurationError("page must be at least 1; given: 0."),
        ClientClosedError(),
        StreamBusyError(),
        APIConnectionError("LeadLex could not be reached."),
        APITimeoutError("idle", 60.0, "Nothing came."),
        APIResponseError("LeadLex's answer can't be used."),
        StreamInterruptedError("The answer broke off.", KEY),
        StreamDivergedError(
            KEY,
            delivered="Jane Doe is",
            replayed_prefix="Jane Roe",
            conversation_ids=("conv_1", None),
            why="it says something else",
        ),
        PaginationError("Page 3 repeats what came before."),
        WebhookVerificationError("The signature is not LeadLex's."),
        APIStatusError(418, "teapot", "I'm a teapot", "short and stout"),
        BadRequestError(400, "validation_error", "message is required"),
        AuthenticationError(401, "invalid_key", "Invalid API key"),
        InsufficientCreditsError(402, "insufficient_credits", "No credits left"),
        denied,
        NotFoundError(404, "not_found", "Not found"),
        ConflictError(409, "conflict", "In flight"),
        IdempotencyError(422, "idempotency_key_reused", "Another body"),
        limited,
        ServerError(500, None, None, "<html>"),
    ]


def named(value: object) -> str:
    """Name a case by its class."""
    return type(value).__name__


each_error = pytest.mark.parametrize("error", every_error(), ids=named)


# The tree ----------------------------------------------------------------------------------------------------------

PARENTS: dict[type[LeadLexError], tuple[type, ...]] = {
    LeadLexError: (Exception,),
    ConfigurationError: (LeadLexError, ValueError),
    ClientClosedError: (LeadLexError, RuntimeError),
    StreamBusyError: (LeadLexError, RuntimeError),
    APIConnectionError: (LeadLexError,),
    APITimeoutError: (APIConnectionError,),
    APIResponseError: (LeadLexError,),
    StreamInterruptedError: (LeadLexError,),
    StreamDivergedError: (StreamInterruptedError,),
    PaginationError: (LeadLexError,),
    WebhookVerificationError: (LeadLexError,),
    APIStatusError: (LeadLexError,),
    BadRequestError: (APIStatusError,),
    AuthenticationError: (APIStatusError,),
    InsufficientCreditsError: (APIStatusError,),
    PermissionDeniedError: (APIStatusError,),
    NotFoundError: (APIStatusError,),
    ConflictError: (APIStatusError,),
    IdempotencyError: (ConflictError,),
    RateLimitError: (APIStatusError,),
    ServerError: (APIStatusError,),
}


def descendants(kind: type[LeadLexError]) -> Iterator[type[LeadLexError]]:
    """List a class and what is derived from it in the library."""
    if kind.__module__ == "leadlex":
        yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def test_the_tree_is_as_documented() -> None:
    """An `except` of a class, or of Python's own class behind it, catches what it is said to catch."""
    assert {kind: kind.__bases__ for kind in descendants(LeadLexError)} == PARENTS


def test_the_tree_is_drawn_whole() -> None:
    """`help(leadlex.LeadLexError)` has every class, below the one it is derived from."""
    drawn = re.findall(r"^ {8}([ │├└─]*)(.*)$", LeadLexError.__doc__ or "", flags=re.MULTILINE)
    path, seen = [LeadLexError], {LeadLexError}
    for signs, words in drawn[1:]:
        for name in re.findall(r"\b[A-Z]\w+Error\b", words.split("also")[0]):
            kind, depth = getattr(leadlex, name), len(signs) // 3
            assert kind.__bases__[0] is path[depth - 1]
            path[depth:] = [kind]
            seen.add(kind)
    assert seen == {*PARENTS}


@pytest.mark.parametrize("kind", PARENTS)
def test_a_traceback_names_a_class_as_people_import_it(kind: type[LeadLexError]) -> None:
    """No private module stands before the name in a traceback, a log or a pickle."""
    assert f"{kind.__module__}.{kind.__qualname__}" == f"leadlex.{kind.__name__}"
    assert getattr(leadlex, kind.__name__) is kind


class OfAUser(RateLimitError):
    """An error that a user derives, with arguments of its own."""

    def __init__(self, *, who: str) -> None:
        super().__init__(429, "rate_limited", "slow down")
        self.who = who


def sent_to_another_process(error: OfAUser) -> Any:
    """Send an error to another process and back."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301  # our own


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, sent_to_another_process])
def test_an_error_of_a_user_is_copied_and_pickled(again: Callable[[OfAUser], OfAUser]) -> None:
    """What a user derives goes between processes too, whatever its constructor asks for."""
    error = OfAUser(who="me")
    told = again(error)
    assert (type(told), told.who, str(told), told.__module__) == (OfAUser, "me", str(error), __name__)


def test_the_samples_are_complete() -> None:
    """What is promised of every error below is tested of every error."""
    assert {type(error) for error in every_error()} == set(PARENTS)


# Travelling --------------------------------------------------------------------------------------------------------


def laden(error: LeadLexError) -> LeadLexError:
    """Put on an error all that the library may put on one."""
    error.charged = "unknown"
    error.partial = ChatReply(response="Half an ans", conversation_id="conv_1")
    error.meta = Meta(status_code=200, request_id="req_1", headers={"x-request-id": "req_1"}, attempts=2)
    error.next_page = 7
    error.idempotency_key, error.first_sent = KEY, NOON
    error.attempt_log = (
        Attempt(failure="lost", elapsed=0.5, delay=0.1),
        Attempt(failure="transient", status_code=503, request_id="req_1", elapsed=0.25),
    )
    return error


def pickled(protocol: int) -> Callable[[LeadLexError], LeadLexError]:
    """Send an error through one protocol of pickle."""

    def road(error: LeadLexError) -> LeadLexError:
        twin: LeadLexError = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # our own
        return twin

    return road


ROADS: dict[str, Callable[[LeadLexError], LeadLexError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {number}": pickled(number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("road", ROADS)
@each_error
def test_every_error_pickles_and_copies(error: LeadLexError, road: str) -> None:
    """An error that crosses to another process, or is copied, arrives with everything it knew."""
    twin = ROADS[road](laden(error))
    assert type(twin) is type(error)
    assert (twin.args, vars(twin), str(twin)) == (error.args, vars(error), str(error))
    assert (twin.partial, twin.meta) == (error.partial, error.meta)
    twin.charged = "no"
    assert error.charged == "unknown"


@each_error
def test_an_error_is_made_again_of_its_args(error: LeadLexError) -> None:
    """A task queue sends class and args as JSON, and makes the error again of them: it says what it said."""
    laden(error)
    twin = type(error)(*json.loads(json.dumps(error.args)))
    assert (str(twin), repr(twin)) == (str(error), repr(error))
    for name in TRAVELLING:
        assert getattr(twin, name, None) == getattr(error, name, None), name
    assert KEY not in repr(twin) or isinstance(twin, StreamInterruptedError)
    assert "charged" not in repr(twin)


#: What reaches whoever fetches a task's result.
TRAVELLING = (
    *("charged", "idempotency_key", "first_sent", "request_id", "retry_after", "reset_at", "clock", "next_page"),
    *("from_service", "attempt_log"),
)


def test_a_class_knows_nothing_of_a_call() -> None:
    """What is known is of one error: asked of the class, it is what keeps it, as tools that list attributes expect."""
    assert isinstance(LeadLexError.charged, Fact)
    assert "charged" in dir(LeadLexError)


@each_error
def test_an_error_without_facts_claims_nothing(error: LeadLexError) -> None:
    """An error made by hand does not say that nothing was charged, but where nothing can have been sent."""
    costless = ConfigurationError, StreamBusyError, PaginationError, WebhookVerificationError
    assert type(error)(*error.positional).charged == ("no" if isinstance(error, costless) else "unknown")


def test_a_caller_may_add_to_args() -> None:
    """What a caller adds to `args` spoils neither the words nor the facts."""
    error = APITimeoutError("idle", 3.0, "", {"charged": "no"})
    said = str(error)
    error.args += ("more",)
    assert (str(error), error.charged, error.clock) == (said, "no", "idle")


def test_an_error_of_a_users_own_pickles() -> None:
    """A class derived by a user, with a constructor of its own, pickles too."""
    error = Stranger("conv_1", reason="gone")
    assert vars(pickle.loads(pickle.dumps(error))) == {"reason": "gone"}  # noqa: S301  # our own


class Stranger(APIConnectionError):
    """Stand for a user's own class."""

    def __init__(self, place: str, *, reason: str) -> None:
        super().__init__(place)
        self.reason = reason


# Messages ----------------------------------------------------------------------------------------------------------

SAYS: dict[Charged, str] = {
    "no": "Nothing was charged.",
    "unknown": "Whether it was charged is not known.",
    "yes": "It was charged.",
}
#: These are about a call that never was, or about none.
SILENT = (ConfigurationError, WebhookVerificationError)


@pytest.mark.parametrize("charged", get_args(Charged))
@each_error
def test_every_message_says_what_happened_whether_it_was_charged_and_what_to_do(
    error: LeadLexError, charged: Charged
) -> None:
    """A user who reads nothing but the message knows what to do."""
    error.charged = charged
    charge = "" if isinstance(error, SILENT) else SAYS[charged]
    assert str(error).startswith(f"{error.problem} {charge}".strip())
    advice = str(error).removeprefix(error.problem).strip().removeprefix(charge)
    assert advice.endswith(".") or isinstance(error, ConfigurationError)  # whose problem is the limit itself


def test_a_lost_answer_tells_where_to_look() -> None:
    """Before a question is asked twice that may have been paid for, the message says how to find out."""
    error = APIConnectionError("The connection broke.")
    assert "Find out whether it was done" in str(error)
    error.look = "Before asking again, look for the question in lexi.conversation('conv_1')."
    assert str(error).endswith(error.look)
    error.idempotency_key, error.first_sent = KEY, NOON
    assert f"idempotency_key={KEY!r}, first_sent=datetime.fromisoformat({NOON.isoformat()!r})." in str(error)
    error.charged = "no"
    assert str(error) == "The connection broke. Nothing was charged. Trying again is safe."


def test_an_interrupted_stream_gives_its_key() -> None:
    """The message of a broken stream has the very argument that asks again without paying again."""
    assert f"idempotency_key={KEY!r}" in str(StreamInterruptedError("The answer broke off.", KEY))


def test_a_divergence_tells_both_answers() -> None:
    """Who has to compare two answers gets both, how far they agree, and the key under its short name too."""
    error = next(error for error in every_error() if isinstance(error, StreamDivergedError))
    assert (error.delivered, error.replayed_prefix, error.common_len) == ("Jane Doe is", "Jane Roe", 5)
    assert (error.conversation_ids, error.key) == (("conv_1", None), KEY)


@pytest.mark.parametrize(("one", "other", "length"), [("ab", "abc", 2), ("", "a", 0), ("ab", "ab", 2), ("ab", "b", 0)])
def test_the_common_start_is_counted(one: str, other: str, length: int) -> None:
    """The shared start ends at the first difference, or with the shorter text."""
    error = StreamDivergedError(KEY, delivered=one, replayed_prefix=other, conversation_ids=(None, None), why="")
    assert error.common_len == length


@pytest.mark.parametrize("clock", get_args(TimeoutName))
def test_a_timeout_names_its_clock(clock: TimeoutName) -> None:
    """Of eight timeouts the message names the one that ran out, by the name it is set with."""
    error = APITimeoutError(clock, 2.5)
    assert error.clock == clock
    assert f"within 2.5 s (the {clock} timeout)" in str(error)
    assert "in time" in str(APITimeoutError(clock, None))


def test_a_quota_tells_when_to_come_back() -> None:
    """The best that is known is said: the moment, else the seconds, else only that there is a quota."""
    error = RateLimitError(429, "rate_limited", "Slow down")
    assert "Ask again later." in str(error)
    error.retry_after = 30.0
    assert "Ask again in 30 s." in str(error)
    error.retry_after = 33_060.5
    assert "Ask again in 9 h 11 min (33060.5 s)." in str(error)
    error.reset_at = NOON
    assert "Ask again in 9 h 11 min (at 12:00 UTC), after 2026-04-17T12:00:00+00:00." in str(error)
    error.retry_after = None
    assert "Ask again after 2026-04-17T12:00:00+00:00." in str(error)


def test_a_status_error_shows_what_the_answer_told() -> None:
    """Class, status, code, message, request id, quota and body of an answer are on its error."""
    error = NotFoundError(404, "not_found", "No such task", "{…}")
    assert (error.request_id, error.rate_limit) == (None, None)
    error.meta = Meta(status_code=404, request_id="req_1", rate_limit=RateLimit(limit=5))
    assert (error.status_code, error.code, error.message, error.body) == (404, "not_found", "No such task", "{…}")
    assert (error.request_id, error.rate_limit) == ("req_1", RateLimit(limit=5))
    assert "(404 not_found): No such task (request req_1)." in str(error)


def test_an_answer_that_cant_be_used_names_its_request() -> None:
    """The service's support finds the call by the id in the message."""
    error = APIResponseError("LeadLex's answer can't be used.")
    error.meta = Meta(status_code=200, request_id="req_1")
    assert "can't be used (request req_1)." in str(error)


# What a server sends -----------------------------------------------------------------------------------------------

EVIL = "a\x1b[2J\r\nb\x00\x7f\u202e\u2066\u200b\x85c"


def hostile() -> list[LeadLexError]:
    """Make one of each class that repeats what a server sent."""
    meta = Meta(status_code=400, request_id=EVIL)
    errors: list[LeadLexError] = [
        *(kind(400, EVIL, EVIL, EVIL) for kind in PARENTS if issubclass(kind, APIStatusError)),
        APIResponseError(EVIL),
        APIConnectionError(EVIL),
        PaginationError(EVIL),
        StreamInterruptedError(EVIL, KEY),
        WebhookVerificationError(EVIL),
    ]
    for error in errors:
        error.meta = meta
    return errors


@pytest.mark.parametrize("error", hostile(), ids=named)
def test_a_servers_control_characters_are_escaped(error: LeadLexError) -> None:
    """No terminal obeys what a server wrote into a message; the attributes have it as it was sent."""
    assert str(error).isprintable()
    assert repr(error).isprintable()
    assert r"\x1b[2J\r\nb" in str(error)
    if isinstance(error, APIStatusError):
        assert (error.message, error.code, error.body) == (EVIL, EVIL, EVIL)


def test_a_huge_message_is_cut() -> None:
    """A message of a server fills no log: at most 2 KiB of it are shown, and the cut is marked."""
    error = BadRequestError(400, "c" * 10_000, "m" * 1_000_000)
    assert len(str(error)) < 2048 + 100 + 300
    assert "m…" in str(error)


# Which class -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, BadRequestError),
        (401, "not_found", AuthenticationError),
        (402, None, InsufficientCreditsError),
        (403, None, PermissionDeniedError),
        (404, "conversation_not_found", NotFoundError),
        (409, None, ConflictError),
        (422, "validation_error", APIStatusError),
        (409, "idempotency_key_reused", ConflictError),
        (429, None, RateLimitError),
        (500, None, ServerError),
        (503, "insufficient_credits", ServerError),
        (599, None, ServerError),
        (200, "validation_error", BadRequestError),
        (200, "invalid_key", AuthenticationError),
        (200, "insufficient_credits", InsufficientCreditsError),
        (200, "insufficient_permissions", PermissionDeniedError),
        (200, "conversation_not_found", NotFoundError),
        (200, "not_found", NotFoundError),
        (200, "conflict", ConflictError),
        (200, "rate_limited", RateLimitError),
        (299, "internal_error", ServerError),
        (200, "overloaded", ServerError),
        (200, "timeout", ServerError),
        (200, "brand_new", APIStatusError),
        (200, None, APIStatusError),
    ],
)
def test_an_answer_becomes_the_class_of_its_status(status: int, code: str | None, kind: type[APIStatusError]) -> None:
    """The status decides; the code does only where an error came with a 2xx, as in a stream."""
    assert status_error_class(status, code) is kind


NEEDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "chat": ("lexi", lambda lexi: lexi.chat("Hi")),
    "stream_chat": ("write:ai", lambda lexi: lexi.stream_chat("Hi").final_reply()),
    "conversations": ("read:ai", lambda lexi: lexi.conversations().collect()),
    "conversation": ("read:ai", lambda lexi: lexi.conversation("conv_1")),
    "history": ("read:ai", lambda lexi: lexi.thread("conv_1").history()),
    "tasks": ("lexi", lambda lexi: lexi.tasks()),
    "approve_task": ("lexi", lambda lexi: lexi.approve_task("task_1")),
    "dismiss_task": ("lexi", lambda lexi: lexi.dismiss_task("task_1")),
    "wait_for_task": ("lexi", lambda lexi: lexi.wait_for_task("task_1")),
}


def test_every_call_that_needs_a_permission_is_tried() -> None:
    """Who adds a call can't forget its permission here."""
    calls = {name for name, call in vars(leadlex.AsyncLeadLex).items() if inspect.isfunction(call)}
    others = {"request", "thread", "with_options", "aclose"}
    forgotten = {name for name in calls if not name.startswith("_")} - others - {*NEEDS}
    assert not forgotten, f"add {forgotten} to NEEDS"


@pytest.mark.parametrize("call", NEEDS)
def test_a_missing_permission_is_named(runner: Runner, call: str) -> None:
    """A 403 tells which permission to give to the key, and that nothing was charged."""
    permission, make = NEEDS[call]

    async def scenario(lexi: Any) -> None:
        await make(lexi)

    with Sandbox(pace=0) as sandbox:
        with pytest.raises(PermissionDeniedError) as caught:
            runner.run(scenario, base_url=sandbox.url, api_key=sandbox.add_key([]))
        assert sandbox.charges == []
    assert (caught.value.permission, caught.value.charged) == (permission, "no")
    assert f"the permission {permission!r}" in str(caught.value)


def test_a_permission_that_is_not_known_is_not_made_up() -> None:
    """A 403 of an endpoint that leadlex has no method for says only that the key may not."""
    assert "permission None" not in str(PermissionDeniedError(403))
    assert "more permissions" in str(PermissionDeniedError(403))


# The key -----------------------------------------------------------------------------------------------------------


def echo(status: int) -> Any:
    """Script a server that repeats the caller's key wherever it can."""

    def script(connection: Connection) -> None:
        key = connection.receive_request().headers["authorization"]
        body = {"error": {"code": f"code {key}", "message": f"bad key: {key}"}, "key": key}
        connection.send(json_answer(status, body, {"X-Request-ID": key, "Location": f"http://other.example/{key}"}))

    return script


def echo_stream(connection: Connection) -> None:
    """Repeat the caller's key in an `error` event."""
    key = connection.receive_request().headers["authorization"]
    body = f'event: error\ndata: {{"code": "{key}", "message": "{key}"}}\n\n'.encode()
    connection.send(sse_head({"X-Request-ID": key}, length=len(body)) + body)


def echo_page(connection: Connection) -> None:
    """Repeat the caller's key in a page that is none of the API's."""
    key = connection.receive_request().headers["authorization"]
    connection.send(answer(200, f"<h1>{key}</h1>".encode(), {"Content-Type": f"text/html; {key}"}))


ECHOES = {
    **{f"status {status}": echo(status) for status in (200, 302, 400, 401, 403, 404, 429, 500)},
    "event": echo_stream,
    "page": echo_page,
}


@pytest.mark.row("L17")
@pytest.mark.parametrize("script", ECHOES)
def test_no_error_shows_the_key(runner: Runner, script: str) -> None:
    """A server that sends the key back gets it into no message, repr, attribute, header or pickle of an error."""

    async def scenario(lexi: Any) -> None:
        await lexi.stream_chat("Hi").final_reply()

    with ScriptedServer(ECHOES[script]) as server, pytest.raises(LeadLexError) as caught:
        runner.run(scenario, base_url=server.url, retries=0)
    shown = [str(caught.value), repr(caught.value), repr(vars(caught.value)), repr(caught.value.__cause__)]
    headers = caught.value.meta.headers if caught.value.meta else {}
    assert caught.value.meta is not None
    assert API_KEY not in " ".join([*shown, *headers.values()])
    assert API_KEY.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize("call", ["chat", "stream_chat"])
def test_what_the_caller_was_handling_is_left_alone(runner: Runner, call: str) -> None:
    """An exception of the user's own, in whose handling a call fails, keeps its traceback and explains nothing."""

    async def scenario(lexi: Any) -> None:
        try:
            raise socket.gaierror("a name of the user's own")  # the very case
        except OSError as mine:
            with pytest.raises(APIConnectionError) as caught:
                await (lexi.chat("Hi") if call == "chat" else lexi.stream_chat("Hi").final_reply())
            assert mine.__traceback__ is not None  # noqa: PT017  # it is not what is expected
            assert "host name" not in str(caught.value)
            assert caught.value.__context__ is not caught.value.__cause__

    with dead_port() as url:
        runner.run(scenario, base_url=url, retries=0)


def test_the_public_names_are_these_classes() -> None:
    """What is caught by its public name is what the library raises."""
    assert all(getattr(leadlex, kind.__name__) is kind for kind in PARENTS)
