"""leadlex over aiohttp."""

from __future__ import annotations

import leadlex
from benchmarks.clients import leadlex as plain


class Async(plain.Async):
    """The async client over the extra's transport."""

    def __init__(self, url: str) -> None:
        self.lexi = leadlex.AsyncLeadLex(plain.KEY, base_url=url, http_client=leadlex.aiohttp_client)
