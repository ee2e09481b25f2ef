"""A client of httpx that keeps no cookies."""

from __future__ import annotations

from typing import Final

import httpx


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none, without the tenth of a call that it takes to look for some."""


_NONE: Final = _NoCookies()


class CookielessClient(httpx.AsyncClient):
    """A client that keeps no cookies: a service that is asked with a key has none to give."""

    @property  # type: ignore[misc]  # without a setter: there is nothing to put into
    def cookies(self) -> httpx.Cookies:  # pyright: ignore[reportIncompatibleMethodOverride]  # the same
        """None, whatever the service said."""
        return _NONE
