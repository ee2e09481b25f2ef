"""One TCP connection: ASGI hides it, but faults cut it, and requests must learn that their client is gone."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable

from starlette.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

SILENCE = logging.getLogger("leadlex.sandbox.uvicorn")
SILENCE.setLevel(logging.CRITICAL + 1)


class Connection(H11Protocol):
    """uvicorn's protocol, which applications find in the state of a request: see `of`."""

    on_lost: Callable[[], None] | None = None

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        # uvicorn's own loggers belong to the process, which may run another uvicorn.
        self.logger, self.access_log = SILENCE, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.app_state = {"connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the latest request."""
        super().connection_lost(exc)
        if self.on_lost:
            self.on_lost()

    def abandon(self) -> None:
        """Close at once; it is not the client who left."""
        self.on_lost = None
        self.transport.abort()

    def cut(self, *, reset: bool) -> None:
        """Close in the middle of an answer, with FIN or with RST; nor has the client left then."""
        self.on_lost = None
        if reset:
            # No time to linger makes close() send RST: socket(7), SO_LINGER.
            no_time = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        self.transport.close()


def of(scope: Scope) -> Connection:
    """Give the connection over which a request came."""
    connection: Connection = scope["state"]["connection"]
    return connection
