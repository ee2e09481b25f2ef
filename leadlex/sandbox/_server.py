"""uvicorn in a thread of its own, on a socket that is bound first, so that its port is known at once."""

import asyncio
import socket
import sys
import threading
from concurrent.futures import Future

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from ._connection import Connection


class Server:
    """An ASGI application on a loopback port; port 0 takes a free one, OSError says that a port is taken."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=75,
        )
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="leadlex-sandbox", daemon=True)
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Cut all connections and end the thread; what was being generated is given up."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        """Serve until told to stop.

        Not through `uvicorn.Server`, which looks every 0.1 s whether it should stop, then waits for its
        connections, and takes over the process's signals.
        """
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        state = ServerState()
        listener = await self._loop.create_server(
            lambda: Connection(self._config, state, {}), sock=self._socket
        )
        self._ready.set_result(None)
        await self._stopping.wait()
        listener.close()
        for connection in state.connections:
            connection.transport.abort()  # type: ignore[union-attr]
        await asyncio.sleep(0)  # lets each connection learn that it is lost; asyncio.run cancels what is left


def _listen(port: int) -> socket.socket:
    """Take a port. asyncio sets TCP_NODELAY only on sockets that say TCP; without it each answer is 40 ms late."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
