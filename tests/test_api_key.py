"""An API key that changes: a function gives it, once a call, and none that it ever gave is shown."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import leadlex
from leadlex import APITimeoutError, ClientClosedError, ConfigurationError, ServerError, Timeout
from leadlex._api_key import keys_of
from tests.architecture import ROOT
from tests.matrix.oracles import AT_ONCE, Log, chain_of, check_secrets
from tests.support.answers import error_answer, json_answer
from tests.support.journal import Request
from tests.support.lexi import Answer, Cut, LexiScript
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import OVER_AIOHTTP, Runner
from tests.support.server import Connection, ScriptedServer, per_request

SECRET = "PrivilegedRoe"


def key(number: int) -> str:
    """Name the key that is given at the so-manieth call, from 1; nothing in them is the same but what all have."""
    return f"wbk_{number}_" + f"{number:x}" * 24


class Rotating:
    """A function of the application's own that gives another key each time."""

    def __init__(self) -> None:
        self.given = 0
        self.threads = set[int]()

    def __call__(self) -> str:
        """Give the next one."""
        self.given += 1
        self.threads.add(threading.get_ident())
        return f" {key(self.given)}\n"


class RotatingAsync(Rotating):
    """The same for a loop."""

    async def __call__(self) -> str:  # type: ignore[override]  # the very difference
        """Give the next one."""
        return super().__call__()


async def give(rotating: Callable[[], str]) -> str:
    """Be a coroutine function."""
    return rotating()


#: The ways to write a function: what a rotating one is made of, and what is given as `api_key`.
WAYS: dict[str, Callable[[], tuple[Rotating, Any]]] = {
    "plain": lambda: (made := Rotating(), made),
    "async": lambda: (made := Rotating(), functools.partial(give, made)),
    "callable": lambda: (made := RotatingAsync(), made),
    "gives a coroutine": lambda: (made := Rotating(), lambda: give(made)),
}
every_way = pytest.mark.parametrize("way", WAYS)


def sent(server: ScriptedServer) -> list[str]:
    """List the numbers of the keys that requests had, in order."""
    return [request.headers["authorization"].split("_")[1] for request in server.requests]


async def everything(lexi: Any) -> None:
    """Make a call of every kind; the last one is two pages."""
    await lexi.chat("Hi")
    await lexi.stream_chat("Hi").final_reply()
    await lexi.tasks()
    await lexi.with_options(retries=1).request("GET", "/v1/lexi/tasks")
    await lexi.thread("conv_1").history()
    await lexi.conversations(per_page=50).first_page()


@every_way
def test_asked_once_a_call(runner: Runner, way: str) -> None:
    """Every call asks once, and is sent with what was given, without the white space around it."""
    rotating, given = WAYS[way]()
    with ScriptedServer(LexiScript()) as server, no_leaks():
        runner.run(everything, api_key=given, base_url=server.url)
    assert sent(server) == [str(number) for number in range(1, 7)]
    assert rotating.given == 6


def test_over_aiohttp() -> None:
    """The same goes for a client of another transport."""
    with ScriptedServer(LexiScript()) as server, no_leaks():
        OVER_AIOHTTP.run(everything, api_key=Rotating(), base_url=server.url)
    assert sent(server) == [str(number) for number in range(1, 7)]


@every_way
def test_attempts_share_it(runner: Runner, way: str) -> None:
    """What is tried again, and a stream that is continued, goes with the key of the call."""

    async def scenario(lexi: Any) -> None:
        await lexi.tasks()
        stream = lexi.stream_chat("Hi")
        await stream.final_reply()
        assert stream.resumes == 2

    rotating, given = WAYS[way]()
    script = LexiScript(other_fault=(Answer(503), Answer(503)), stream_fault=(Cut(420), Cut(420)))
    with ScriptedServer(script) as server, no_leaks():
        runner.run(scenario, api_key=given, base_url=server.url, retries=AT_ONCE)
    assert (sent(server), rotating.given) == (["1"] * 3 + ["2"] * 3, 2)


def test_each_page_asks(runner: Runner) -> None:
    """A listing asks for each page, since a long one may outlive a key."""

    def page(connection: Connection, request: Request) -> None:
        number = int(request.query["page"])
        rows = [{"id": f"conv_{number}"}] if number < 4 else []
        body = {"data": {"conversations": rows}, "meta": {"page": number, "per_page": 1, "total": 3}}
        connection.send(json_answer(200, body))

    async def scenario(lexi: Any) -> None:
        assert len([each async for each in lexi.conversations(per_page=1)]) == 3

    with ScriptedServer(per_request(page)) as server, no_leaks():
        runner.run(scenario, api_key=Rotating(), base_url=server.url)
    assert sent(server) == ["1", "2", "3", "4"]  # the last looks at the front again


def test_the_loop_goes_on_meanwhile(runner: Runner) -> None:
    """A plain function may block: it runs in a thread of its own, and other calls go on."""
    both = threading.Barrier(2, timeout=10)
    threads = set[int]()

    def given() -> str:
        threads.add(threading.get_ident())
        both.wait()  # it is called a second time before it returned
        return key(1)

    async def scenario(lexi: Any) -> None:
        async def call() -> Any:
            return await lexi.tasks()

        assert [type(each) for each in await runner.together(call, call)] == [list, list]

    with ScriptedServer(LexiScript()) as server, no_leaks():
        runner.run(scenario, api_key=given, base_url=server.url)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


# What goes wrong ---------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda lexi: lexi.tasks(),
    "page": lambda lexi: lexi.conversations().collect(),
    "chat": lambda lexi: lexi.chat("Hi"),
    "stream": lambda lexi: lexi.stream_chat("Hi").final_reply(),
    "copy": lambda lexi: lexi.with_options(retries=2).request("POST", "/v1/lexi/other", json={}),
}
every_call = pytest.mark.parametrize("call", CALLS)


def ended(runner: Runner, call: str, given: Any, **options: Any) -> tuple[Exception, Log]:
    """Make one call that fails before anything is sent, and give how it ended, with the log."""

    async def scenario(lexi: Any) -> None:
        await CALLS[call](lexi)

    log = Log()
    with ScriptedServer(LexiScript()) as server, no_leaks(), log.collected(), must_not_hang(10):
        with pytest.raises(leadlex.LeadLexError) as caught:
            runner.run(scenario, api_key=given, base_url=server.url, **options)
        assert server.connections == 0
    assert caught.value.charged == "no"
    return caught.value, log


class VaultError(Exception):
    """What a user's function raises."""


def open_vault() -> str:
    """Fail as a vault does, and tell too much."""
    raise VaultError(key(1))


@every_call
def test_a_function_that_raises(runner: Runner, call: str) -> None:
    """What it raises is the cause, with the place where it was raised; nothing was sent, and no word of it is told."""
    error, log = ended(runner, call, open_vault)
    assert isinstance(error, ConfigurationError)
    assert str(error) == "The function given as api_key raised VaultError."
    causes = [each for each in chain_of(error) if isinstance(each, VaultError)]
    assert [traceback.extract_tb(each.__traceback__)[-1].name for each in causes] == ["open_vault"]
    assert key(1) not in "".join((str(error), repr(error), repr(pickle.dumps(error)), *log.lines))


def test_a_coroutine_that_raises(runner: Runner) -> None:
    """The same goes for one that is awaited, also where it raises what leadlex itself might."""

    async def given() -> str:
        raise ConfigurationError("The vault has another owner.")

    error, _ = ended(runner, "chat", given)
    assert str(error) == "The function given as api_key raised ConfigurationError."
    assert str(error.__cause__) == "The vault has another owner."


@every_call
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "api_key() must be a str; given: NoneType."),
        (key(1).encode(), "api_key() must be a str; given: bytes."),
        ("", "api_key() must be a workspace key (wbk_…); given: an empty one."),
        (f'"{key(1)}"', "api_key() must be the key alone (wbk_…); given: one in quotation marks"),
        (f"{key(1)}\nX: y", "api_key() must be printable ASCII"),
    ],
)
def test_what_is_no_key(runner: Runner, call: str, value: Any, says: str) -> None:
    """What can't be an API key is refused as any that can't be, and nothing of it is told or kept in a frame."""
    error, log = ended(runner, call, lambda: value)
    assert isinstance(error, ConfigurationError)
    assert says in str(error)
    check_secrets(log.lines, error, key(1))


def test_no_function_of_one(runner: Runner) -> None:
    """What is neither a text nor a function is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="api_key must be a str; given: int"):
        runner.make(api_key=5)


@pytest.mark.parametrize("call", ["get", "stream"])
def test_a_function_that_takes_too_long(runner: Runner, call: str) -> None:
    """The time of the call is the function's too: then the call ends, and the function is not asked again."""
    asked, go_on = list[int](), threading.Event()

    def given() -> str:
        asked.append(1)
        go_on.wait(10)
        return key(1)

    async def scenario(lexi: Any) -> None:
        with pytest.raises(APITimeoutError) as caught:
            await CALLS[call](lexi)
        go_on.set()
        assert caught.value.clock == ("total" if call == "get" else "first_event")

    with ScriptedServer(LexiScript()) as server, no_leaks(), must_not_hang(10):
        timeout = Timeout(total=0.05) if call == "get" else Timeout(first_event=0.05)
        runner.run(scenario, api_key=given, base_url=server.url, timeout=timeout)
        assert server.connections == 0
    assert asked == [1]


def test_closed_meanwhile(runner: Runner) -> None:
    """A client that is closed while its function is asked waits for no answer of that."""
    asked, go_on = threading.Event(), threading.Event()

    def given() -> str:
        asked.set()
        go_on.wait(10)
        return key(1)

    async def scenario(lexi: Any) -> None:
        async def close() -> None:
            await runner.until(asked.is_set)
            await lexi.aclose()

        async def call() -> None:
            await CALLS["chat"](lexi)

        ends = await runner.together(call, close)
        go_on.set()
        assert isinstance(ends[0], ClientClosedError)
        assert ends[0].charged == "no"

    with ScriptedServer(LexiScript()) as server, no_leaks(), must_not_hang(10):
        runner.run(scenario, api_key=given, base_url=server.url)
        assert server.connections == 0


# What is shown -----------------------------------------------------------------------------------------------------


def test_none_of_them_is_ever_shown(runner: Runner) -> None:
    """Each key that was ever given is masked, in what a server says of it long after."""

    def tell(connection: Connection, request: Request) -> None:
        number = len(server.requests)
        words = " ".join(key(each) for each in range(1, number + 1))
        if number == 1:
            connection.send(json_answer(200, {"data": {"tasks": []}}))
        else:
            connection.send(error_answer(500, "internal_error", words))

    async def scenario(lexi: Any) -> Exception:
        await lexi.tasks()
        with pytest.raises(ServerError) as caught:
            await lexi.chat("Hi")
        assert repr(lexi).startswith("<")
        assert f"{key(1)}{key(2)}"[:12] not in repr(vars(getattr(lexi, "_value", lexi)))
        return caught.value

    log = Log()
    with ScriptedServer(per_request(tell)) as server, log.collected(), no_leaks():
        error = runner.run(scenario, api_key=Rotating(), base_url=server.url)
    assert "wbk_… wbk_…" in str(error)
    check_secrets(log.lines, error, key(1), key(2), key(1)[4:], key(2)[4:])


def test_what_the_function_was_made_of(runner: Runner) -> None:
    """What a function was given beforehand, as a vault's own password, is in no frame of ours."""

    def given(password: str) -> str:
        del password
        return "wbk_"

    error, log = ended(runner, "chat", functools.partial(given, SECRET))
    check_secrets(log.lines, error, SECRET)


GEVENT = """
import warnings
warnings.simplefilter("ignore")
from gevent import monkey
monkey.patch_all()
import gevent, sys, time, leadlex
numbers = iter(range(1, 100))
def given():
    time.sleep(0.01)
    return f"wbk_{next(numbers)}_key"
with leadlex.LeadLex(given, base_url=sys.argv[1]) as lexi:
    for job in gevent.joinall([gevent.spawn(lexi.tasks) for _ in range(5)]):
        print(len(job.value))
"""


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="not installed: gevent")
def test_under_gevent() -> None:
    """Under gevent too a plain function is asked aside, once a call."""
    with ScriptedServer(LexiScript()) as server:
        words = [sys.executable, "-c", GEVENT, server.url]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert (run.stdout.split(), run.stderr) == (["1"] * 5, "")
        assert sorted(sent(server)) == ["1", "2", "3", "4", "5"]


def test_no_pickle_holds_a_key() -> None:
    """An API key can't be pickled, alone or with what keeps it."""
    keys = keys_of(key(1), {})
    for each in (keys, keys.fixed):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(each)
