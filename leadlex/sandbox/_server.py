"""uvicorn in a thread of its own, on a socket that is bound first, so that its port is known."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from leadlex._errors import ConfigurationError
from leadlex._steady_clock import keep_time
from leadlex._system_threads import system_event, system_thread, why_no_loop

from ._connection import Connection


class Server:
    """An ASGI application on a port, from the beginning on until `stop`.

    Args:
        app: the application.
        host: the address that it listens on, or a name of it.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken, or there are too many open files.
        ConfigurationError: another event loop runs in this thread, for all threads are one, as under eventlet.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=75,
        )
        self._socket = _listen(host, port)
        self.url = _url(*self._socket.getsockname()[:2])
        self._ready = system_event()
        self._refusal: Exception | None = None
        self._process = os.getpid()
        self._thread = system_thread(self._run, "leadlex-sandbox")
        self._thread.start()
        self._ready.wait()
        if self._refusal:
            raise self._refusal

    def run(self, work: Callable[[], None]) -> None:
        """Do something between two steps of what is served, wait until it is done, and raise what it raised."""
        done, failures = system_event(), list[Exception]()

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits
                failures.append(error)
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()
        for failure in failures:
            raise failure

    def stop(self) -> None:
        """Cut all connections and end the thread; answers that are on their way are given up."""
        if self._process != os.getpid():  # a forked child's copy is not what serves
            self._socket.close()
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        serving = self._serve()
        try:
            asyncio.run(serving)
        except (OSError, RuntimeError) as error:
            serving.close()
            self._socket.close()
            self._refusal = ConfigurationError(why_no_loop(error)) if isinstance(error, RuntimeError) else error
            self._ready.set()

    async def _serve(self) -> None:
        """Serve until told to stop.

        Not through `uvicorn.Server`: it looks ten times a second whether it should stop, then waits for its
        connections to end, and takes over the signals of the process.
        """
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        keep_time(self._loop)
        state = ServerState()
        server = await self._loop.create_server(lambda: Connection(self._config, state), sock=self._socket)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for connection in cast("set[Connection]", state.connections):
            connection.abandon()
        await asyncio.sleep(0)  # lets connections learn that they are lost; asyncio.run cancels the rest


def _url(address: str, port: int) -> str:
    """Write where it is reached; what listens on all addresses is reached on this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - not to listen on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    """Take a port. asyncio sets TCP_NODELAY only on a socket that says TCP; else answers take 40 ms."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows this option would let two servers share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, sys.platform != "win32")
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
