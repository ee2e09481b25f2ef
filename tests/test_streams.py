"""Streams as their users hold them: read to the end, in part, by two, never, and cut after every byte."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import httpx
import pytest

from leadlex import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    ChatReply,
    Done,
    InsufficientCreditsError,
    RateLimitError,
    StreamBusyError,
    StreamInterruptedError,
    TextDelta,
    Thinking,
    Timeout,
    ToolStep,
)
from tests.support.captures import CAPTURE, CAPTURE_TEXT, encode_stream, text_events
from tests.support.lexi import Answer, ByMessage, Cut, Ending, Framing, LexiScript, Lost
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer

SIX: list[Any] = [
    Thinking("Looking up the contact in your pipeline..."),
    ToolStep("contacts.get", "started"),
    ToolStep("contacts.get", "completed", "Found 1 contact"),
    TextDelta("Jane Doe is currently", "conv_01HY1"),
    TextDelta(" in the Proposal stage...", "conv_01HY1"),
    Done(4840, "msg_01HY1"),
]
#: From here on the JSON of `done` is whole.
WHOLE = CAPTURE.index(b"}", CAPTURE.index(b"event: done")) + 1
SHORT = Timeout(idle=0.2, first_event=1)


async def read(stream: Any) -> list[Any]:
    """List what a stream hands out."""
    return [event async for event in stream]


async def read_until_broken(stream: Any) -> tuple[list[Any], StreamInterruptedError | None]:
    """List what a stream hands out, with what ended it if it was broken off."""
    events = list[Any]()
    try:
        async for event in stream:
            events.append(event)
    except StreamInterruptedError as error:
        return events, error
    return events, None


class TestWhole:
    """A stream that is read to its end."""

    @pytest.mark.parametrize("framing", ["chunked", "close", "length"])
    def test_byte_by_byte(self, runner: Runner, framing: Framing) -> None:
        """The contract's capture gives the same six events, however its bytes arrive."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Where is Jane?")
            assert await read(stream) == SIX
            assert (stream.resumes, stream.charged, stream.conversation_id) == (0, "yes", "conv_01HY1")
            assert lexi.credits_remaining == 4840

        with ScriptedServer(LexiScript(sizes=(1,), framing=framing)) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_one_connection(self, runner: Runner) -> None:
        """Twenty streams one after the other use one connection."""

        async def scenario(lexi: Any) -> None:
            for _ in range(20):
                assert await read(lexi.stream_chat("Hi")) == SIX

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert server.connections == 1

    def test_reply(self, runner: Runner) -> None:
        """The final reply has all that the events said; a stream can't tell of tasks."""

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                assert stream.meta is None
                reply = await stream.final_reply()
                assert reply == stream.reply == await stream.final_reply()
                assert reply.meta == stream.meta
            assert reply == ChatReply(
                response=CAPTURE_TEXT,
                conversation_id="conv_01HY1",
                message_id="msg_01HY1",
                credits_remaining=4840,
                thinking=("Looking up the contact in your pipeline...",),
                tool_steps=(SIX[1], SIX[2]),
            )
            assert (reply.task_id, reply.requires_approval) == (None, None)

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_text_stream(self, runner: Runner) -> None:
        """The text alone comes piece by piece, and the rest is still known afterwards."""

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                assert [text async for text in stream.text_stream] == [
                    "Jane Doe is currently",
                    " in the Proposal stage...",
                ]
                assert (await stream.final_reply()).message_id == "msg_01HY1"
            assert [text async for text in lexi.stream_chat("Hi").text_stream] == [SIX[3].delta, SIX[4].delta]

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_reply_so_far(self, runner: Runner) -> None:
        """While it is read, a stream shows the reply as far as it has come."""

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                assert (stream.reply, stream.charged) == (ChatReply(response=""), "no")
                assert await anext(stream) == SIX[0]
                assert stream.charged == "unknown"
                assert not stream.reply.response
                server.release()
                async for _ in stream:
                    assert CAPTURE_TEXT.startswith(stream.reply.response)
                assert stream.reply.response == CAPTURE_TEXT

        def script(connection: Connection) -> None:
            LexiScript(stream_fault=held)(connection)

        def held(connection: Connection, plain: Any) -> None:
            connection.send(plain.head, plain.frame(plain.body[0]))
            connection.wait_for()
            connection.send(*map(plain.frame, plain.body[1:]))
            plain.end(connection)

        with ScriptedServer(script) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_again(self, runner: Runner) -> None:
        """A stream that was read to its end has nothing more to give, and keeps its reply."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            assert await read(stream) == SIX
            assert await read(stream) == []
            await stream.aclose()
            assert await read(stream) == []
            assert stream.reply.response == CAPTURE_TEXT

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert len(server.requests) == 1


class TestStarted:
    """A stream whose question is sent, and its first event awaited, before it is iterated."""

    def test_start(self, runner: Runner) -> None:
        """It gives the stream itself, tells how the answer arrived, and keeps the first event; once more is no more."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            assert await stream.start() is getattr(stream, "_value", stream)
            assert stream.meta.status_code == 200
            await runner.until(lambda: server.stalls)
            await stream.start()
            assert stream.charged == "unknown"
            assert [await anext(stream), await anext(stream)] == SIX[:2]
            await stream.start()
            await stream.aclose()

        with ScriptedServer(LexiScript(stream_fault=Cut(WHOLE - 100, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert len(server.requests) == 1

    def test_read(self, runner: Runner) -> None:
        """However it is read then, nothing is missing."""

        async def started(lexi: Any) -> Any:
            stream = lexi.stream_chat("Hi")
            await stream.start()
            return stream

        async def scenario(lexi: Any) -> None:
            assert await read(await started(lexi)) == SIX
            stream = await started(lexi)
            assert [text async for text in stream.text_stream] == [SIX[3].delta, SIX[4].delta]
            await stream.start()
            stream = await started(lexi)
            assert (await stream.final_reply()).response == CAPTURE_TEXT

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (401, "invalid_key", AuthenticationError),
            (402, "insufficient_credits", InsufficientCreditsError),
            (429, "rate_limited", RateLimitError),
        ],
    )
    def test_refused(self, runner: Runner, status: int, code: str, error: type[APIStatusError]) -> None:
        """What refuses the call is raised here, and as often as it is asked; nothing was charged."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            for _ in range(2):
                with pytest.raises(error) as info:
                    await stream.start()
                assert (info.value.status_code, info.value.charged) == (status, "no")

        with ScriptedServer(LexiScript(stream_fault=Answer(status, code=code))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0)

    def test_busy(self, runner: Runner) -> None:
        """While somebody waits for the first event, nobody else can."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")

            async def start_too() -> None:
                await runner.until(lambda: server.stalls)
                with pytest.raises(StreamBusyError):
                    await stream.start()
                await stream.aclose()

            broken, _ = await runner.together(stream.start, start_too)
            assert type(broken) is StreamInterruptedError

        with ScriptedServer(LexiScript(stream_fault=Cut(0, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_left(self, runner: Runner) -> None:
        """Started and never read, a stream warns and frees its connection, as any that is left."""

        async def scenario(lexi: Any) -> None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await lexi.stream_chat("Hi").start()
                told.extend(str(each.message) for each in caught)
                caught.clear()  # as in test_dropped
                gc.collect()
            await runner.until(lambda: server.disconnects)

        told = list[str]()
        with ScriptedServer(LexiScript(stream_fault=Cut(300, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
        assert any("left before its end and never closed" in each for each in told)


class TestCut:
    """A stream that breaks, when it is not continued."""

    def _cut_everywhere(self, runner: Runner, places: range, how: Ending) -> None:
        async def scenario(lexi: Any) -> None:
            for place in places:
                await self._cut_once(lexi, place, exact=how != "rst")

        script = ByMessage(lambda message: LexiScript(stream_fault=Cut(int(message), how)))
        options = {"retries": 0, "resume": False, "timeout": SHORT}
        with ScriptedServer(script) as server, no_leaks(), must_not_hang(60):
            runner.run(scenario, base_url=server.url, **options)
            assert len(server.requests) == len(places)

    async def _cut_once(self, lexi: Any, place: int, *, exact: bool) -> None:
        stream = lexi.stream_chat(str(place))
        events, error = await read_until_broken(stream)
        assert stream.resumes == 0
        if error is None:
            assert place >= WHOLE
            assert events == SIX
            return
        assert SIX[: len(events)] == events != SIX
        assert place < WHOLE or not exact
        assert error.idempotency_key == stream.idempotency_key
        assert error.charged == stream.charged == "unknown"
        assert error.partial == (stream.reply if events else None)
        assert CAPTURE_TEXT.startswith(stream.reply.response)
        assert stream.reply.message_id is None

    def test_every_byte(self, runner: Runner) -> None:
        """Cut after each of its bytes in turn, a stream is never whole before `done` is; the partial is a prefix.

        One loop reads every byte's end; the other and the sync client, which read by the same code, every fourth's.
        """
        step = 1 if runner.name == "asyncio" else 4
        self._cut_everywhere(runner, range(0, len(CAPTURE) + 1, step), "fin")

    @pytest.mark.parametrize("how", ["rst", "stall"])
    def test_other_ways(self, runner: Runner, how: Ending) -> None:
        """A reset and a silence are no other than an end."""
        self._cut_everywhere(runner, range(0, len(CAPTURE), 101), how)

    def test_proper_end(self, runner: Runner) -> None:
        """A body that ends as it should, but says neither `done` nor `[DONE]`, is no whole answer."""
        self._cut_everywhere(runner, range(3, len(CAPTURE), 53), "end")

    def test_failed_stays_failed(self, runner: Runner) -> None:
        """A stream that failed says so as often as it is asked, and never ends as if it were whole."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            with pytest.raises(StreamInterruptedError) as first:
                await read(stream)
            for _ in range(2):
                with pytest.raises(StreamInterruptedError) as again:
                    await read(stream)
                assert again.value.partial == first.value.partial
                with pytest.raises(StreamInterruptedError):
                    await stream.final_reply()
            with pytest.raises(StreamInterruptedError):
                [text async for text in stream.text_stream]

        with ScriptedServer(LexiScript(stream_fault=Cut(300))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=0, resume=False)
            assert len(server.requests) == 1


LONG = encode_stream(
    [*text_events("word " * 20_000, size=5), ("done", {"credits_remaining": 1, "message_id": "msg_1"})]
)


class TestBounds:
    """What a server is not believed."""

    def test_text(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reply longer than any is refused, with what came of it."""
        monkeypatch.setattr("leadlex._stream.MAX_TEXT", 1 << 12)

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            with pytest.raises(APIResponseError, match="its text is longer") as info:
                await stream.final_reply()
            assert info.value.partial is not None
            assert (1 << 12) < len(info.value.partial.response) <= (1 << 12) + 5

        with ScriptedServer(LexiScript(stream=LONG)) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            assert len(server.requests) == 1


class TestLeft:
    """A stream that is not read to its end."""

    def test_never_used(self, runner: Runner) -> None:
        """A stream that nobody uses sends nothing and costs nothing."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            assert (stream.charged, stream.meta, stream.conversation_id) == ("no", None, None)
            del stream
            async with lexi.stream_chat("Hi"):
                pass
            await lexi.stream_chat("Hi").aclose()

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            gc.collect()
            assert server.connections == 0

    def test_closed_unused(self, runner: Runner) -> None:
        """A stream closed before its first use is no whole answer."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi", conversation_id="conv_1")
            await stream.aclose()
            with pytest.raises(StreamInterruptedError) as info:
                await stream.final_reply()
            assert (info.value.charged, info.value.partial) == ("no", None)

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_entered(self, runner: Runner) -> None:
        """Left early, a stream that was entered closes its connection, and is no whole answer afterwards."""

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                first = await anext(stream)
            assert first == TextDelta("word ", "conv_01HY1")
            assert server.wait_for_disconnect()
            with pytest.raises(StreamInterruptedError) as info:
                await stream.final_reply()
            assert info.value.charged == "unknown"
            assert info.value.partial is not None
            await stream.aclose()
            with pytest.raises(StreamInterruptedError):
                await read(stream)

        with ScriptedServer(LexiScript(stream=LONG, stream_fault=Cut(5000, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_closed_text(self, runner: Runner) -> None:
        """Whoever has the text alone, as a web server has, can close the stream by it, without a warning."""

        async def scenario(lexi: Any) -> None:
            text = lexi.stream_chat("Hi").text_stream
            assert await anext(text) == "word "
            await text.aclose()
            assert server.wait_for_disconnect()
            with pytest.raises(StreamInterruptedError):
                await anext(text)
            await text.aclose()

        with ScriptedServer(LexiScript(stream=LONG, stream_fault=Cut(5000, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
            gc.collect()

    def test_error_inside(self, runner: Runner) -> None:
        """An exception of the user's own closes the stream and comes out unchanged."""

        async def scenario(lexi: Any) -> None:
            async def fail() -> None:
                async with lexi.stream_chat("Hi") as stream:
                    async for _ in stream:
                        raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            assert server.wait_for_disconnect()

        with ScriptedServer(LexiScript(stream_fault=Cut(300, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_dropped(self, runner: Runner) -> None:
        """Left early and dropped, a stream warns and frees its connection by itself."""

        async def scenario(lexi: Any) -> None:
            async def leave() -> None:
                async for _ in lexi.stream_chat("Hi"):
                    break

            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await leave()
                told.extend(str(each.message) for each in caught)
                caught.clear()  # a warning holds its source, and the test is about its going
                gc.collect()
            await runner.until(lambda: server.disconnects)
            assert await read(lexi.stream_chat("Hi")) == SIX

        told = list[str]()
        with ScriptedServer(LexiScript(stream_fault=Cut(300, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)
        assert any("left before its end and never closed" in each for each in told)

    def test_no_warning_at_the_end(self, runner: Runner) -> None:
        """A stream that ended, failed or was closed is dropped in silence."""

        async def scenario(lexi: Any) -> None:
            assert await read(lexi.stream_chat("Hi")) == SIX
            with pytest.raises(StreamInterruptedError):
                await read(lexi.stream_chat("Hi"))
            stream = lexi.stream_chat("Hi")
            await anext(stream)
            await stream.aclose()
            del stream
            gc.collect()

        with warnings.catch_warnings(record=True) as caught:
            with ScriptedServer(LexiScript(stream_fault=(Cut(600, "end"), Cut(200)))) as server, no_leaks():
                runner.run(scenario, base_url=server.url, resume=False)
            gc.collect()
        assert [str(each.message) for each in caught] == []


class TestTwoReaders:
    """One stream, two readers."""

    def test_busy(self, runner: Runner) -> None:
        """The second reader is refused, whatever it asks for, and the first one loses nothing."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")

            async def first() -> list[Any]:
                return await read(stream)

            async def second() -> list[str]:
                await runner.until(lambda: server.requests)
                charged = list[str]()
                for ask in (read, _final, _texts):
                    with pytest.raises(StreamBusyError) as info:
                        await ask(stream)
                    charged.append(info.value.charged)
                server.release()
                return charged

            assert await runner.together(first, second) == [SIX, ["no", "no", "no"]]

        with ScriptedServer(_held) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)

    @pytest.mark.parametrize("head", [True, False])
    def test_closed_by_another(self, runner: Runner, *, head: bool) -> None:
        """Closed while another task or thread waits for its next event, a stream ends there as an error, at once."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")

            async def reader() -> list[Any]:
                return await read(stream)

            async def closer() -> None:
                await runner.until(lambda: server.stalls)
                await stream.aclose()

            error, _ = await runner.together(reader, closer)
            assert isinstance(error, StreamInterruptedError)
            assert error.charged == "unknown"
            assert server.wait_for_disconnect()
            assert len(server.requests) == 1

        script = LexiScript(stream_fault=Cut(0, "stall") if head else Lost("stall"))
        with ScriptedServer(script) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)

    @pytest.mark.parametrize("runner", [AsyncRunner("asyncio"), AsyncRunner("trio")], ids=["asyncio", "trio"])
    def test_closed_as_its_head_is_read(self, runner: AsyncRunner) -> None:
        """Closed between its head and its first event, where nothing is waited for, a stream ends there too."""
        streams = list[Any]()

        async def close(_: httpx.Response) -> None:
            await streams[0].aclose()

        async def scenario(lexi: Any) -> None:
            streams.append(lexi.stream_chat("Hi"))
            with pytest.raises(StreamInterruptedError):
                await read(streams[0])
            assert server.wait_for_disconnect()

        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(event_hooks={"response": [close]})

        script = LexiScript(stream_fault=Cut(0, "stall"))
        with ScriptedServer(script) as server, no_leaks(), must_not_hang(10):
            runner.run(scenario, base_url=server.url, http_client=client)


async def _final(stream: Any) -> object:
    return await stream.final_reply()


async def _texts(stream: Any) -> object:
    return [text async for text in stream.text_stream]


def _held(connection: Connection) -> None:
    """Answer with a head, and with the body once the test says so."""
    LexiScript(stream_fault=_hold)(connection)


def _hold(connection: Connection, plain: Any) -> None:
    connection.send(plain.head)
    connection.wait_for()
    connection.send(*map(plain.frame, plain.body))
    plain.end(connection)
