"""A stream's events on the wire again: what `leadlex.sse` writes is what the service wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import anyio
import httpx
import pytest
from httpx_sse import EventSource

import leadlex
from leadlex import ConfigurationError, StreamEvent, UnknownEvent
from tests.support.captures import CAPTURE, CAPTURE_EVENTS, LONG, encode_event
from tests.support.lexi import Answer, Cut, LexiScript, Plain
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import Adapted, AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer

COMMENT = b": keep-alive\n\n"
BROKE_OFF = "The answer broke off."


def sse(stream: Any, **options: Any) -> Any:
    """Write a stream of any client."""
    wire: object = leadlex.sse(getattr(stream, "_value", stream), **options)
    return Adapted(wire) if isinstance(wire, Iterator) else wire


async def written(stream: Any) -> bytes:
    """Read all that is written of a stream."""
    return b"".join([data async for data in sse(stream)])


def error_of(data: bytes) -> dict[str, str]:
    """Read the `error` event that is the end of what was written."""
    head, _, told = data.rpartition(b"event: error\ndata: ")
    assert told.endswith(b"\n\n")
    assert b"[DONE]" not in head
    error: dict[str, str] = json.loads(told)
    return error


class TestWritten:
    """What is written can be read."""

    @pytest.mark.parametrize("stream", [CAPTURE, LONG], ids=["capture", "long"])
    def test_the_same(self, runner: Runner, stream: bytes) -> None:
        """Behind a first comment the bytes are the service's own; a blank line ends the last line, for browsers."""

        async def scenario(lexi: Any) -> None:
            assert await written(lexi.stream_chat("Hi")) == COMMENT + stream + b"\n"

        with ScriptedServer(LexiScript(stream=stream)) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_read_again(self, runner: Runner) -> None:
        """Both leadlex and httpx-sse read it as they read the service, unknown events and fields included."""
        odd = (
            b'event: thinking\ndata: {"text": "\\ud83d half", "type": 1, "depth": null}\n\n'
            b"event: progress\ndata: 10 %\ndata:  of it\ndata:\n\n"
            b"data: by the way\n\n"
            b'event: tool_step\ndata: {"tool": "contacts.get", "status": "started", "summary": null}\n\n'
            b'event: text\ndata: {"delta": "a\\nb \\ud83d\\udd0e", "conversation_id": "conv_1", "at": {"x": [1]}}\n\n'
            b"data: [DONE]\n"
        )

        async def scenario(lexi: Any) -> tuple[list[StreamEvent], bytes]:
            return [event async for event in lexi.stream_chat("Hi")], await written(lexi.stream_chat("Hi"))

        with ScriptedServer(LexiScript(stream=odd)) as server:
            events, first = runner.run(scenario, base_url=server.url)
        with ScriptedServer(LexiScript(stream=first)) as server:
            again, second = runner.run(scenario, base_url=server.url)
        assert again == events
        assert second == first
        assert UnknownEvent("progress", "10 %\n of it\n") in events
        response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=first)
        read = [(each.event, each.data) for each in EventSource(response).iter_sse()]
        assert [name for name, _ in read] == ["thinking", "progress", "message", "tool_step", "text", "done", "message"]
        assert json.loads(read[4][1]) == {"delta": "a\nb 🔎", "conversation_id": "conv_1", "at": {"x": [1]}}

    def test_started(self, runner: Runner) -> None:
        """A stream that has begun needs no comment, and loses nothing."""

        async def scenario(lexi: Any) -> None:
            assert await written(await lexi.stream_chat("Hi").start()) == CAPTURE + b"\n"

        with ScriptedServer(LexiScript()) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_refusals(self, runner: Runner) -> None:
        """What is no stream, and what is no time, is refused at once."""

        async def scenario(lexi: Any) -> None:
            with pytest.raises(ConfigurationError, match="stream must be what stream_chat returned; given: str"):
                leadlex.sse(cast("Any", "Hi"))
            with pytest.raises(ConfigurationError, match="keep_alive must be a number of seconds"):
                sse(lexi.stream_chat("Hi"), keep_alive=0)

        runner.run(scenario)


class TestBroken:
    """How a stream ends that breaks."""

    def ends(self, runner: Runner, script: LexiScript, **options: Any) -> dict[str, str]:
        """Read the error of a stream, in which nothing is that is nobody's business."""

        async def scenario(lexi: Any) -> bytes:
            stream = lexi.stream_chat("Hi")
            data = await written(stream)
            assert stream.idempotency_key.encode() not in data
            return data

        with ScriptedServer(script) as server, no_leaks():
            data = runner.run(scenario, base_url=server.url, **options)
            assert b"127.0.0.1" not in data
        return error_of(data)

    def test_the_service_s_own_word(self, runner: Runner) -> None:
        """What the service refused or broke off is told in its words, before and after the first event."""
        refused = LexiScript(stream_fault=Answer(402, code="insufficient_credits"), times=None)
        assert self.ends(runner, refused) == {"code": "insufficient_credits", "message": "Refused"}
        event = encode_event(("error", {"code": "tool_failed", "message": "The search is down ☹"}))
        broken = LexiScript(stream=encode_event(CAPTURE_EVENTS[0]) + event)
        assert self.ends(runner, broken) == {"code": "tool_failed", "message": "The search is down ☹"}
        wordless = LexiScript(stream=encode_event(("error", {})))
        assert self.ends(runner, wordless) == {"code": "APIStatusError", "message": BROKE_OFF}

    def test_everything_else(self, runner: Runner) -> None:
        """Of all other ends only the class is told."""
        cut = LexiScript(stream_fault=Cut(300), times=None)
        told = self.ends(runner, cut, resume=False)
        assert told == {"code": "StreamInterruptedError", "message": BROKE_OFF}
        page = LexiScript(stream_fault=Answer(403, b"<h1>proxy.firm.example says no</h1>"), times=None)
        assert self.ends(runner, page) == {"code": "PermissionDeniedError", "message": BROKE_OFF}
        form = LexiScript(stream_fault=Answer(500, code="internal_error"), times=None)
        assert self.ends(runner, form, retries=0) == {"code": "ServerError", "message": BROKE_OFF}

    def test_read_again(self, runner: Runner) -> None:
        """A client of leadlex that reads the error raises what the first one raised."""

        async def scenario(lexi: Any) -> None:
            with pytest.raises(leadlex.InsufficientCreditsError, match="No credits") as info:
                await lexi.stream_chat("Hi").final_reply()
            assert (info.value.code, info.value.from_service) == ("insufficient_credits", True)

        event = ("error", {"code": "insufficient_credits", "message": "No credits"})
        with ScriptedServer(LexiScript(stream=encode_event(event))) as server:
            data = runner.run(lambda lexi: written(lexi.stream_chat("Hi")), base_url=server.url)
        with ScriptedServer(LexiScript(stream=data)) as server:
            runner.run(scenario, base_url=server.url)


def held(connection: Connection, plain: Plain) -> None:
    """Send the head, then the first event, then the others, each once the test says so."""
    connection.wait_for("head")
    connection.send(plain.head)
    connection.wait_for("first")
    connection.send(plain.frame(plain.body[0]))
    connection.wait_for("rest")
    connection.send(*map(plain.frame, plain.body[1:]))
    plain.end(connection)


class TestSilence:
    """What keeps a connection alive."""

    def test_comments(self, runner: Runner) -> None:
        """While Lexi is silent comments go out, the first at once; they cost no event, nor an attempt."""

        async def scenario(lexi: Any) -> None:
            wire = sse(lexi.stream_chat("Hi"), keep_alive=0.02)
            assert await anext(wire) == COMMENT
            assert not server.requests
            data = b""
            for name in ("head", "first", "rest"):
                for _ in range(3):
                    assert await anext(wire) == COMMENT
                server.release(name)
                async for each in wire:
                    data += each.replace(COMMENT, b"")
                    if data or name == "head":
                        break
            data += b"".join([each async for each in wire])
            assert data.replace(COMMENT, b"") == CAPTURE + b"\n"
            assert len(server.requests) == 1

        with ScriptedServer(LexiScript(stream_fault=held)) as server, no_leaks(), must_not_hang(20):
            runner.run(scenario, base_url=server.url)


class TestLeft:
    """A page that is closed."""

    @pytest.mark.parametrize("fault", [Cut(0, "stall"), Cut(200, "stall")], ids=["silent", "begun"])
    def test_closed(self, runner: Runner, fault: Any) -> None:
        """Closing what is written closes Lexi's stream, without a warning, and ends it."""

        async def scenario(lexi: Any) -> None:
            wire = sse(lexi.stream_chat("Hi"), keep_alive=0.02)
            await anext(wire)
            await anext(wire)
            await wire.aclose()
            assert server.wait_for_disconnect()
            assert [each async for each in wire] == []
            await wire.aclose()

        with ScriptedServer(LexiScript(stream_fault=fault)) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_closed_before_it_began(self, runner: Runner) -> None:
        """A response that was never sent closes the stream that was started for it."""

        async def scenario(lexi: Any) -> None:
            await sse(await lexi.stream_chat("Hi").start()).aclose()
            assert server.wait_for_disconnect()

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks():
            runner.run(scenario, base_url=server.url)

    def test_closed_by_another(self, runner: Runner) -> None:
        """Another task, or thread, may close what is waited for: who waits is told that it broke off."""

        async def scenario(lexi: Any) -> None:
            wire = sse(await lexi.stream_chat("Hi").start())
            await anext(wire)

            async def read() -> bytes:
                return b"".join([each async for each in wire])

            async def close() -> None:
                await runner.until(lambda: server.stalls)
                await runner.sleep(0.05)
                await wire.aclose()

            data, _ = await runner.together(read, close)
            assert isinstance(data, bytes)
            assert error_of(data)["code"] == "StreamInterruptedError"

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)

    def test_two_readers(self, runner: Runner) -> None:
        """A stream that is written for one reader is not written for another."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            await stream.start()

            async def read() -> bytes:
                return b"".join([each async for each in sse(stream)])

            async def read_too() -> bytes:
                await runner.until(lambda: server.stalls)
                await runner.sleep(0.05)
                data = await read()
                await stream.aclose()
                return data

            _, data = await runner.together(read, read_too)
            assert isinstance(data, bytes)
            assert error_of(data)["code"] == "StreamBusyError"

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks(), must_not_hang():
            runner.run(scenario, base_url=server.url)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_cancelled(self, backend: str) -> None:
        """A task that is cancelled while it waits leaves nothing open."""

        async def scenario(lexi: Any) -> None:
            wire = leadlex.sse(await lexi.stream_chat("Hi").start())
            with anyio.move_on_after(0.2):
                async for _ in wire:
                    pass
            assert await anyio.to_thread.run_sync(server.wait_for_disconnect)

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks():
            AsyncRunner(backend).run(scenario, base_url=server.url)

    def test_dropped(self) -> None:
        """A response that a server drops without closing it ends the stream too: the loop closes its generator."""

        async def scenario(lexi: Any) -> None:
            wire = leadlex.sse(lexi.stream_chat("Hi"), keep_alive=0.02)
            await anext(wire)
            await anext(wire)
            del wire
            assert await anyio.to_thread.run_sync(server.wait_for_disconnect)

        with ScriptedServer(LexiScript(stream_fault=Cut(200, "stall"))) as server, no_leaks():
            AsyncRunner("asyncio").run(scenario, base_url=server.url)
