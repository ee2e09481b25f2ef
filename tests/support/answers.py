"""Answers as bytes; each carries the headers that the contract puts on every response."""

import http
import json
from typing import Any

Headers = dict[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...]

#: The contract's own example of a reset lies in the past, so nobody ever waits for it.
CONTRACT_HEADERS: dict[str, str] = {
    "X-RateLimit-Limit": "1000",
    "X-RateLimit-Remaining": "999",
    "X-RateLimit-Reset": "1708905600",
    "X-Request-ID": "req_01HY1",
}


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, dict) else headers)


def _names(headers: Headers) -> set[str]:
    return {name.lower() for name, _ in _pairs(headers)}


def head(status: int, headers: Headers = (), *, contract: bool = True) -> bytes:
    """Build a response's head.

    Args:
        status: Any number, sensible or not.
        headers: Fields to send; they replace the contract's of the same name and may repeat each other.
        contract: Whether the contract's headers are added.
    """
    given = _pairs(headers)
    names = _names(given)
    added = [pair for pair in CONTRACT_HEADERS.items() if contract and pair[0].lower() not in names]
    lines = [
        f"HTTP/1.1 {status:03} {_reason(status)}",
        *(f"{name}: {value}" for name, value in (*added, *given)),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _reason(status: int) -> str:
    return http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"


def answer(status: int, body: bytes, headers: Headers = (), *, contract: bool = True) -> bytes:
    """Build a whole response with a Content-Length, unless `headers` name a length or a transfer coding."""
    given = _pairs(headers)
    framed = _names(given) & {"content-length", "transfer-encoding"}
    length = [] if framed else [("Content-Length", str(len(body)))]
    return head(status, [*given, *length], contract=contract) + body


def json_answer(status: int, body: Any, headers: Headers = (), *, contract: bool = True) -> bytes:
    """Build a whole JSON response; `body` is encoded, or sent as it is when it is bytes already."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    given = _pairs(headers)
    kind = _content_type(given, "application/json")
    return answer(status, data, [*kind, *given], contract=contract)


def error_answer(status: int, code: str, message: str = "Refused", headers: Headers = ()) -> bytes:
    """Build a response with the contract's error body."""
    return json_answer(status, {"error": {"code": code, "message": message}}, headers)


def sse_head(headers: Headers = (), *, chunked: bool = True, length: int | None = None, contract: bool = True) -> bytes:
    """Build the head of a stream.

    Args:
        headers: Further fields; a Content-Type among them replaces the right one.
        chunked: Whether the body comes in chunks; without, and without a length, the end of the
            connection ends it.
        length: The Content-Length in bytes, instead of chunks.
        contract: Whether the contract's headers are added.
    """
    given = _pairs(headers)
    kind = _content_type(given, "text/event-stream")
    return head(200, [*kind, *_framing(chunked=chunked, length=length), *given], contract=contract)


def _content_type(given: Headers, value: str) -> list[tuple[str, str]]:
    return [] if "content-type" in _names(given) else [("Content-Type", value)]


def _framing(*, chunked: bool, length: int | None) -> list[tuple[str, str]]:
    if length is not None:
        return [("Content-Length", str(length))]
    return [("Transfer-Encoding", "chunked")] if chunked else [("Connection", "close")]


def chunk(data: bytes) -> bytes:
    """Frame some bytes as one chunk; no bytes give no chunk, since an empty one ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk() -> bytes:
    """Give the chunk that ends a body."""
    return b"0\r\n\r\n"
