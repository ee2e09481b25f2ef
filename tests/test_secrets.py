"""What people wrote, and the API key, are in no log and in no locals that tools collect, whatever ends a call."""

from __future__ import annotations

import html
import inspect
import json
import logging
import os
import signal
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import anyio
import attrs
import httpx
import loguru
import pytest
import rich.traceback
import sentry_sdk
import sentry_sdk.transport
import structlog.tracebacks

import leadlex
from leadlex._api_key import TELLING, ApiKey
from leadlex._network.translation import MAX_ERROR
from leadlex._portal.generator import PLAIN, RENAMED, SOURCES
from tests.matrix.oracles import Log, chain_of
from tests.support.lexi import Answer, Fault, LexiScript, Lost
from tests.support.runners import API_KEY, AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer

MARK = "Privileged" + "Roe"  # not whole in any line of source that a tool may show

# Every method that takes what people write -------------------------------------------------------------------------


def written(kind: type, name: str) -> tuple[str, ...]:
    """List the parameters of a method that are not known to be plain."""
    return tuple(each for each in inspect.signature(getattr(kind, name)).parameters if each not in {*PLAIN, "self"})


def methods(kinds: list[str]) -> list[tuple[str, str]]:
    """List the public methods that take what people write, of classes that a user calls."""
    offered = [(kind, name) for kind in kinds for name in vars(getattr(leadlex, kind)) if not name.startswith("_")]
    calls = [pair for pair in offered if inspect.isfunction(getattr(getattr(leadlex, pair[0]), pair[1]))]
    return [(kind, name) for kind, name in calls if written(getattr(leadlex, kind), name)]


METHODS = methods(list(SOURCES))
SENDING = [pair for pair in METHODS if pair[1] != "with_options"]

#: A value of each parameter, and one that can't be used; a parameter that is not here is not covered, and fails.
GOOD: dict[str, Callable[[], Any]] = {
    "message": lambda: MARK,
    "context": lambda: {"note": MARK},
    "search": lambda: MARK,
    "reason": lambda: MARK,
    "json": lambda: {"note": MARK},
    "params": lambda: {"note": MARK},
    "headers": lambda: {"X-Note": MARK},
    "api_key": lambda: f"wbk_{MARK}",
    "proxy": lambda: f"http://me:{MARK}@leadlex.invalid",
}
BAD: dict[str, Callable[[], Any]] = {
    "message": lambda: MARK + "\ud800",
    "context": lambda: {"note": MARK + "\ud800"},
    "search": lambda: MARK + "\ud800",
    "reason": lambda: MARK + "\ud800",
    "json": lambda: {"note": MARK + "\ud800"},
    "params": lambda: {"note": MARK + "\ud800"},
    "headers": lambda: {"X-Note": MARK + "\n"},
    "api_key": lambda: f"Bearer wbk_{MARK}",
    "base_url": lambda: f"https://me:{MARK}@leadlex.invalid",
    "proxy": lambda: f"ftp://me:{MARK}@leadlex.invalid",
}
NEEDED: dict[str, Any] = {"id": "task-uuid", "method": "POST", "path": "/v1/lexi/other"}


class Asked:
    """One call with a marked value in every parameter that people write; nothing here shows it.

    Args:
        kind: The class.
        name: The method.
        bad: The parameter whose value can't be used, if any.
    """

    def __init__(self, kind: str, name: str, bad: str | None = None) -> None:
        self._kind = kind
        self._name = name
        self._bad = bad

    def __call__(self, client: Any) -> Any:
        """Make the call."""
        return getattr(self._on(client), self._name)(**self._given())

    def _on(self, client: Any) -> Any:
        return client.thread(context=GOOD["context"]()) if self._kind.endswith("Thread") else client

    def _given(self) -> dict[str, Any]:
        kind = getattr(leadlex, self._kind)
        parameters = inspect.signature(getattr(kind, self._name)).parameters
        given = {name: NEEDED[name] for name in parameters if name in NEEDED}
        marked = {name: (BAD if name == self._bad else GOOD)[name]() for name in written(kind, self._name)}
        if self._bad == "context" and self._name == "thread":
            given["conversation_id"] = ""  # a thread's context is looked at when it is sent
        return {**given, **marked}


async def used(made: Any) -> None:
    """Use what a method of the async client gave."""
    made = await made if inspect.isawaitable(made) else made
    for finish in (getattr(made, name, None) for name in ("final_reply", "collect", "history")):
        if finish is not None:
            await (made.chat("Hi") if hasattr(made, "chat") else finish())


def used_here(made: Any) -> None:
    """Use what a method of the sync client gave."""
    for finish in (getattr(made, name, None) for name in ("final_reply", "collect", "history")):
        if finish is not None:
            made.chat("Hi") if hasattr(made, "chat") else finish()


# Tools -------------------------------------------------------------------------------------------------------------


def by_traceback(error: BaseException) -> str:
    """Show locals as the standard library does."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def by_rich(error: BaseException) -> str:
    """Show locals as rich does, which looks into attrs classes."""
    trace = rich.traceback.Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=99, locals_max_string=9999
    )
    return "\n".join(
        f"{name} = {value}"
        for stack in trace.stacks
        for frame in stack.frames
        for name, value in (frame.locals or {}).items()
    )


def by_structlog(error: BaseException) -> str:
    """Show locals as structlog does."""
    transformer = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=True, locals_max_length=99, locals_max_string=9999, max_frames=99
    )
    return repr(transformer((type(error), error, error.__traceback__)))


def by_loguru(error: BaseException) -> str:
    """Show the values of every name and attribute in a line, as loguru does."""
    told: list[str] = []
    number = loguru.logger.add(told.append, format="{exception}", diagnose=True, backtrace=True, catch=False)
    loguru.logger.opt(exception=error).error("It failed")
    loguru.logger.remove(number)
    return "".join(told)


class _Collector(sentry_sdk.transport.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep what would be sent."""
        self.told += [json.dumps(item.payload.json) for item in envelope.items]


def by_sentry(error: BaseException) -> str:
    """Send locals as Sentry's SDK does."""
    collector = _Collector()
    client = sentry_sdk.Client(
        dsn="https://key@sentry.invalid/1",
        transport=collector,
        default_integrations=False,
        include_local_variables=True,
        auto_session_tracking=False,
    )
    with sentry_sdk.new_scope() as scope:
        scope.set_client(client)
        scope.capture_exception(error)
    return "".join(collector.told)


TOOLS = [by_traceback, by_rich, by_structlog, by_loguru, by_sentry]


def check_tools(error: BaseException) -> None:
    """Assert that no tool finds a mark in an error, nor in the errors that led to it."""
    assert "leadlex" in by_traceback(error)
    for tool in TOOLS:
        told = tool(error)
        assert len(told) > 50, tool
        assert MARK not in told, f"{tool.__name__}: …{told[max(0, told.index(MARK) - 300) : told.index(MARK) + 50]}…"
    for each in chain_of(error):
        assert MARK not in repr(each)


def _fail(value: object) -> None:
    int(type(value).__name__)


def test_the_tools_see_what_there_is() -> None:
    """Every tool would find a mark in a frame, and rich and structlog one in a field of an attrs class."""
    for wrap in (str, attrs.make_class("Shown", ["value"], repr=False)):
        with pytest.raises(ValueError, match="int") as caught:
            _fail(wrap(MARK))
        seeing = {tool for tool in TOOLS if MARK in tool(caught.value)}
        assert seeing >= ({*TOOLS} if wrap is str else {by_rich, by_structlog})


# What ends a call ---------------------------------------------------------------------------------------------------

ENDINGS: dict[str, Fault] = {
    "lost": Lost("rst"),
    "refused": Answer(400, code="validation_error"),
    "late": Lost("stall"),
}
SHORT = leadlex.Timeout(total=0.15, first_event=0.15)


def spoiled(fault: Fault) -> LexiScript:
    """Make a Lexi that answers everything so."""
    return LexiScript(stream_fault=fault, chat_fault=fault, other_fault=fault, times=None)


def ended(runner: Runner, asked: Asked, **options: Any) -> BaseException:
    """Return what a call ended with."""

    async def main() -> BaseException:
        async with leadlex.AsyncLeadLex(**options) as lexi:
            try:
                await used(asked(lexi))
            except leadlex.LeadLexError as error:
                return error
        raise AssertionError("it went well")

    if runner.name != "sync":
        return runner.drive(main)
    with leadlex.LeadLex(**options) as lexi, pytest.raises(leadlex.LeadLexError) as caught:
        used_here(asked(lexi))
    return caught.value


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("kind", "name"), SENDING)
def test_what_was_asked_is_in_no_local(runner: Runner, kind: str, name: str, ending: str) -> None:
    """Of a call that fails, tools that collect locals and logs see nothing of what people wrote in it."""
    given: dict[str, Any] = {"api_key": API_KEY, "retries": 0, "timeout": SHORT if ending == "late" else 5}
    with ScriptedServer(spoiled(ENDINGS[ending])) as server, (log := Log()).collected():
        error = ended(runner, Asked(kind, name), base_url=server.url, **given)
        [sent] = server.requests
    assert MARK in sent.target + sent.body.decode()
    check_tools(error)
    assert MARK not in "\n".join(log.lines)
    assert log.lines


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [(kind, name, bad) for kind, name in METHODS for bad in written(getattr(leadlex, kind), name)],
)
def test_what_is_refused_is_in_no_local(runner: Runner, kind: str, name: str, bad: str) -> None:
    """Of an argument that can't be used, tools that collect locals see nothing, nor of those beside it."""
    error = ended(runner, Asked(kind, name, bad), api_key=API_KEY, base_url="https://leadlex.invalid")
    assert isinstance(error, leadlex.ConfigurationError)
    check_tools(error)


@pytest.mark.parametrize("kind", ["AsyncLeadLex", "LeadLex"])
@pytest.mark.parametrize("bad", written(leadlex.AsyncLeadLex, "__init__"))
def test_what_a_client_was_given_is_in_no_local(kind: str, bad: str) -> None:
    """Of a client that can't be made, tools that collect locals see no key, no header's value and no password."""
    options = {
        name: (BAD if name == bad else GOOD)[name] for name in written(leadlex.LeadLex, "__init__") if name in GOOD
    }
    with pytest.raises(leadlex.ConfigurationError) as caught:
        getattr(leadlex, kind)(**{name: make() for name, make in {**options, bad: BAD[bad]}.items()})
    check_tools(caught.value)


class Arrival:
    """A server that reads the head of a request, says so, perhaps after the head of an answer, and is silent."""

    def __init__(self, act: Callable[[], object], head: bytes = b"") -> None:
        self._act = act
        self._head = head

    def __call__(self, connection: Connection) -> None:
        """Serve one connection."""
        connection.receive_head()
        connection.send(self._head)
        self._act()
        connection.stall()


STAGES: dict[str, tuple[int, bytes]] = {
    "waiting": (1, b""),
    "writing": (400_000, b""),
    "reading": (1, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n"),
}
CLIENTS: dict[str, Callable[[], httpx.AsyncClient] | None] = {
    "own": None,
    "user's": httpx.AsyncClient,
    "aiohttp's": leadlex.aiohttp_client,
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["chat", "conversations"])
def test_what_was_asked_is_in_no_local_of_other_transports(client: str, name: str, ending: str) -> None:
    """A transport of the user's, or aiohttp's, keeps nothing of a call that fails either."""
    given: dict[str, Any] = {"api_key": API_KEY, "retries": 0, "timeout": SHORT if ending == "late" else 5}
    with ScriptedServer(spoiled(ENDINGS[ending])) as server:
        options = {"base_url": server.url, "http_client": CLIENTS[client], **given}
        check_tools(ended(AsyncRunner("asyncio"), Asked("AsyncLeadLex", name), **options))


#: With the own client everything, with others one call; aiohttp has no trio, and flushes what a cancelled call wrote.
CANCELLED: list[tuple[str, str, str, str, str]] = [
    *((backend, "own", stage, *pair) for backend in ("asyncio", "trio") for stage in STAGES for pair in SENDING),
    *((backend, "user's", stage, *SENDING[0]) for backend in ("asyncio", "trio") for stage in STAGES),
    *(("asyncio", "aiohttp's", stage, *SENDING[0]) for stage in ("waiting", "reading")),
]


@pytest.mark.parametrize(("backend", "client", "stage", "kind", "name"), CANCELLED)
def test_a_cancellation_carries_nothing(
    backend: str, client: str, stage: str, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is cancelled while it waits, writes or reads leaves nothing in the frames that it went through."""
    size, head = STAGES[stage]
    monkeypatch.setitem(GOOD, "json", lambda: {"note": MARK * size})
    if name != "stream_chat":
        monkeypatch.setitem(GOOD, "message", lambda: MARK * size)
    arrived, ends = threading.Event(), list[BaseException]()
    given: dict[str, Any] = {"api_key": API_KEY, "http_client": CLIENTS[client]}

    async def call(lexi: Any) -> None:
        try:
            await used(Asked(kind, name)(lexi))
        except BaseException as error:
            ends.append(error)
            check_tools(error)
            raise

    async def main(url: str) -> None:
        async with leadlex.AsyncLeadLex(**given, base_url=url) as lexi, anyio.create_task_group() as group:
            group.start_soon(call, lexi)
            await anyio.to_thread.run_sync(arrived.wait)
            group.cancel_scope.cancel()

    with ScriptedServer(Arrival(arrived.set, head)) as server:
        anyio.run(main, server.url, backend=backend)
    assert [type(end).__name__ for end in ends] == ["CancelledError" if backend == "asyncio" else "Cancelled"]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(("kind", "name"), methods([RENAMED[kind] for kind in SOURCES]))
def test_an_interrupt_carries_nothing(kind: str, name: str) -> None:
    """Ctrl-C during a call of the sync client leaves nothing in the frames that it went through."""
    if name == "with_options":
        return
    with (
        ScriptedServer(Arrival(lambda: os.kill(os.getpid(), signal.SIGINT))) as server,
        leadlex.LeadLex(API_KEY, base_url=server.url) as lexi,
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        used_here(Asked(kind, name)(lexi))
    check_tools(caught.value)


# Logs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, httpx.AsyncClient], ids=["own", "user's"])
def test_httpx_logs_no_query(runner: Runner, given: Any) -> None:
    """The line of httpx on a request of ours is there, without what was searched for, which is sent all the same."""

    async def scenario(lexi: Any) -> None:
        await lexi.conversations(search=MARK, user_id="user-1").first_page()

    with ScriptedServer(LexiScript()) as server, (log := Log()).collected():
        runner.run(scenario, base_url=server.url, http_client=given)
    [line] = [line for line in log.lines if "HTTP Request" in line]
    assert "GET" in line
    assert f"{server.url}/v1/lexi/conversations" in line
    assert "?" not in line
    assert MARK in server.requests[0].target


def test_other_requests_of_httpx_are_logged_as_ever() -> None:
    """A line of httpx on somebody else's request, and any other line of its logger, stays as it is."""
    with ScriptedServer(LexiScript()) as server, (log := Log()).collected():
        httpx.get(f"{server.url}/v1/lexi/tasks?status=open", trust_env=False)
        logging.getLogger("httpx").info("%(one)s", {"one": "as ever"})
    assert [line for line in log.lines if "?status=open" in line]
    assert [line for line in log.lines if "as ever" in line]


# The API key, echoed -----------------------------------------------------------------------------------------------

ODD_KEY = "wbk_live/Zk0+9=&x<y>'\"\\Q7" + "r5" * 9


def _by_code(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form.format(ord(char)) for char in text)


#: How an echo may write a key, and how that is read again.
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "JSON": json.dumps,
    "JSON with slashes": lambda text: json.dumps(text).replace("/", r"\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON, all of it": _by_code(r"\u{:04x}"),
    "JSON, all of it in capitals": _by_code(r"\u{:04X}"),
    "bytes": _by_code(r"\x{:02x}"),
    "URL": lambda text: urllib.parse.quote(text, safe=""),
    "URL in URL": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "URL, all of it": _by_code("%{:02x}"),
    "HTML": html.escape,
    "HTML in HTML": lambda text: html.escape(html.escape(text)),
    "HTML by numbers": _by_code("&#{};"),
    "HTML by long numbers": _by_code("&#x{:04X};"),
    "lower case": str.lower,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_key_is_masked(form: str) -> None:
    """However an echo writes the API key, nothing of it is left, and what stands around it is."""
    written = FORMS[form](ODD_KEY)
    masked = ApiKey(ODD_KEY).masked(f"İ {{{written}}} \\n %41 &amp; {written}")
    assert masked.startswith("İ {")
    assert " \\n %41 &amp; " in masked
    assert masked.count("wbk_…") == 2
    assert len(masked) <= len("İ {\"''wbk_…''\"} \\n %41 &amp; \"''wbk_…''\"") + 8  # quotes, of which some escaped


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_is_cut_is_masked(form: str) -> None:
    """Cut anywhere, by whomever, what is left of the API key is masked, but for what says no more than "a key"."""
    written, key = FORMS[form](ODD_KEY), ApiKey(ODD_KEY)
    for end in range(len(written) + 1):
        assert len(key.masked(written[:end])) <= len(FORMS[form](ODD_KEY[:TELLING])) + TELLING
    for count in range(TELLING, len(ODD_KEY)):
        assert len(key.masked(FORMS[form](ODD_KEY[:count])).strip("\"'\\")) == len("wbk_…")


def test_short_keys_and_other_texts() -> None:
    """A short API key is masked whole; a text without a key is the very same."""
    assert ApiKey("ab12").masked("Bearer ab12; ab1") == "Bearer wbk_…; ab1"
    for text in ("", "wbk_", "100 % & \\ \u2026", "Keys look like wbk_…", "\ud800"):
        assert ApiKey(ODD_KEY).masked(text) is text


def test_no_echo_of_the_key_gets_through(runner: Runner) -> None:
    """A page, a header, its name and a refusal that say the API key, escaped or cut, are handed on without it."""
    page = b"<p>Bearer ".ljust(MAX_ERROR - len(API_KEY) // 2, b"x") + API_KEY.encode() * 2
    escaped = "".join(f"\\u{ord(char):04x}" for char in API_KEY).encode()
    refusal = b'{"error": {"code": "invalid_key", "message": "Bad: ' + escaped + b'"}}'
    named = [(f"X-{API_KEY}", "1"), ("X-Echo", urllib.parse.quote(f"<{API_KEY}>")), ("X-Request-ID", API_KEY)]
    place = [("Location", f"https://me:secret@evil.example/?key={API_KEY}")]
    for answer in (
        Answer(502, page, named),
        Answer(401, refusal, named),
        Answer(302, b"", place),
        Answer(200, page, named),
    ):
        with ScriptedServer(spoiled(answer)) as server:
            error = ended(runner, Asked("AsyncLeadLex", "chat"), api_key=API_KEY, base_url=server.url, retries=0)
        assert isinstance(error, leadlex.APIStatusError | leadlex.APIResponseError)
        assert error.meta is not None
        told = [
            str(error),
            *vars(error).values(),
            error.meta.request_id,
            *error.meta.headers,
            *error.meta.headers.values(),
        ]
        assert API_KEY[:12] not in "".join(map(str, told))
        assert API_KEY[8:] not in "".join(map(str, told))
        assert "\\u0062" not in "".join(map(str, told))
        assert "secret" not in str(error)


@pytest.mark.parametrize("proxy", ["ftp://me:{}@x", "http://me:{}@[::1"])
def test_the_password_of_a_proxy_is_in_no_local(proxy: str, environ: MutableMapping[str, str]) -> None:
    """Of a proxy that can't be used, tools that collect locals see no password."""
    environ["HTTPS_PROXY"] = proxy.format(MARK)
    del environ  # it would be a local that has it
    for kind in (leadlex.AsyncLeadLex, leadlex.LeadLex):
        with pytest.raises(leadlex.ConfigurationError, match=r"(?i)proxy") as caught:
            kind(API_KEY, base_url="https://leadlex.invalid")
        check_tools(caught.value)
