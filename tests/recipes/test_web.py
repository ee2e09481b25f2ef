"""Endpoints that stream Lexi's answer, under FastAPI and Flask: their status, their bytes, and who leaves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from leadlex.sandbox import Sandbox
from tests.portal.test_frameworks import gunicorn, needs
from tests.support.runners import SyncRunner, drive
from tests.support.web import serving

README = Path(__file__).parents[2] / "README.md"

FLASK = """
import flask, leadlex
app = flask.Flask("endpoint")
lexi = leadlex.LeadLex()
@app.errorhandler(leadlex.APIStatusError)
def refuse(error):
    return {"code": error.code}, error.status_code
@app.get("/ask")
def ask():
    stream = lexi.stream_chat(flask.request.args["question"]).start()
    return flask.Response(leadlex.sse(stream), mimetype="text/event-stream")
"""


def fastapi_app() -> Any:
    """Give the README's own application."""
    [code] = [
        each for each in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL) if "FastAPI" in each
    ]
    names: dict[str, Any] = {}
    exec(code.rpartition("print(")[0], names)  # noqa: S102  # the README's
    return names["app"]


def fastapi(_: str, __: Path) -> contextlib.AbstractContextManager[str]:
    """Serve the README's application by uvicorn."""
    return serving(fastapi_app())


def flask(url: str, place: Path) -> contextlib.AbstractContextManager[str]:
    """Serve the same of Flask by gunicorn, in threads."""
    return gunicorn(url, place, "-k", "gthread", "--threads", "4", "--workers", "1", app=FLASK)


FRAMEWORKS = [
    pytest.param(fastapi, id="fastapi", marks=needs("fastapi")),
    pytest.param(flask, id="flask", marks=needs("flask", "gunicorn")),
]
Serve = Callable[[str, Path], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def talking(environ: MutableMapping[str, str], pace: int) -> Generator[Sandbox]:
    """Start a sandbox that clients without arguments use."""
    with Sandbox(pace=pace) as sandbox:
        environ["LEADLEX_API_KEY"] = sandbox.api_key
        environ["LEADLEX_BASE_URL"] = sandbox.url
        yield sandbox


@pytest.fixture
def sandbox(environ: MutableMapping[str, str]) -> Generator[Sandbox]:
    """Start a sandbox that talks as fast as it can."""
    with talking(environ, 0) as sandbox:
        yield sandbox


@pytest.fixture
def slow_sandbox(environ: MutableMapping[str, str]) -> Generator[Sandbox]:
    """Start a sandbox that talks for a minute."""
    with talking(environ, 1) as sandbox:
        yield sandbox


@pytest.mark.parametrize("serve", FRAMEWORKS)
def test_an_endpoint(serve: Serve, sandbox: Sandbox, tmp_path: Path) -> None:
    """An endpoint answers 402, 429 and 401 as such, though it streams."""
    with serve(sandbox.url, tmp_path) as url, httpx.Client(base_url=url, timeout=30) as browser:

        def ask(question: str = "Summarize my pipeline") -> httpx.Response:
            return browser.get("/ask", params={"question": question})

        sandbox.fail_next("no_credits")
        answer = ask()
        assert (answer.status_code, answer.json()) == (402, {"code": "insufficient_credits"})
        sandbox.fail_next("rate_limit")
        answer = ask()
        assert (answer.status_code, answer.json()) == (429, {"code": "rate_limited"})
        answer = ask()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n")
        assert len(sandbox.charges) == 1


@pytest.mark.parametrize("serve", FRAMEWORKS)
def test_who_leaves_an_endpoint(serve: Serve, slow_sandbox: Sandbox, tmp_path: Path) -> None:
    """Who leaves an endpoint stops Lexi: at once where the server hears of it, else when it writes the next word."""
    with serve(slow_sandbox.url, tmp_path) as url:
        with httpx.stream("GET", f"{url}/ask", params={"question": "Hi"}, timeout=30) as left:
            assert next(left.iter_bytes())
        drive(SyncRunner().until(lambda: slow_sandbox.requests[-1].disconnected))


@pytest.mark.parametrize("serve", FRAMEWORKS)
def test_an_endpoint_without_a_key(
    serve: Serve, sandbox: Sandbox, tmp_path: Path, environ: MutableMapping[str, str]
) -> None:
    """A key that the service does not know is a 401 of the endpoint's own."""
    environ["LEADLEX_API_KEY"] = "wbk_" + "0" * 32
    with serve(sandbox.url, tmp_path) as url:
        answer = httpx.get(f"{url}/ask", params={"question": "Hi"}, timeout=30)
    assert (answer.status_code, answer.json()) == (401, {"code": "invalid_key"})
