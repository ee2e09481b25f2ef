"""A sandbox that answers at once, and a plain httpx client to talk to it."""

from collections.abc import Iterator

import httpx
import pytest

from leadlex.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Start a sandbox in which no time passes."""
    with Sandbox(pace=0, task_seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """Give a client with the sandbox's key."""
    with client_of(sandbox) as client:
        yield client


def client_of(sandbox: Sandbox, key: str | None = None) -> httpx.Client:
    """Make a client of a sandbox, with the key of all permissions or another."""
    return httpx.Client(base_url=sandbox.url, headers={"Authorization": f"Bearer {key or sandbox.api_key}"}, timeout=10)
