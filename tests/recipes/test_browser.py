"""A page that reads Lexi through an endpoint, in a real browser."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from leadlex.sandbox import Sandbox
from tests.portal.test_frameworks import needs
from tests.recipes.test_web import fastapi_app, sandbox, slow_sandbox
from tests.support.runners import SyncRunner, drive
from tests.support.web import serving

__all__ = ["sandbox", "slow_sandbox"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Tells what it reads, event by event, and its end.
READER = """<script>
const source = new EventSource("/ask?question=Hi"), read = []
const data = event => event.data && event.data.startsWith("{") ? JSON.parse(event.data) : event.data
const note = event => read.push([event.type, data(event)])
const tell = () => { source.close(); fetch("/told", {method: "POST", body: JSON.stringify(read)}) }
for (const name of ["thinking", "tool_step", "text", "done"]) source.addEventListener(name, note)
source.addEventListener("message", event => { note(event); tell() })
source.addEventListener("error", event => { note(event); tell() })
</script>"""

#: Closes the page in its frame at that one's first event.
CLOSER = """<iframe src="/within"></iframe><script>
addEventListener("message", () => {
  document.querySelector("iframe").remove()
  fetch("/told", {method: "POST", body: '"closed"'})
})
</script>"""

WITHIN = """<script>
const source = new EventSource("/ask?question=Hi")
source.addEventListener("thinking", () => parent.postMessage("thinking", "*"))
</script>"""


def pages(told: list[Any]) -> Any:
    """Give the README's application, with pages that read its endpoint."""
    from fastapi import Request  # noqa: PLC0415  # it may not be installed
    from fastapi.responses import HTMLResponse  # noqa: PLC0415  # the same

    app = fastapi_app()

    async def tell(request: Any) -> None:
        told.append(await request.json())

    tell.__annotations__["request"] = Request
    app.get("/reader", response_class=HTMLResponse)(lambda: READER)
    app.get("/closer", response_class=HTMLResponse)(lambda: CLOSER)
    app.get("/within", response_class=HTMLResponse)(lambda: WITHIN)
    app.post("/told")(tell)
    return app


@contextlib.contextmanager
def browsing(url: str, place: Path) -> Generator[None]:
    """Look at a page."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={place}", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            yield
        finally:
            browser.terminate()


page = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@page
@needs("fastapi")
def test_a_page_that_reads(sandbox: Sandbox, tmp_path: Path) -> None:
    """A page's EventSource reads every event, and the error where Lexi breaks off."""
    told = list[Any]()
    with serving(pages(told)) as url:
        with browsing(f"{url}/reader", tmp_path / "1"):
            drive(SyncRunner().until(lambda: told))
        sandbox.fail_next("error_event", after_bytes=200, code="tool_failed", message="The search is down")
        with browsing(f"{url}/reader", tmp_path / "2"):
            drive(SyncRunner().until(lambda: told[1:]))
    assert [*dict.fromkeys(name for name, _ in told[0])] == ["thinking", "text", "done", "message"]
    assert "Lexi" in "".join(data["delta"] for name, data in told[0] if name == "text")
    assert told[1][-1] == ["error", {"code": "tool_failed", "message": "The search is down"}]


@page
@needs("fastapi")
def test_a_page_that_is_closed(slow_sandbox: Sandbox, tmp_path: Path) -> None:
    """A page that is closed stops Lexi, long before it has said all."""
    told = list[Any]()
    with serving(pages(told)) as url, browsing(f"{url}/closer", tmp_path):
        drive(SyncRunner().until(lambda: told))
        drive(SyncRunner().until(lambda: slow_sandbox.requests[-1].disconnected))
