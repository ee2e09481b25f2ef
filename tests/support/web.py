"""A web application served in a thread, as its own server would."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any

import uvicorn

from tests.support.runners import SyncRunner, drive


@contextlib.contextmanager
def serving(app: Any) -> Generator[str]:
    """Serve an ASGI application by uvicorn on a free port, and give its base URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    try:
        drive(SyncRunner().until(lambda: server.started))
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
