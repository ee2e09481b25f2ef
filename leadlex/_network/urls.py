"""URLs of requests, parsed once where they name an endpoint, and without their query in httpx's log."""

from __future__ import annotations

import logging
from functools import lru_cache

import httpx


class DiscreetURL(httpx.URL):
    """A URL whose query (a search, ids) httpx's own line on a request does not show."""


def _without_query(line: logging.LogRecord) -> bool:
    if isinstance(line.args, tuple):
        line.args = tuple(arg.copy_with(query=None) if type(arg) is DiscreetURL else arg for arg in line.args)
    return True


logging.getLogger("httpx").addFilter(_without_query)


@lru_cache(maxsize=16)
def parsed_url(url: str) -> httpx.URL:
    return httpx.URL(url)
