"""What mitmproxy does with the answers that it reads; mitmproxy loads this, and nothing else of the tests.

The path of a call says it: `/held/…` is read to its end before it is handed on, `/page/…` is replaced by a page,
`/killed/…` is cut; all else passes as it comes. Calls to `tasks` always pass.
"""

from __future__ import annotations

from typing import Any

PAGE = b"<html><h1>Blocked by data loss prevention</h1></html>"


def _order(flow: Any) -> str:
    path: str = flow.request.path.partition("?")[0]
    return "" if path.endswith("/tasks") else path.split("/")[1]


def responseheaders(flow: Any) -> None:
    """Hold an answer back only where the order needs all of it."""
    flow.response.stream = _order(flow) not in {"held", "page", "killed"}


def response(flow: Any) -> None:
    """Do with a whole answer what was ordered."""
    if _order(flow) == "killed":
        flow.kill()
    elif _order(flow) == "page":
        flow.response.status_code = 403
        flow.response.headers.clear()
        flow.response.headers["content-type"] = "text/html"
        flow.response.content = PAGE
