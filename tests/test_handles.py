"""The other handles as their users hold them: threads, listings, and waiting for a task."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from typing import Any

import pytest

from leadlex import (
    APITimeoutError,
    ConfigurationError,
    NotFoundError,
    ServerError,
    StreamBusyError,
    StreamInterruptedError,
    Timeout,
)
from tests.matrix.test_h_pages import Listing, rows, stable
from tests.support.answers import error_answer, json_answer
from tests.support.captures import CAPTURE, CAPTURE_TEXT
from tests.support.lexi import MESSAGES, TASK, Answer, Cut, Ending, LexiScript, Plain, Raw
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer, black_hole, dead_port
from tests.support.times import TimedRunner, Turned


def _hold(connection: Connection, plain: Plain, /) -> None:
    connection.send(plain.head)
    connection.wait_for()
    connection.send(*map(plain.frame, plain.body))
    plain.end(connection)


def bodies(server: ScriptedServer, path: str = "chat") -> list[Any]:
    """List the bodies that were sent to a path."""
    return [request.json for request in server.requests if request.path.endswith(path)]


def test_decision_without_an_id(runner: Runner) -> None:
    """What was decided was decided: a task's id that an answer lacks is the one that was asked for."""
    body = b'{"data": {"task_id": 5, "status": "approved"}}'

    def script(connection: Connection) -> None:
        while not connection.closed:
            connection.receive_request()
            connection.send(json_answer(200, body))

    async def scenario(lexi: Any) -> None:
        for decision in (await lexi.approve_task("task_1"), await lexi.dismiss_task("task_1")):
            assert (decision.task_id, decision.status, decision.extra) == ("task_1", "approved", {"task_id": 5})
            assert decision.meta is not None

    with ScriptedServer(script) as server, no_leaks():
        runner.run(scenario, base_url=server.url)


class TestThreads:
    """A conversation that remembers its id."""

    @pytest.mark.parametrize("field", ["", ', "conversation_id": null', ', "conversation_id": 5'])
    def test_no_id(self, runner: Runner, field: str) -> None:
        """An answer that was paid for needs no id: there is none then, and a thread keeps the one it has."""
        body = b'{"data": {"response": "Hi"%b}}' % field.encode()

        async def scenario(lexi: Any) -> None:
            reply = await lexi.chat("Hi")
            assert (reply.response, reply.conversation_id) == ("Hi", None)
            assert reply.extra == ({"conversation_id": 5} if "5" in field else {})
            for known in (None, "conv_1"):
                thread = lexi.thread(known)
                assert (await thread.chat("Hi")).conversation_id is None
                assert thread.conversation_id == known

        with ScriptedServer(LexiScript(chat_fault=Answer(200, body), times=3)) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0)

    def test_chat(self, runner: Runner) -> None:
        """The first reply tells the id; every later message carries it, and what its endpoint takes of the context."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread(context={"list_id": "list_1", "deal_id": "deal_1", "own": 1})
            assert thread.conversation_id is None
            assert (await thread.chat("One")).conversation_id == thread.conversation_id == "conv-uuid"
            await thread.chat("Two")
            assert await thread.stream_chat("Three").final_reply()

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert bodies(server) == [
                {"message": "One", "context": {"list_id": "list_1", "own": 1}},
                {"message": "Two", "context": {"list_id": "list_1", "own": 1, "conversation_id": "conv-uuid"}},
            ]
            [stream] = bodies(server, "stream")
            assert stream["conversation_id"] == "conv-uuid"
            assert stream["context"] == {"deal_id": "deal_1", "own": 1}

    def test_bad_context(self, runner: Runner) -> None:
        """A context that is no mapping is refused when it would be sent."""

        async def scenario(lexi: Any) -> None:
            with pytest.raises(ConfigurationError, match="context must be a mapping"):
                await lexi.thread(context=["list_id"]).chat("Hi")

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert not server.requests

    def test_stream(self, runner: Runner) -> None:
        """A stream tells the id with its first piece of text, also where it is gone before anybody asks."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread()
            async for _ in thread.stream_chat("One"):
                pass
            gc.collect()
            assert "conv_01HY1" in repr(thread._value if runner.name == "sync" else thread)
            await thread.chat("Two")

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert bodies(server)[0]["context"] == {"conversation_id": "conv_01HY1"}

    def test_known(self, runner: Runner) -> None:
        """A thread of a known conversation takes any number of messages at once."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread("conv-uuid")
            async with thread.stream_chat("One") as one, thread.stream_chat("Two") as two:
                assert await anext(one) == await anext(two)
                assert (await thread.chat("Three")).response
                assert (await one.final_reply()).response == CAPTURE_TEXT
            assert thread.conversation_id == "conv-uuid"

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_busy(self, runner: Runner) -> None:
        """A second message before the first has told the id would begin a second conversation: it is refused."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread()

            async def first() -> str:
                return str((await thread.stream_chat("One").final_reply()).conversation_id)

            async def second() -> None:
                await runner.until(lambda: server.requests)
                for ask in (thread.stream_chat, thread.chat):
                    with pytest.raises(StreamBusyError) as info:
                        await _used(ask("Two"))
                    assert info.value.charged == "no"
                server.release()

            assert (await runner.together(first, second))[0] == "conv_01HY1"
            await thread.chat("Two")

        with ScriptedServer(LexiScript(stream_fault=_hold)) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)
            assert len(server.requests) == 2

    def test_busy_with_a_chat(self, runner: Runner) -> None:
        """So while a chat is under way."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread()

            async def first() -> str:
                return str((await thread.chat("One")).conversation_id)

            async def second() -> None:
                await runner.until(lambda: server.requests)
                with pytest.raises(StreamBusyError):
                    await _used(thread.stream_chat("Two"))
                server.release()

            assert (await runner.together(first, second))[0] == "conv-uuid"

        with ScriptedServer(LexiScript(chat_fault=_hold)) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)

    def test_free_again(self, runner: Runner) -> None:
        """A first message that failed, was closed or was never sent leaves the thread free for another one."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread()
            with pytest.raises(StreamInterruptedError):
                await thread.stream_chat("One").final_reply()
            with pytest.raises(ServerError):
                await thread.chat("Two")
            stream = thread.stream_chat("Three")
            with pytest.raises(StreamBusyError):
                await _used(thread.stream_chat("Four"))
            await stream.aclose()
            thread.stream_chat("Five")
            gc.collect()
            assert thread.conversation_id is None
            assert (await thread.chat("Six")).conversation_id == thread.conversation_id

        script = LexiScript(stream_fault=Cut(5), chat_fault=Answer(500))
        with ScriptedServer(script) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0)

    @pytest.mark.trio
    def test_cancelled(self) -> None:
        """So does one whose reader was cancelled, even while its stream is held; it warns of nothing."""

        async def scenario(lexi: Any) -> None:
            thread = lexi.thread()
            stream = thread.stream_chat("One")
            with anyio.move_on_after(0.1):
                await anext(stream)
            assert stream.charged == "unknown"
            assert await thread.stream_chat("Two").final_reply()
            with pytest.raises(StreamInterruptedError):
                await anext(stream)

        import anyio  # noqa: PLC0415  # only here

        for name in ("asyncio", "trio"):
            with ScriptedServer(LexiScript(stream_fault=Cut(0, "stall"))) as server, no_leaks():
                AsyncRunner(name).run(scenario, base_url=server.url)

    def test_whether_there_is_more(self, runner: Runner) -> None:
        """A conversation that has as many messages as were asked for may have more; a thread asks for all there are."""

        async def scenario(lexi: Any) -> None:
            count = len((await lexi.conversation("conv_01HY1")).messages)
            for limit, more in ((count - 1, True), (count, True), (count + 1, False)):
                found = await lexi.conversation("conv_01HY1", limit=limit)
                assert found.may_have_more is more, limit
            await lexi.thread("conv_01HY1").history()

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert [request.query["limit"] for request in server.requests][::4] == ["200", "1000"]

    def test_history(self, runner: Runner) -> None:
        """The history is the conversation's messages; before it has begun there are none, and nothing is asked."""

        async def scenario(lexi: Any) -> None:
            assert await lexi.thread().history() == []
            assert not server.requests
            messages = await lexi.thread("conv_01HY1").history(include_tool_steps=True, limit=7)
            assert [message.content for message in messages] == [message["content"] for message in MESSAGES]
            with pytest.raises(ConfigurationError):
                await lexi.thread("conv_01HY1").history(limit=0)

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            [request] = server.requests
            assert request.query == {"include_tool_steps": "true", "limit": "7"}
            assert request.path.endswith("/v1/lexi/conversations/conv_01HY1")


async def _used(made: Any) -> None:
    """Await a reply; a stream was refused when it was made."""
    await made


class TestPagers:
    """Listings, beyond what table H asks."""

    def test_again(self, runner: Runner) -> None:
        """A pager can be read again, in each way, and then starts again; making one sends nothing."""

        async def scenario(lexi: Any) -> None:
            pager = lexi.conversations(per_page=10)
            assert listing.asked == []
            for _ in range(2):
                assert [item.id async for item in pager] == ids
                assert [item.id async for page in pager.pages() for item in page.items] == ids
                assert [item.id for item in await pager.collect()] == ids
                assert [item.id for item in (await pager.first_page()).items] == ids[:10]

        listing, ids = Listing(stable(25), total=25), [row["id"] for row in rows(*range(1, 26))]
        with ScriptedServer(listing) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
        assert sorted(listing.asked) == sorted([1, 2, 3, 1] * 6 + [1, 1])

    def test_ended(self, runner: Runner) -> None:
        """An iterator at its end stays there, and asks no more."""

        async def scenario(lexi: Any) -> None:
            items = aiter(lexi.conversations())
            assert [item.id async for item in items] == ["conv_1"]
            assert [item.id async for item in items] == []

        listing = Listing(stable(1), total=1)
        with ScriptedServer(listing) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
        assert listing.asked == [1]

    def test_pages(self, runner: Runner) -> None:
        """A page says its number, its size, the total and how it arrived; its items say the last too."""

        async def scenario(lexi: Any) -> None:
            pages = [page async for page in lexi.conversations(per_page=10, page=2).pages()]
            assert [(page.page, page.per_page, page.total, len(page.items)) for page in pages] == [
                (2, 10, 25, 10),
                (3, 10, 25, 5),
            ]
            assert all(page.meta.request_id == "req_01HY1" for page in pages)
            assert pages[0].items[0].meta == pages[0].meta

        with ScriptedServer(Listing(stable(25), total=25)) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    @pytest.mark.parametrize(
        ("limit", "asked"), [(1, [1]), (10, [1]), (11, [1, 2]), (95, [*range(1, 11)]), (500, [*range(1, 21)])]
    )
    def test_limit(self, runner: Runner, limit: int, asked: list[int]) -> None:
        """No more pages are asked for than the limit needs."""

        async def scenario(lexi: Any) -> None:
            found = await lexi.conversations(per_page=10).collect(limit=limit)
            assert [item.id for item in found] == [row["id"] for row in rows(*range(1, min(limit, 200) + 1))]

        listing = Listing(stable(200), total=200)
        with ScriptedServer(listing) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
        assert sorted(listing.asked) == asked

    @pytest.mark.parametrize("limit", [0, -1, True, "10", 1.0])
    def test_bad_limit(self, runner: Runner, limit: object) -> None:
        """A limit that is none is refused before anything is sent."""

        async def scenario(lexi: Any) -> None:
            with pytest.raises(ConfigurationError, match="limit"):
                await lexi.conversations().collect(limit=limit)

        with ScriptedServer(Listing(stable(1))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert server.connections == 0

    @pytest.mark.parametrize(("left", "most"), [(3, 3), (0, 1), (1000, 8)])
    def test_side_by_side(self, runner: Runner, left: int, most: int) -> None:
        """Up to 8 pages are asked for side by side, and never more than the quota has left."""
        running, seen, reached = list[int](), list[int](), threading.Event()

        def script(connection: Connection) -> None:
            while not connection.closed:
                page = int(connection.receive_request().query["page"])
                running.append(page)
                seen.append(len(running))
                if len(running) >= most:
                    reached.set()
                if page > 1:
                    reached.wait(5)  # however busy this machine is, as many as may come get the time to
                connection.sleep(0.05)
                running.remove(page)
                found = stable(200)(page, 10, 0)
                body = {"data": {"conversations": found}, "meta": {"page": page, "per_page": 10, "total": 200}}
                connection.send(json_answer(200, body, {"X-RateLimit-Remaining": str(left)}))

        async def scenario(lexi: Any) -> None:
            assert len(await lexi.conversations(per_page=10).collect()) == 200

        with ScriptedServer(script) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)
        assert max(seen) == most


class Tasks:
    """A service whose task changes with every look.

    Args:
        states: The task's state at each round of looking; None is nowhere.
        error: Sent in the place of an answer, once.
    """

    def __init__(self, *states: str | None, error: bytes | None = None) -> None:
        self._states = states
        self._error = error
        self._round = -1
        self.asked: list[str] = []

    def __call__(self, connection: Connection) -> None:
        """Answer the requests of one connection."""
        while not connection.closed:
            connection.send(self._answer(connection.receive_request().query["status"]))

    def _answer(self, status: str) -> bytes:
        self.asked.append(status)
        self._round += status == "pending"
        if self._error is not None:
            error, self._error = self._error, None
            return error
        state = self._states[min(self._round, len(self._states) - 1)]
        found = [{**TASK, "status": state}] if state == status else []
        return json_answer(200, {"data": {"tasks": [{**TASK, "id": "other", "status": status}, *found]}})


class TestWaiting:
    """Waiting for a task."""

    @pytest.mark.parametrize("end", ["completed", "failed", "dismissed"])
    def test_finished(self, runner: Runner, end: str) -> None:
        """The task comes back once it is finished; it is looked for where it should be, ever less often."""

        async def scenario(lexi: Any) -> None:
            task = await lexi.wait_for_task("task-uuid", timeout=300, poll_interval=10)
            assert (task.id, task.status) == ("task-uuid", end)

        clock, script = Turned(), Tasks(*["pending"] * 3, *["approved"] * 3, end)
        with ScriptedServer(script) as server, no_leaks():
            TimedRunner(runner, clock).run(scenario, base_url=server.url)
        assert clock.sleeps == [10, 15, 22.5, 30, 30, 30]
        assert script.asked[:9] == [*["pending"] * 3, *["pending", "approved"] * 3]

    def test_between_two_lists(self, runner: Runner) -> None:
        """A task that is between two lists at one look is found at the next; twice nowhere, it does not exist."""

        async def scenario(lexi: Any) -> None:
            assert (await lexi.wait_for_task("task-uuid", poll_interval=1)).status == "completed"

        with ScriptedServer(Tasks("approved", None, "approved", None, "completed")) as server, no_leaks():
            TimedRunner(runner, Turned()).run(scenario, base_url=server.url)

        async def missing(lexi: Any) -> None:
            with pytest.raises(NotFoundError) as info:
                await lexi.wait_for_task("task-uuid", poll_interval=1)
            assert (info.value.status_code, info.value.charged) == (404, "no")

        script = Tasks(None)
        with ScriptedServer(script) as server, no_leaks():
            TimedRunner(runner, Turned()).run(missing, base_url=server.url)
        assert script.asked == ["pending", "approved", "completed", "failed", "dismissed"] * 2

    def test_timeout(self, runner: Runner) -> None:
        """It ends after its timeout, by the clock `wait`, whether it sleeps or the service does."""

        async def scenario(lexi: Any) -> None:
            began = time.monotonic()
            with pytest.raises(APITimeoutError) as info:
                await lexi.wait_for_task("task-uuid", timeout=0.3, poll_interval=0.1)
            assert (info.value.clock, info.value.charged) == ("wait", "no")
            assert 0.3 <= time.monotonic() - began < 2

        def silent(connection: Connection) -> None:
            connection.receive_request()
            connection.stall()

        for script in (Tasks("pending"), silent):
            with ScriptedServer(script) as server, no_leaks(), must_not_hang():
                runner.run(scenario, base_url=server.url)

    def test_errors(self, runner: Runner) -> None:
        """An error of the API comes out as it is; bad arguments are refused before anything is sent."""

        async def scenario(lexi: Any) -> None:
            for options in ({"timeout": 0}, {"poll_interval": -1}, {"timeout": float("inf")}, {"poll_interval": "1"}):
                with pytest.raises(ConfigurationError):
                    await lexi.wait_for_task("task-uuid", **options)
            with pytest.raises(ConfigurationError):
                await lexi.wait_for_task("..")
            assert not server.requests
            with pytest.raises(ServerError):
                await lexi.wait_for_task("task-uuid")

        with ScriptedServer(Tasks("pending", error=error_answer(500, "internal_error"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0)


class TestRefusals:
    """Error answers, beyond what table D asks."""

    @pytest.mark.parametrize("how", ["fin", "rst", "stall"])
    def test_broken_body(self, runner: Runner, how: Ending) -> None:
        """An error answer whose body breaks off is still that error: its status alone tells."""

        async def scenario(lexi: Any) -> None:
            for ask in (lexi.chat, lambda message: lexi.stream_chat(message).final_reply()):
                with pytest.raises(ServerError) as info:
                    await ask("Hi")
                assert (info.value.status_code, info.value.code, info.value.body) == (503, None, "")

        whole = error_answer(503, "internal_error")
        fault = Raw(whole[:-10], how)
        with ScriptedServer(LexiScript(chat_fault=fault, stream_fault=fault)) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0, timeout=Timeout(idle=0.2))


class TestClocks:
    """Each of the timeouts alone, all others being far away."""

    def _ends(self, runner: Runner, url: str, timeout: Any, ask: str, **options: Any) -> APITimeoutError:
        ends = list[APITimeoutError]()

        async def scenario(lexi: Any) -> None:
            with pytest.raises((StreamInterruptedError, APITimeoutError)) as info:
                await (lexi.chat("Hi") if ask == "chat" else lexi.stream_chat("Hi").final_reply())
            end = info.value.__cause__ if isinstance(info.value, StreamInterruptedError) else info.value
            assert isinstance(end, APITimeoutError)
            ends.append(end)

        with no_leaks(), must_not_hang():
            runner.run(scenario, base_url=url, timeout=timeout, retries=0, resume=False, **options)
        [end] = ends
        assert end.clock in str(end)
        return end

    @pytest.mark.parametrize("ask", ["chat", "stream"])
    def test_connect(self, runner: Runner, ask: str) -> None:
        """`connect` is for the connection; nothing was charged."""
        with black_hole() as url:
            end = self._ends(runner, url, Timeout(connect=0.2), ask)
        assert (end.clock, end.charged) == ("connect", "no")

    @pytest.mark.parametrize(
        ("fault", "timeout", "clock"),
        [
            (Cut(0, "stall"), Timeout(first_event=0.2), "first_event"),
            (Cut(200, "stall"), Timeout(idle=0.2), "idle"),
            (Cut(200, "stall"), Timeout(event_idle=0.2), "event_idle"),
            (Cut(200, "stall"), Timeout(total=0.2), "total"),
            (Cut(200, "stall"), 0.2, "idle"),
        ],
    )
    def test_stream(self, runner: Runner, fault: Any, timeout: Any, clock: str) -> None:
        """The clocks of a stream; a plain number is `idle`."""
        with ScriptedServer(LexiScript(stream_fault=fault)) as server:
            end = self._ends(runner, server.url, timeout, "stream")
        assert (end.clock, end.charged) == (clock, "unknown")
        assert "0.2 s" in str(end)

    @pytest.mark.parametrize(
        ("fault", "timeout", "clock"),
        [
            (Cut(0, "stall"), Timeout(idle=0.2), "idle"),
            (Cut(9, "stall"), Timeout(idle=0.2), "idle"),
            (Cut(9, "stall"), Timeout(total=0.2), "total"),
            (Cut(9, "stall"), 0.2, "total"),
            (lambda connection, _: connection.stall(), Timeout(total=0.2), "total"),
        ],
    )
    def test_chat(self, runner: Runner, fault: Any, timeout: Any, clock: str) -> None:
        """The clocks of a JSON call; a plain number is `total`, and before the head only that counts."""
        with ScriptedServer(LexiScript(chat_fault=fault)) as server:
            end = self._ends(runner, server.url, timeout, "chat")
        assert (end.clock, end.charged) == (clock, "unknown")

    def test_pool(self, runner: Runner) -> None:
        """`pool` is for a free connection; the error tells what takes them, and nothing was charged."""

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                await anext(stream)
                with pytest.raises(APITimeoutError) as info:
                    await lexi.chat("Hi")
            assert (info.value.clock, info.value.charged) == ("pool", "no")
            assert "open streams" in str(info.value)

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, timeout=Timeout(pool=0.2), max_connections=1)

    @pytest.mark.parametrize("ask", ["chat", "stream"])
    def test_total_over_attempts(self, runner: Runner, ask: str) -> None:
        """`total` counts attempts and the sleeps between; where the next sleep would outlast it, nobody sleeps."""

        async def scenario(lexi: Any) -> None:
            with pytest.raises(Exception, match="could not be reached"):
                await (lexi.chat("Hi") if ask == "chat" else lexi.stream_chat("Hi").final_reply())

        clock = Turned(chance=1.0)
        with dead_port() as url, no_leaks(), must_not_hang():
            TimedRunner(runner, clock).run(scenario, base_url=url, retries=9, timeout=Timeout(total=10))
        assert list(itertools.accumulate(clock.sleeps)) == [0.5, 1.5, 3.5, 7.5]

    def test_no_total(self, runner: Runner) -> None:
        """`total=None` sets none, for both kinds of calls."""

        async def scenario(lexi: Any) -> None:
            assert (await lexi.chat("Hi")).response
            assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

        with ScriptedServer(LexiScript(stream=CAPTURE)) as server, no_leaks():
            runner.run(scenario, base_url=server.url, timeout=Timeout(total=None))


def test_clocks_run_from_the_first_use(runner: Runner) -> None:
    """A stream that is made early and used late has all of its time."""

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat("Hi")
        await runner.sleep(1.1)
        assert (await stream.final_reply()).response == CAPTURE_TEXT

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url, timeout=Timeout(total=1), retries=0)
