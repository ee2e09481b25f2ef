"""`leadlex webhooks send`: what arrives is what LeadLex would have sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, MutableMapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import cast

import pytest

from leadlex import webhooks

from .conftest import Run, Terminal
from .test_terminal import plain

SECRET = "whsec_4f0c9b1d"


class Endpoint(HTTPServer):
    """A receiver of webhooks: `status` is what it answers, `events` what it found right."""

    status = 204

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.events: list[webhooks.WebhookEvent] = []
        self.url = f"http://127.0.0.1:{self.server_port}/webhooks"


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        endpoint = cast("Endpoint", self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        endpoint.events.append(webhooks.verify(body, self.headers, SECRET))
        self.send_response_only(endpoint.status)
        self.end_headers()


@pytest.fixture
def endpoint(environ: MutableMapping[str, str]) -> Iterator[Endpoint]:
    """Start a receiver whose secret the environment has."""
    environ["LEADLEX_WEBHOOK_SECRET"] = SECRET
    with Endpoint() as endpoint:
        serving = threading.Thread(target=endpoint.serve_forever, args=(0.01,))
        serving.start()
        yield endpoint
        endpoint.shutdown()
        serving.join()


def test_a_webhook_is_signed_and_sent(run: Run, endpoint: Endpoint) -> None:
    """The receiver finds it right and fresh; a program is told what was sent."""
    result = run("webhooks", "send", endpoint.url, "--event", "task.approved", "--data", '{"id": "t"}', "--json")
    [event] = endpoint.events
    assert (event.event, event.data, event.workspace_id) == ("task.approved", {"id": "t"}, "ws_sandbox")
    assert event.delivery_id
    assert (result.code, result.lines, result.err) == (0, [event.to_dict()], "")


@pytest.mark.parametrize(
    ("given", "data"), [(b'{"id": "t"}\n', {"id": "t"}), ('{"id": "Ł"}'.encode("utf-16"), {"id": "Ł"}), (b"", {})]
)
def test_the_data_may_come_from_stdin(run: Run, endpoint: Endpoint, given: bytes, data: dict[str, str]) -> None:
    """What is piped in is what it is about; without anything a task was created."""
    assert run("webhooks", "send", endpoint.url, stdin=given).code == 0
    [event] = endpoint.events
    assert (event.event, event.data) == ("task.created", data)


def test_a_person_is_told_what_was_answered(run_on: Run, terminal: Terminal, endpoint: Endpoint) -> None:
    """On a terminal nothing is read, and the delivery is told with what the endpoint answered."""
    assert run_on("webhooks", "send", endpoint.url).code == 0
    shown = plain(terminal.text)
    assert f"{endpoint.events[0].delivery_id}  task.created was delivered." in shown
    assert "The endpoint answered 204 No Content." in shown


def test_the_secret_may_be_given(run: Run, endpoint: Endpoint, environ: MutableMapping[str, str]) -> None:
    """An option stands over the environment."""
    environ["LEADLEX_WEBHOOK_SECRET"] = "whsec_other"
    assert run("webhooks", "send", endpoint.url, "--secret", SECRET).code == 0
    assert len(endpoint.events) == 1


@pytest.mark.parametrize(("status", "told"), [(500, "500 Internal Server Error"), (302, "302 Found"), (299, "299")])
def test_what_is_not_taken_is_an_error(run: Run, endpoint: Endpoint, status: int, told: str) -> None:
    """A status outside of 2xx is told, and the exit code is that of any other error; 2xx is 2xx."""
    endpoint.status = status
    result = run("webhooks", "send", endpoint.url)
    assert result.code == (0 if status == 299 else 1)
    assert f"The endpoint answered {told}" in result.err
    assert SECRET not in result.err


def test_who_is_not_there_is_told(run: Run, environ: MutableMapping[str, str]) -> None:
    """An endpoint that can't be reached is exit code 8."""
    environ["LEADLEX_WEBHOOK_SECRET"] = SECRET
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = run("webhooks", "send", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert result.code == 8
    assert "The endpoint could not be reached" in result.err


def test_who_is_silent_is_given_up(
    run: Run, environ: MutableMapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that gives no answer in time is exit code 8 too."""
    environ["LEADLEX_WEBHOOK_SECRET"] = SECRET
    monkeypatch.setattr("leadlex.cli._webhooks._PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = run("webhooks", "send", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert result.code == 8
    assert "no answer within 0.05 s" in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ftp://127.0.0.1"], "must begin with http"),
        (["127.0.0.1/webhooks"], "must begin with http"),
        (["http://127.0.0.1:x"], "must begin with http"),
        (["http://127.0.0.1", "--data", "[1]"], "must be a JSON object"),
        (["http://127.0.0.1", "--data", "{"], "must be a JSON object"),
        (["http://127.0.0.1", "--data", "[" * 100_000], "must be a JSON object"),
    ],
)
def test_what_can_t_be_sent_is_told(
    run: Run, environ: MutableMapping[str, str], arguments: list[str], says: str
) -> None:
    """Another URL, or data that is no object, is a wrong call."""
    environ["LEADLEX_WEBHOOK_SECRET"] = SECRET
    result = run("webhooks", "send", *arguments)
    assert result.code == 2
    assert says in result.err


def test_a_missing_secret_says_where_it_is_looked_for(run: Run, environ: MutableMapping[str, str]) -> None:
    """Without a secret nothing is sent."""
    environ.pop("LEADLEX_WEBHOOK_SECRET", None)
    result = run("webhooks", "send", "http://127.0.0.1")
    assert result.code == 2
    assert "LEADLEX_WEBHOOK_SECRET" in result.err
