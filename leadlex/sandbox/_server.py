"""uvicorn in a thread of its own, on a socket that is bound first, so that its port is known."""

import asyncio
import socket
import sys
import threading
from concurrent.futures import Future
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from ._connection import Connection


class Server:
    """An ASGI application on a loopback port, from the beginning on until `stop`.

    Args:
        app: the application.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken, or there are too many open files.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=75,
        )
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="leadlex-sandbox", daemon=True)
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Cut all connections and end the thread; answers that are on their way are given up."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._socket.close()
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        """Serve until told to stop.

        Not through `uvicorn.Server`: it looks ten times a second whether it should stop, then waits for its
        connections to end, and takes over the signals of the process.
        """
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        state = ServerState()
        server = await self._loop.create_server(lambda: Connection(self._config, state), sock=self._socket)
        self._ready.set_result(None)
        await self._stopping.wait()
        server.close()
        for connection in cast("set[Connection]", state.connections):
            connection.abandon()
        await asyncio.sleep(0)  # lets connections learn that they are lost; asyncio.run cancels the rest


def _listen(port: int) -> socket.socket:
    """Take a port. asyncio sets TCP_NODELAY only on a socket that says TCP; else answers take 40 ms."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows this option would let two servers share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, sys.platform != "win32")
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener
