"""Webhooks: one is signed and sent as LeadLex does, to try what receives them.

Rule: what is sent is what the receiver will find right, so it is verified here first.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import httpx

import leadlex
from leadlex import webhooks

from ._output import Output
from ._prompt import read_all
from ._text import utc

_PATIENCE: Final = 10.0
"""Seconds in which LeadLex wants an answer."""

_WORKSPACE: Final = "ws_sandbox"


def send(options: Namespace, out: Output) -> None:
    """Send one, and tell what was sent and what the endpoint answered."""
    secret, body = _secret(options), _body(options)
    headers = webhooks.sign(body, secret)
    sent = webhooks.verify(body, headers, secret)
    out.wait("The webhook is on its way…")
    answer = _post(options.url, body, headers)
    if not answer.is_success:
        raise leadlex.LeadLexError(f"The endpoint answered {_named(answer)}, and not 2xx.", {"charged": "no"})
    out.value(sent)
    out.note(f"The endpoint answered {_named(answer)}.")


def _secret(options: Namespace) -> str:
    secret = options.secret or os.environ.get("LEADLEX_WEBHOOK_SECRET", "")
    if not secret:
        raise leadlex.ConfigurationError(
            "There is no secret. Set LEADLEX_WEBHOOK_SECRET to the one that the endpoint verifies with."
        )
    return str(secret)


def _body(options: Namespace) -> bytes:
    """Write the delivery, with the data of `--data` or of stdin."""
    text = options.data
    if text is None and not sys.stdin.isatty():
        text = read_all("data")
    try:
        data = json.loads(text or "{}")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise leadlex.ConfigurationError('The data must be a JSON object, as {"id": "task_01HY1"}.')
    moment = utc(datetime.now(UTC).replace(microsecond=0))
    told = {"event": options.event, "timestamp": moment, "workspace_id": _WORKSPACE, "data": data}
    return json.dumps(told).encode()


def _post(url: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    try:
        return httpx.post(url, content=body, headers=headers, timeout=_PATIENCE)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise leadlex.ConfigurationError("The URL of the endpoint must begin with http:// or https://.") from None
    except httpx.TimeoutException:
        problem = f"The endpoint gave no answer within {_PATIENCE:g} s."
    except httpx.HTTPError as error:
        problem = f"The endpoint could not be reached: {error}."
    raise leadlex.APIConnectionError(problem, {"charged": "no"})


def _named(answer: httpx.Response) -> str:
    known = answer.status_code in [*HTTPStatus]
    return f"{answer.status_code} {HTTPStatus(answer.status_code).phrase}" if known else str(answer.status_code)
