"""An error that crosses a task queue keeps its charge, its idempotency key and its advice: a real Celery worker."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from leadlex import APIConnectionError, RateLimitError, StreamInterruptedError
from tests.support.captures import CAPTURE
from tests.support.lexi import Answer, Cut, LexiScript, Lost
from tests.support.server import ScriptedServer

pytest.importorskip("celery")

APP = """
import leadlex
from celery import Celery

app = Celery("tasks", broker="filesystem://", backend="file://{folder}/results")
app.conf.update(
    broker_transport_options={{
        "data_folder_in": "{folder}/queue", "data_folder_out": "{folder}/queue", "control_folder": "{folder}/control"
    }},
    result_serializer="{serializer}",
    accept_content=["json"], result_accept_content=["json", "pickle"],
)

@app.task
def ask(how, url):
    with leadlex.LeadLex("wbk_test_0123456789abcdef", base_url=url, retries=0, resume=False) as lexi:
        return (lexi.chat("Hi") if how == "chat" else lexi.stream_chat("Hi").final_reply()).response
"""


@pytest.fixture(params=["json", "pickle"])
def worker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a worker in a process of its own, and give the task as its caller sees it."""
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    module = f"leadlex_tasks_{request.param}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(APP.format(folder=tmp_path, serializer=request.param)))
    monkeypatch.syspath_prepend(tmp_path)
    command = [sys.executable, "-m", "celery", "-A", module, "worker", "-P", "solo", "-l", "ERROR"]
    with subprocess.Popen([*command, "--without-gossip", "--without-mingle"], cwd=tmp_path) as process:
        try:
            yield __import__(module).ask
        finally:
            process.terminate()
            process.wait(20)


def test_a_failed_task_tells_what_it_told(worker: Any) -> None:
    """Whoever fetches the result reads the same words as the worker: charged, idempotency key, when to come back."""
    stream = LexiScript(stream_fault=Cut(CAPTURE.index(b"in the Proposal")))
    with ScriptedServer(LexiScript(chat_fault=Lost())) as lost, ScriptedServer(stream) as cut:
        with pytest.raises(APIConnectionError) as caught:
            worker.delay("chat", lost.url).get(timeout=30)
        assert (caught.value.charged, type(caught.value).__name__) == ("unknown", "APIConnectionError")
        assert "Whether it was charged is not known" in str(caught.value)
        assert "safe" not in str(caught.value)
        with pytest.raises(StreamInterruptedError) as interrupted:
            worker.delay("stream", cut.url).get(timeout=30)
        error = interrupted.value
        assert (error.charged, error.idempotency_key) == ("unknown", cut.requests[0].idempotency_key)
        assert isinstance(error.first_sent, datetime)
        assert f"idempotency_key={error.idempotency_key!r}, first_sent=" in str(error)
        assert [each.failure for each in error.attempt_log] == ["cut"]
    refused = Answer(429, code="rate_limited", headers={"Retry-After": "3600"})
    with ScriptedServer(LexiScript(chat_fault=refused)) as limited:
        with pytest.raises(RateLimitError) as late:
            worker.delay("chat", limited.url).get(timeout=30)
        assert (late.value.retry_after, late.value.charged, late.value.from_service) == (3600.0, "no", True)
