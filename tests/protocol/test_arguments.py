"""What can't be right is refused before anything is sent, in words that tell what would be."""

from __future__ import annotations

import inspect
import traceback
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import httpx
import pytest

import leadlex
from leadlex import ConfigurationError, NotFoundError, RetryPolicy, Timeout
from leadlex._api_key import ApiKey
from leadlex._config import whole
from leadlex._settings import base_url_of, is_loopback
from tests.support.answers import error_answer, json_answer
from tests.support.journal import Request
from tests.support.lexi import CHAT, LexiScript
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, ScriptedServer, per_request

LIBRARY = str(Path(leadlex.__file__).parent)
SECRET = "privileged-merger-of-acme"
UUID = "0B2AD1B1-1C0C-4ED3-8F7F-2F9D1A3F9C55"

Call = Callable[[Any], Any]
Case = tuple[Any, tuple[str, ...]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Start a server that knows nothing and counts who comes."""
    with ScriptedServer(per_request(refuse)) as server:
        yield server


def refuse(connection: Connection, _: Request) -> None:
    """Answer that there is no such thing."""
    connection.send(error_answer(404, "not_found"))


def refusal(runner: Runner, server: ScriptedServer, call: Call | None = None, **options: Any) -> ConfigurationError:
    """Make a client and perhaps a call, and return what is said against it; nobody must have been asked."""

    async def scenario(lexi: Any) -> None:
        if call is not None:
            await call(lexi)

    with pytest.raises(ConfigurationError) as caught:
        runner.run(scenario, **{"base_url": server.url, **options})
    assert server.connections == 0
    assert caught.value.charged == "no"
    assert API_KEY not in str(caught.value)
    return caught.value


def assert_says(error: ConfigurationError, words: tuple[str, ...]) -> None:
    """Look for the argument, its limit and what was given, in one printable line that is not long."""
    assert [word for word in words if word not in str(error)] == []
    assert str(error).isprintable()
    assert len(str(error)) < 300


# Options -----------------------------------------------------------------------------------------------------------

BAD_KEYS: dict[str, Case] = {
    "empty": ("", ("api_key", "wbk_…", "empty")),
    "white space": (" \n\t", ("api_key", "wbk_…", "empty")),
    "bytes": (b"wbk_" + SECRET.encode(), ("api_key", "a str", "bytes")),
    "number": (5, ("api_key", "a str", "int")),
    "space inside": (f"wbk_ {SECRET}", ("api_key", "without white space")),
    "Bearer": (f"Bearer wbk_{SECRET}", ("api_key", "the key alone", "Bearer")),
    "bearer": (f"bearer wbk_{SECRET}", ("api_key", "the key alone", "Bearer")),
    "CR LF": (f"wbk_\r\nX-Evil: {SECRET}", ("api_key", "printable ASCII")),
    "NUL": (f"wbk_\0{SECRET}", ("api_key", "printable ASCII")),
    "TAB": (f"wbk_\t{SECRET}", ("api_key", "printable ASCII")),
    "DEL": (f"wbk_\x7f{SECRET}", ("api_key", "printable ASCII")),
    "non-ASCII": (f"wbk_ü{SECRET}", ("api_key", "printable ASCII")),
    "surrogate": (f"wbk_\ud800{SECRET}", ("api_key", "printable ASCII")),
    "quotes": (f'"wbk_{SECRET}"', ("api_key", "the key alone", "quotation marks")),
    "one quote": (f"wbk_{SECRET}'", ("api_key", "the key alone", "quotation marks")),
    "round quotes": (f"“wbk_{SECRET}”", ("api_key", "the key alone", "quotation marks")),
    "quotes alone": ('""', ("api_key", "wbk_…", "empty")),
    "assignment": (f"LEADLEX_API_KEY=wbk_{SECRET}", ("api_key", "the key alone", "name of the variable")),
    "webhook": (f"whsec_{SECRET}", ("api_key", "wbk_…", "secret of a webhook")),
    **{
        text: (text, ("api_key", "wbk_…", "a placeholder"))
        for text in (
            *("wbk_your_api_key_here", "your-api-key", "YOUR_API_KEY", "wbk_placeholder", "changeme", "wbk_change_me"),
            *("${LEADLEX_API_KEY}", "$LEADLEX_API_KEY", "%LEADLEX_API_KEY%", "{{ api_key }}", "<api key>", "[key]"),
            *("wbk_", "wbk_…", "wbk_...", "wbk_xxxxxxxxxxxxxxxx", "wbk_XXXX-XXXX", "wbk_********", "LEADLEX_API_KEY"),
        )
    },
    **{
        prefix: (prefix + SECRET, ("api_key", "wbk_…", "another service's"))
        for prefix in ("sk-", "sk-ant-", "sk_live_", "pk_test_", "ghp_", "github_pat_", "xoxb-", "AIza", "AKIA", "hf_")
    },
}


@pytest.mark.row("L01", "L02")
@pytest.mark.parametrize("case", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_no_header_can_carry_is_refused(runner: Runner, server: ScriptedServer, case: Case) -> None:
    """A key that was pasted wrongly is refused at once, and nothing of it is repeated."""
    key, words = case
    error = refusal(runner, server, api_key=key)
    assert_says(error, words)
    assert SECRET not in seen_by_a_debugger(error)


@pytest.mark.row("L01")
@pytest.mark.parametrize(("given", "sent"), [(f"  {API_KEY}\r\n", API_KEY), ("other-prefix_1", "other-prefix_1")])
def test_a_key_is_sent_without_the_white_space_around_it(runner: Runner, given: str, sent: str) -> None:
    """The line end of a file does no harm; a key of an unknown look is the service's to judge, its 401 is explained."""

    def deny(connection: Connection, _: Request) -> None:
        connection.send(error_answer(401, "invalid_key"))

    async def scenario(lexi: Any) -> None:
        await lexi.tasks()

    with ScriptedServer(per_request(deny)) as server:
        with pytest.raises(leadlex.AuthenticationError, match=r"Keys look like wbk_…"):
            runner.run(scenario, base_url=server.url, api_key=given)
        assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {sent}"]


def test_a_missing_key_says_how_to_get_one(
    runner: Runner, server: ScriptedServer, environ: MutableMapping[str, str]
) -> None:
    """The first error that a new user meets is a guide: where keys are made, where to put one, how to try without."""
    environ.pop("LEADLEX_API_KEY", None)
    assert_says(
        refusal(runner, server, api_key=None), ("wbk_…", "Settings", "LEADLEX_API_KEY", "api_key=", "LeadLex.sandbox()")
    )


BAD_URLS: dict[str, Case] = {
    **{
        text: (text, ("base_url", limit))
        for limit, texts in {
            "begin with https://": (
                "",
                "data.leadlex.com",
                "https:x",
                "//x",
                "ftp://x",
                "file:///etc/hosts",
                "https:/x",
            ),
            "user name or password": (f"https://me:{SECRET}@data.leadlex.com", f"http://{SECRET}@127.0.0.1:PORT"),
            "host or port": ("https://", "https://x:99999", "https://x:0", "https://x:", "https://-", "https://a..b"),
            "only https": (
                "http://data.leadlex.com",
                "http://localhost.evil.example",
                "http://127.0.0.1.evil.example",
                "http://10.0.0.1",
                "http://[::ffff:8.8.8.8]",
                "http://0x7f.1",
            ),
            "printable ASCII": (
                "https://x y",
                " https://x",
                "https://x\n",
                "https://x\t",
                "https://exämple.com",
                "h\0",
            ),
            "a plain path": ("https://x/?a=1", "https://x/#a", "https://x/../y", "https://x/./y", "https://x/%2e"),
        }.items()
        for text in texts
    },
    "bad address": ("https://[::1", ("base_url",)),
    "no address": ("https://[zz]", ("base_url",)),
    "no real address": ("https://[1:2]", ("base_url",)),
    "bytes": (b"https://x", ("base_url", "a str", "bytes")),
}


@pytest.mark.row("L09", "L11", "L21")
@pytest.mark.parametrize("case", BAD_URLS.values(), ids=map(repr, BAD_URLS))
def test_a_base_url_that_could_lose_the_key_is_refused(runner: Runner, server: ScriptedServer, case: Case) -> None:
    """The key goes to a host that was named plainly, over https; only this very machine may be asked without."""
    url, words = case
    given = url.replace("PORT", str(server.port)) if isinstance(url, str) else url
    error = refusal(runner, server, base_url=given)
    assert_says(error, words)
    assert SECRET not in str(error)


@pytest.mark.row("L11", "L21")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_this_machine_may_be_asked_without_tls(runner: Runner, server: ScriptedServer, host: str) -> None:
    """A test server on a loopback address needs no certificate."""
    with pytest.raises(NotFoundError):
        runner.run(ask_for_tasks, base_url=f"http://{host}:{server.port}/")
    assert server.requests[0].path == "/v1/lexi/tasks"


async def ask_for_tasks(lexi: Any) -> None:
    """Make the plainest call."""
    await lexi.tasks()


def test_the_environment_is_checked_as_arguments_are(
    runner: Runner, server: ScriptedServer, environ: MutableMapping[str, str]
) -> None:
    """A slip in a deployment's settings is told like one in the program."""
    environ["LEADLEX_BASE_URL"] = "http://data.leadlex.com"
    assert_says(refusal(runner, server, base_url=None), ("base_url", "only https"))
    environ["LEADLEX_API_KEY"] = "Bearer x"
    assert_says(refusal(runner, server, api_key=None), ("api_key", "Bearer"))
    environ["LEADLEX_LOG"] = "loud"
    assert_says(refusal(runner, server), ("LEADLEX_LOG", "debug, info, warning, error"))


@pytest.mark.row("L21")
@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.1.2.3", True), ("[::1]", True), ("[::ffff:8.8.8.8]", False), ("localhost.", False), ("0.0.0.0", False)],  # noqa: S104
)
def test_this_machine_is_told_by_its_parsed_address(host: str, ours: bool) -> None:  # noqa: FBT001  # a table's column
    """A name that only looks like this machine's is another machine's."""
    assert is_loopback(host) is ours


def test_an_address_is_checked_where_urlsplit_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.11.4 Python took anything in brackets for an address."""
    parts = SplitResult("https", "[1:2]", "", "", "")
    monkeypatch.setattr("leadlex._settings.urlsplit", lambda _: parts)
    with pytest.raises(ConfigurationError, match="its host or port is not valid"):
        base_url_of("https://[1:2]", {}, ApiKey("wbk_x"))


BAD_HEADERS: dict[str, Case] = {
    "CR LF in a value": ({"X-A": f"a\r\nX-Evil: {SECRET}"}, ("headers['X-A']", "printable ASCII")),
    "CR LF in a name": ({f"X-A\r\nX-Evil: {SECRET}": "a"}, ("headers", "names that HTTP allows")),
    "empty name": ({"": "a"}, ("headers", "names that HTTP allows")),
    "empty value": ({"X-A": ""}, ("headers['X-A']", "printable ASCII")),
    "space before": ({"X-A": f" {SECRET}"}, ("headers['X-A']", "printable ASCII")),
    "NUL": ({"X-A": f"\0{SECRET}"}, ("headers['X-A']", "printable ASCII")),
    "non-ASCII": ({"X-A": f"ü{SECRET}"}, ("headers['X-A']", "printable ASCII")),
    "number": ({"X-A": 5}, ("headers['X-A']", "printable ASCII")),
    "bytes": ({b"X-A": "a"}, ("headers", "names that HTTP allows")),
    "list": ([("X-A", "a")], ("headers", "a mapping", "list")),
    **{
        name: ({name: SECRET}, ("headers", "none of leadlex's own", name))
        for name in ("Authorization", "HOST", "content-length", "Transfer-Encoding", "Idempotency-Key")
    },
}


@pytest.mark.row("L04")
@pytest.mark.parametrize("case", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_an_extra_header_that_is_none_is_refused(runner: Runner, server: ScriptedServer, case: Case) -> None:
    """Extra headers can neither break a request in two nor replace what leadlex answers for."""
    headers, words = case
    error = refusal(runner, server, headers=headers)
    assert_says(error, words)
    assert SECRET not in str(error)


NO_SECONDS = {
    "0": (0, ("above 0", "0")),
    "negative": (-1.5, ("above 0", "-1.5")),
    "nan": (float("nan"), ("above 0", "nan")),
    "inf": (float("inf"), ("above 0", "inf")),
    "huge": (10**9, ("at most a year", "1000000000")),
    "5,000 digits": (10**5000, ("at most a year",)),
    "text": ("5", ("a number of seconds", "str")),
    "True": (True, ("a number of seconds", "bool")),
    "list": ([5], ("a number of seconds", "list")),
}
NO_RETRIES = {
    "-1": (-1, ("from 0 to 9", "-1")),
    "10": (10, ("from 0 to 9", "10")),
    "5,000 digits": (10**5000, ("from 0 to 9", "a huge one")),
    "True": (True, ("from 0 to 9", "bool")),
    "float": (2.0, ("from 0 to 9", "float")),
    "text": ("2", ("from 0 to 9", "str")),
}
_OtherClient = type("AsyncClient", (), {"__module__": "httpx2._client"})
BAD_OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    **{f"timeout {name}": ({"timeout": value}, ("timeout", *words)) for name, (value, words) in NO_SECONDS.items()},
    "timeout None": ({"timeout": None}, ("timeout", "Timeout(total=None)", "None")),
    **{f"retries {name}": ({"retries": value}, ("retries", *words)) for name, (value, words) in NO_RETRIES.items()},
    "retries None": ({"retries": None}, ("retries", "from 0 to 9", "NoneType")),
    "resume": ({"resume": 1}, ("resume", "True or False", "int")),
}
BAD_CLIENT_OPTIONS = {
    **BAD_OPTIONS,
    "max_connections 0": ({"max_connections": 0}, ("max_connections", "from 1 to 100000", "0")),
    "max_connections huge": ({"max_connections": 100_001}, ("max_connections", "from 1 to 100000", "100001")),
    "max_connections True": ({"max_connections": True}, ("max_connections", "from 1 to 100000", "bool")),
    "http_client": ({"http_client": "proxy"}, ("http_client", "httpx.AsyncClient", "str")),
    "other http_client": ({"http_client": _OtherClient()}, ("http_client", "httpx.AsyncClient", "httpx2.AsyncClient")),
    "sync http_client": ({"http_client": httpx.Client()}, ("http_client", "httpx.AsyncClient", "Client")),
}


@pytest.mark.row("L24")
@pytest.mark.parametrize("case", BAD_CLIENT_OPTIONS.values(), ids=BAD_CLIENT_OPTIONS)
def test_an_option_out_of_its_range_is_refused(
    runner: Runner, server: ScriptedServer, case: tuple[dict[str, Any], tuple[str, ...]]
) -> None:
    """No clock and no count is taken that could wait for ever, never, or without end."""
    options, words = case
    assert_says(refusal(runner, server, **options), words)


@pytest.mark.parametrize("make", [_OtherClient, lambda: None, httpx.Client], ids=["httpx2", "nothing", "sync"])
def test_a_function_that_makes_no_client_is_refused(runner: Runner, server: ScriptedServer, make: Any) -> None:
    """What a function makes is looked at when it is made: no call is sent by a client that is none."""

    async def scenario(lexi: Any) -> None:
        for call in (lexi.chat, lexi.conversation):
            with pytest.raises(ConfigurationError, match=r"http_client must be an httpx\.AsyncClient or") as caught:
                await call("conv_1")
            assert caught.value.charged == "no"

    runner.run(scenario, base_url=server.url, http_client=make)
    assert not server.requests


@pytest.mark.row("L24")
@pytest.mark.parametrize("case", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_with_options_checks_as_the_client_does(
    runner: Runner, server: ScriptedServer, case: tuple[dict[str, Any], tuple[str, ...]]
) -> None:
    """A copy's options are held to the same limits."""
    options, words = case

    async def call(lexi: Any) -> None:
        await lexi.with_options(**options).tasks()

    assert_says(refusal(runner, server, call), words)


@pytest.mark.row("L24")
@pytest.mark.parametrize("clock", ["connect", "write", "pool", "first_event", "idle", "event_idle", "total"])
@pytest.mark.parametrize("case", NO_SECONDS.values(), ids=NO_SECONDS)
def test_each_clock_is_checked(clock: str, case: Case) -> None:
    """A `Timeout` that can't be kept can't be made; the message names its clock."""
    value, words = case
    with pytest.raises(ConfigurationError) as caught:
        Timeout(**{clock: value})
    assert_says(caught.value, (f"timeout.{clock}", *words))


@pytest.mark.row("L24")
@pytest.mark.parametrize("name", ["base", "throttle_base", "cap", "floor", "max_hint", "window"])
@pytest.mark.parametrize("case", NO_SECONDS.values(), ids=NO_SECONDS)
def test_each_pause_is_checked(name: str, case: Case) -> None:
    """A `RetryPolicy` that waits for ever, or never, can't be made."""
    value, words = case
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**{name: value})
    assert_says(caught.value, (f"retries.{name}", *words))


@pytest.mark.row("L24")
@pytest.mark.parametrize("case", NO_RETRIES.values(), ids=NO_RETRIES)
def test_the_count_of_a_policy_is_checked(case: Case) -> None:
    """A policy repeats 0 to 9 times, as the plain number does."""
    value, words = case
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(retries=value)
    assert_says(caught.value, ("retries", *words))


# Messages ----------------------------------------------------------------------------------------------------------

DEEP: list[Any] = []
inner = DEEP
for _ in range(100_000):
    inner.append([])
    inner = inner[0]
CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE

ASKING: dict[str, Call] = {
    "chat": lambda lexi: lexi.chat,
    "stream_chat": lambda lexi: lambda *args, **named: lexi.stream_chat(*args, **named).final_reply(),
    "thread.chat": lambda lexi: lexi.thread().chat,
    "thread.stream_chat": lambda lexi: lambda *args, **named: lexi.thread().stream_chat(*args, **named).final_reply(),
}
STREAMING = ("stream_chat", "thread.stream_chat")

BAD_MESSAGES: dict[str, Case] = {
    "empty": ("", ("message", "more than white space", "0 characters")),
    "white space": (" \n\u2003", ("message", "more than white space", "3 characters")),
    "surrogate": (f"{SECRET}\ud800", ("message", "UTF-8", "a lone surrogate")),
    "10 MB": (SECRET * 400_000, ("at most", "given: 10000")),
    "None": (None, ("message", "a str", "NoneType")),
    "bytes": (SECRET.encode(), ("message", "a str", "bytes")),
    "dict": (CYCLE, ("message", "a str", "dict")),
}


@pytest.mark.row("L22")
@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("case", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_a_message_that_cant_be_sent_is_refused(runner: Runner, server: ScriptedServer, ask: str, case: Case) -> None:
    """A message is text with something in it; nothing of it is repeated, not even to a tool that shows locals."""
    message, words = case
    error = refusal(runner, server, lambda lexi: ASKING[ask](lexi)(message))
    assert_says(error, words)
    assert SECRET not in seen_by_a_debugger(error)


@pytest.mark.parametrize("ask", STREAMING)
def test_a_long_message_is_refused_on_a_stream(runner: Runner, server: ScriptedServer, ask: str) -> None:
    """The stream takes 12,000 characters, and the message says how many were given."""
    message = (SECRET * 1000)[:12_001]
    error = refusal(runner, server, lambda lexi: ASKING[ask](lexi)(message))
    assert_says(error, ("message", "at most 12000 characters", "12001 characters"))
    assert SECRET not in seen_by_a_debugger(error)


@pytest.mark.row("L22")
@pytest.mark.parametrize(("ask", "length"), [("chat", 12_001), ("stream_chat", 12_000)])
def test_what_is_within_the_limits_is_sent_as_it_is(runner: Runner, ask: str, length: int) -> None:
    """Control characters, NUL and characters beyond the first plane are text, and are counted as characters."""
    message = ("🙂\0\r\n\x1b" * length)[:length]
    with ScriptedServer(per_request(refuse)) as server:
        with pytest.raises(NotFoundError):
            runner.run(lambda lexi: awaited(ASKING[ask](lexi)(message)), base_url=server.url)
        assert server.requests[0].json["message"] == message


async def awaited(made: Any) -> None:
    """Await what a call made."""
    await made


def seen_by_a_debugger(error: BaseException) -> str:
    """Collect what a tool that reports locals would see of an error, in the library's own frames."""
    found = [str(error), repr(error), repr(error.args), repr(vars(error))]
    found += [repr(getattr(error, "object", ""))]  # a UnicodeEncodeError keeps the whole text
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
    found += [repr(frame.locals) for frame in frames if frame.filename.startswith(LIBRARY)]
    for inner in {error.__cause__, error.__context__} - {None}:
        assert inner is not None
        found.append(seen_by_a_debugger(inner))
    return "\n".join(found)


def test_the_debugger_sees_what_there_is() -> None:
    """The check would find a text in a local, in the cause of an error and in a `UnicodeEncodeError`."""
    with pytest.raises(ConfigurationError) as caught:
        whole(SECRET, "limit", 1, 2)
    assert SECRET in seen_by_a_debugger(caught.value)
    caught.value.__traceback__ = None
    assert SECRET not in seen_by_a_debugger(caught.value)
    caught.value.__context__ = UnicodeEncodeError("utf-8", SECRET, 0, 1, "odd")
    assert SECRET in seen_by_a_debugger(caught.value)


# Other arguments ---------------------------------------------------------------------------------------------------

BAD_IDS: dict[str, Case] = {
    "empty": ("", ("an id", "''")),
    "dot": (".", ("an id", "'.'")),
    "dots": ("..", ("an id", "'..'")),
    "white space": (" ", ("an id", "' '")),
    "NUL": ("a\0b", ("without control characters",)),
    "newline": ("a\nb", ("without control characters",)),
    "surrogate": ("a\ud800", ("UTF-8", "a lone surrogate")),
    "10 MB": ("a" * 10_000_000, ("at most 1024 characters", "10000000 characters")),
    "number": (7, ("a str", "int")),
    "bytes": (b"conv", ("a str", "bytes")),
}
TAKING_IDS: dict[str, Callable[[Any, Any], Any]] = {
    "conversation": lambda lexi, given: lexi.conversation(given),
    "approve_task": lambda lexi, given: lexi.approve_task(given),
    "dismiss_task": lambda lexi, given: lexi.dismiss_task(given),
    "wait_for_task": lambda lexi, given: lexi.wait_for_task(given),
    "thread": lambda lexi, given: lexi.thread(given).history(),
    "chat": lambda lexi, given: lexi.chat("Hi", conversation_id=given),
    "chat's context": lambda lexi, given: lexi.chat("Hi", context={"conversation_id": given}),
    "stream_chat": lambda lexi, given: lexi.stream_chat("Hi", conversation_id=given).final_reply(),
}


#: What stands before and after an id in the path of a call.
PLACES: dict[str, tuple[str, str]] = {
    "conversation": ("/v1/lexi/conversations/", ""),
    "thread": ("/v1/lexi/conversations/", ""),
    "approve_task": ("/v1/lexi/tasks/", "/approve"),
    "dismiss_task": ("/v1/lexi/tasks/", "/dismiss"),
}


def taking(*names: str) -> set[str]:
    """Name the client's calls that have one of these parameters."""
    calls = {name: call for name, call in vars(leadlex.AsyncLeadLex).items() if inspect.isfunction(call)}
    return {name for name, call in calls.items() if {*names} & {*inspect.signature(call).parameters}}


def test_every_call_that_takes_an_id_is_tried() -> None:
    """Who adds a call can't forget its id here."""
    forgotten = taking("id", "conversation_id") - {*TAKING_IDS}
    forgotten |= taking("id") - {*PLACES, "wait_for_task"}  # which has no path of its own
    assert not forgotten, f"add {forgotten} to TAKING_IDS, and with the path to PLACES"


@pytest.mark.row("L12")
@pytest.mark.parametrize("taking", TAKING_IDS)
@pytest.mark.parametrize("case", BAD_IDS.values(), ids=BAD_IDS)
def test_an_id_that_is_none_is_refused(runner: Runner, server: ScriptedServer, taking: str, case: Case) -> None:
    """What can't be an id of anything is refused wherever an id is taken."""
    given, words = case
    assert_says(refusal(runner, server, lambda lexi: TAKING_IDS[taking](lexi, given)), ("id", *words))


@pytest.mark.row("L12", "L13")
@pytest.mark.parametrize(
    ("given", "segment"),
    [
        ("../../admin", "..%2F..%2Fadmin"),
        ("/etc/passwd", "%2Fetc%2Fpasswd"),
        ("//evil.example/x", "%2F%2Fevil.example%2Fx"),
        ("https://evil.example", "https%3A%2F%2Fevil.example"),
        ("a?x=1", "a%3Fx%3D1"),
        ("a#b", "a%23b"),
        ("%2e%2e", "%252e%252e"),
        ("a b", "a%20b"),
        ("...", "..."),
        ("é", "%C3%A9"),
        ("~a-b_c.d", "~a-b_c.d"),
    ],
)
@pytest.mark.parametrize("call", PLACES)
def test_an_id_cant_leave_its_place(
    runner: Runner, server: ScriptedServer, call: str, given: str, segment: str
) -> None:
    """Whatever an id has in it, it stays one segment of the path, on the host that was configured."""
    before, after = PLACES[call]
    with pytest.raises(NotFoundError):
        runner.run(lambda lexi: awaited(TAKING_IDS[call](lexi, given)), base_url=server.url)
    assert [request.path for request in server.requests] == [before + segment + after]


def listing(**filters: Any) -> Call:
    """Make a call that lists conversations."""
    return lambda lexi: lexi.conversations(**filters).collect()


def reading(limit: Any) -> Call:
    """Make a call that reads a conversation."""
    return lambda lexi: lexi.conversation("c", limit=limit)


def requesting(path: str) -> Call:
    """Make a call to an endpoint of one's own."""
    return lambda lexi: lexi.request("GET", path)


NO_COUNTS = {
    "0": 0,
    "-1": -1,
    "101": 101,
    "1000000000": 10**9,
    "bool": True,
    "float": 5.0,
    "NoneType": None,
    "str": "5",
}

BAD_CALLS: dict[str, tuple[Call, tuple[str, ...]]] = {
    **{f"per_page {said}": (listing(per_page=n), ("per_page", "1 to 100", said)) for said, n in NO_COUNTS.items()},
    **{
        f"page {said}": (listing(page=n), ("page", "from 1", said))
        for said, n in (("0", 0), ("-1", -1), ("bool", True))
    },
    **{
        f"limit {said}": (reading(n), ("limit", "1 to 1000", said))
        for said, n in (("0", 0), ("1001", 1001), ("bool", True), ("NoneType", None))
    },
    "history's limit": (lambda lexi: lexi.thread("c").history(limit=0), ("limit", "1 to 1000", "0")),
    "collect's limit": (lambda lexi: lexi.conversations().collect(limit=0), ("limit", "from 1", "0")),
    "search": (lambda lexi: lexi.conversations(search=5).collect(), ("search", "a str", "int")),
    "search surrogate": (lambda lexi: lexi.conversations(search="\ud800").collect(), ("search", "UTF-8", "surrogate")),
    "user_id": (lambda lexi: lexi.conversations(user_id=5).collect(), ("user_id", "a str", "int")),
    "archived": (lambda lexi: lexi.conversations(archived=1).collect(), ("archived", "True or False", "int")),
    "include_tool_steps": (
        lambda lexi: lexi.conversation("c", include_tool_steps="yes"),
        ("include_tool_steps", "True or False", "str"),
    ),
    "status": (lambda lexi: lexi.tasks(status=None), ("status", "a str", "NoneType")),
    "reason": (lambda lexi: lexi.dismiss_task("t", reason=5), ("reason", "a str", "int")),
    "allow_tools": (
        lambda lexi: lexi.stream_chat("Hi", allow_tools=None).final_reply(),
        ("allow_tools", "True or False", "NoneType"),
    ),
    "wait's timeout": (lambda lexi: lexi.wait_for_task("t", timeout=0), ("timeout", "above 0", "0")),
    "wait's interval": (
        lambda lexi: lexi.wait_for_task("t", poll_interval=float("nan")),
        ("poll_interval", "above 0", "nan"),
    ),
    "context list": (lambda lexi: lexi.chat("Hi", context=["list_id"]), ("context", "a mapping", "list")),
    "context keys": (lambda lexi: lexi.chat("Hi", context={5: "x"}), ("context", "str keys", "dict")),
    "context of the stream": (
        lambda lexi: lexi.chat("Hi", context={"deal_id": "d", "list_id": "l", "page": "p", "own": 1}),
        ("context", "what chat takes (list_id, campaign_id, conversation_id)", "keys of your own", "deal_id, page"),
    ),
    "context of chat": (
        lambda lexi: lexi.stream_chat("Hi", context={"list_id": "l"}).final_reply(),
        ("context", "what stream_chat takes (contact_id, deal_id,", "keys of your own", "given: list_id."),
    ),
    "context cycle": (lambda lexi: lexi.chat("Hi", context=CYCLE), ("context", "JSON can hold")),
    "context object": (lambda lexi: lexi.chat("Hi", context={"a": object()}), ("context", "JSON can hold")),
    "context UUID": (
        lambda lexi: lexi.chat("Hi", context={"conversation_id": "c", "list_id": uuid.UUID(UUID)}),
        ("context['list_id'] must be", "JSON can hold", "a str (as ids are)", "given: UUID"),
    ),
    "stream's context UUID": (
        lambda lexi: lexi.stream_chat("Hi", context={"entities": [{"id": "a"}, {"id": uuid.UUID(UUID)}]}).final_reply(),
        ("context['entities'][1]['id'] must be", "given: UUID"),
    ),
    "thread's context UUID": (
        lambda lexi: lexi.thread(context={"list_id": uuid.UUID(UUID)}).chat("Hi"),
        ("context['list_id'] must be", "given: UUID"),
    ),
    "context key": (
        lambda lexi: lexi.chat("Hi", context={"a": {"b": {(1, 2): 3}}}),
        ("context['a']['b'] must be", "given: a key of type tuple"),
    ),
    "context depth": (lambda lexi: lexi.chat("Hi", context={"a": DEEP}), ("context", "JSON can hold")),
    "context long key": (
        lambda lexi: lexi.chat("Hi", context={"a" * 5000 + "\n": b""}),
        ("context['aaa", "JSON can hold", "given: bytes"),
    ),
    "json inside": (
        lambda lexi: lexi.request("POST", "/v1/x", json=[{"json": [1, float("inf")]}]),
        ("json[0]['json'][1] must be", "given: inf"),
    ),
    "context NaN": (
        lambda lexi: lexi.stream_chat("Hi", context={"a": float("nan")}).final_reply(),
        ("context['a']", "JSON can hold", "nan"),
    ),
    "context surrogate": (lambda lexi: lexi.chat("Hi", context={"a": "\udfff"}), ("context", "a lone surrogate")),
    "two conversations": (
        lambda lexi: lexi.chat("Hi", conversation_id="a", context={"conversation_id": "b"}),
        ("conversation_id", "context['conversation_id']", "two different ones"),
    ),
    "method": (lambda lexi: lexi.request("TRACE", "/v1/x"), ("method", "GET", "'TRACE'")),
    "method type": (lambda lexi: lexi.request(None, "/v1/x"), ("method", "GET", "NoneType")),
    **{
        f"path {path}": (requesting(path), ("path", "absolute path", repr(path)))
        for path in (
            "v1/x",
            "",
            "/",
            "//evil.example/x",
            "https://evil.example/x",
            "/v1/../admin",
            "/v1/%2e%2E/admin",
            "/v1/./x",
            "/v1/x?a=1",
            "/v1/x#a",
            "/v1/a b",
            "/v1/é",
            "/v1\\x",
            "/v1/x\r\n",
            "/v1//x",
        )
    },
    "path type": (lambda lexi: lexi.request("GET", None), ("path", "a str", "NoneType")),
    "json": (lambda lexi: lexi.request("POST", "/v1/x", json={1, 2}), ("json", "JSON can hold")),
    "params": (lambda lexi: lexi.request("GET", "/v1/x", params=[("a", "b")]), ("params", "a mapping", "list")),
    "params values": (lambda lexi: lexi.request("GET", "/v1/x", params={"a": []}), ("params", "a mapping", "list")),
    "params huge": (lambda lexi: lexi.request("GET", "/v1/x", params={"a": 10**5000}), ("params", "a huge one")),
    "params inf": (lambda lexi: lexi.request("GET", "/v1/x", params={"a": float("-inf")}), ("params", "a huge one")),
    "params nan": (lambda lexi: lexi.request("GET", "/v1/x", params={"a": float("nan")}), ("params", "or none")),
    "params names": (lambda lexi: lexi.request("GET", "/v1/x", params={5: "a"}), ("params", "a str", "int")),
    "params surrogate": (
        lambda lexi: lexi.request("GET", "/v1/x", params={"a": "\ud800"}),
        ("params", "UTF-8", "a lone surrogate"),
    ),
}


@pytest.mark.row("L13", "L22", "H10")
@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=map(repr, BAD_CALLS))
def test_an_argument_out_of_its_range_is_refused(
    runner: Runner, server: ScriptedServer, case: tuple[Call, tuple[str, ...]]
) -> None:
    """Every argument that the service would refuse, or that could reach another place, is refused here."""
    call, words = case
    assert_says(refusal(runner, server, call), words)


@pytest.mark.row("H10")
def test_a_lazy_call_refuses_at_once(runner: Runner, server: ScriptedServer) -> None:
    """`stream_chat` and `conversations` send nothing before they are used, but a bad argument is told at the call."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(ConfigurationError):
            lexi.stream_chat("")
        with pytest.raises(ConfigurationError):
            lexi.conversations(page=0)

    runner.run(scenario, base_url=server.url)
    assert server.connections == 0


BAD_IDEMPOTENCY_KEYS: dict[str, Case] = {
    "CR LF": (f"{UUID}\r\nX-Evil: 1", ("idempotency_key", "a UUID", "47 characters")),
    "line end": (f"{UUID}\n", ("idempotency_key", "a UUID", "37 characters")),
    "10 KB": ("a" * 10_240, ("idempotency_key", "a UUID", "10240 characters")),
    "no UUID": ("order-66", ("idempotency_key", "a UUID", "8 characters")),
    "braces": (f"{{{UUID}}}", ("idempotency_key", "a UUID", "38 characters")),
    "empty": ("", ("idempotency_key", "a UUID", "0 characters")),
    "number": (7, ("idempotency_key", "a UUID, as str or as it is", "int")),
}


@pytest.mark.row("L03")
@pytest.mark.parametrize("ask", STREAMING)
@pytest.mark.parametrize("case", BAD_IDEMPOTENCY_KEYS.values(), ids=BAD_IDEMPOTENCY_KEYS)
def test_a_key_that_is_no_uuid_is_refused(runner: Runner, server: ScriptedServer, ask: str, case: Case) -> None:
    """A key that the service would not know, or that breaks the request, is refused; none is made in its place."""
    key, words = case
    assert_says(refusal(runner, server, lambda lexi: ASKING[ask](lexi)("Hi", idempotency_key=key)), words)


@pytest.mark.row("L03")
@pytest.mark.parametrize("ask", STREAMING)
def test_a_uuid_is_sent_as_given(runner: Runner, server: ScriptedServer, ask: str) -> None:
    """The service compares keys as text, so not even the case of a letter is changed."""
    with pytest.raises(NotFoundError):
        runner.run(lambda lexi: awaited(ASKING[ask](lexi)("Hi", idempotency_key=UUID)), base_url=server.url)
    assert [request.idempotency_key for request in server.requests] == [UUID]


@pytest.mark.parametrize("ask", STREAMING)
def test_a_uuid_may_be_one(runner: Runner, ask: str) -> None:
    """What `uuid.uuid4()` gives is an idempotency key as it is, by which a thread knows a question again."""
    key = uuid.UUID(UUID)

    async def scenario(lexi: Any) -> None:
        asked = lexi.thread() if ask.startswith("thread") else lexi
        for _ in range(2):
            stream = asked.stream_chat("Hi", idempotency_key=key)
            await stream.final_reply()
            assert stream.idempotency_key == str(key)

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url)
    assert [request.idempotency_key for request in server.requests] == [str(key)] * 2
    assert server.requests[0].body == server.requests[1].body
    assert server.ledger.worst == 1


@pytest.mark.row("L10")
def test_netrc_is_never_read(runner: Runner, environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """A password that lies in `.netrc` for the same host does not replace the key."""
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
        (tmp_path / name).chmod(0o600)
    environ["HOME"] = str(tmp_path)
    environ["NETRC"] = str(tmp_path / ".netrc")

    def reply(connection: Connection, _: Request) -> None:
        connection.send(json_answer(200, {"data": CHAT}))

    with ScriptedServer(per_request(reply)) as server:
        runner.run(lambda lexi: awaited(lexi.chat("Hi")), base_url=server.url)
        assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {API_KEY}"]
