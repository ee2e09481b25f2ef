"""One TCP connection. ASGI hides it; faults must be able to cut it, and what was seen must tell that it was lost."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's protocol, which shows itself to the application in the state of each request."""

    on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin, and from now on be found by `of`."""
        super().connection_made(transport)
        self.app_state = {"connection": self}
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the request that is being answered."""
        self.lost.set()
        if self.on_lost:
            self.on_lost()
        super().connection_lost(exc)

    def cut(self, *, reset: bool) -> None:
        """Close in the middle of an answer, or reset: then what the client has not yet read may be lost."""
        if reset:
            # Lingering for no time makes close() send RST instead of FIN (socket(7)).
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.on_lost = None
        self.transport.close()


def of(scope: Scope) -> Connection:
    """Find the connection that a request came over."""
    state: dict[str, Any] = scope["state"]
    connection: Connection = state["connection"]
    return connection
