"""The README says nothing that does not run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from leadlex import LeadLex
from leadlex._policy.failures import ANY, REPEATS, UNCHARGED, UNREACHED, FailureKind
from leadlex._protocol import endpoints
from leadlex._protocol.operation import Operation, Repeat
from leadlex.sandbox import Sandbox

README = Path(__file__).parent.parent / "README.md"
FIXTURES = "from leadlex.pytest_plugin import leadlex_sandbox, lexi, lexi_clock"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS, ids=[f"snippet-{i}" for i in range(1, len(SNIPPETS) + 1)])
def test_every_snippet_runs(code: str, environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """A reader who pastes a snippet sees it work: no error, no warning, nothing on stderr."""
    with Sandbox(pace=0) as sandbox, LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        lexi.chat("Summarize my pipeline")  # so that there is something to list
        assert run_snippet(code, sandbox, environ, tmp_path)


def run_snippet(code: str, sandbox: Sandbox, environ: MutableMapping[str, str], tmp_path: Path) -> str:
    """Run a snippet as a script, or with pytest, which must do so without a word on stderr, and give what it prints."""
    environ["LEADLEX_API_KEY"] = sandbox.api_key
    environ["LEADLEX_BASE_URL"] = sandbox.url
    environ["PYTHONPATH"] = str(README.parent)
    script = tmp_path / "test_snippet.py"
    script.write_text(code, "utf-8")
    (tmp_path / "conftest.py").write_text(FIXTURES, "utf-8")
    how = ["-m", "pytest", "-q"] if "def test_" in code else []
    words: list[str | Path] = [sys.executable, "-W", "error", *how, script]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_the_bulk_snippet_keeps_what_was_paid_for(environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """With 20 credits for 100 questions there are 20 replies, and for each other question what to do about it."""
    [code] = [snippet for snippet in SNIPPETS if "gather" in snippet]
    with Sandbox(pace=0, credits=20, prices={"tool_step": 0}) as sandbox:
        printed = run_snippet(code, sandbox, environ, tmp_path).splitlines()
        assert len(sandbox.charges) == 20
    assert printed[0] == "20 replies"
    assert len(printed) == 81
    assert all("no credits left" in line or "Nothing was charged" in line for line in printed[1:])


def test_the_first_commands_are_marked() -> None:
    """The gate runs the README's own commands, which it finds by their marks."""
    marks = re.findall(r"<!-- (\w+) -->\n```sh\n(.+)\n```", README.read_text("utf-8"))
    assert [name for name, _ in marks] == ["demo", "test"]


def test_nobody_is_sent_to_an_index_for_leadlex() -> None:
    """The name is on no index: who installs it from there may install anybody's package."""
    texts = [README, *(README.parent / "leadlex").rglob("*.py")]
    lines = [line for path in texts for line in path.read_text("utf-8").splitlines() if "pip install" in line]
    assert any("pip install '.[sandbox]'" in line for line in lines)
    assert [line for line in lines if re.search(r"pip install '?leadlex", line)] == []


def rows_of_the_retry_table() -> dict[str, list[str]]:
    """Read the README's table of what is repeated: what is said of a GET, of a chat and of a stream, by row."""
    _, _, after = README.read_text("utf-8").partition("What is repeated, when an attempt ends so:\n\n")
    table, _, _ = after.partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in rows}


KINDS: dict[str, set[FailureKind]] = {
    "no connection (refused, timed out, handshake cut)": {FailureKind.NAME, FailureKind.CONNECT, FailureKind.GATEWAY},
    "certificate not accepted": {FailureKind.CERTIFICATE},
    "sent, and no answer came": {FailureKind.WRITE, FailureKind.LOST},
    "429 in the service's own words": {FailureKind.THROTTLED},
    "429 from something in between": {FailureKind.LIMITED},
    "408, 425, 500, 502, 503, 504": {FailureKind.TRANSIENT},
    "409, the first request still runs": {FailureKind.IN_FLIGHT},
    "400, 401, 402, 403, 404, 422 in the service's own words": {FailureKind.REFUSED, FailureKind.OTHER_BODY},
    "any other error, or a redirect, from something in between": {FailureKind.FOREIGN},
}
BROKEN: dict[Repeat, set[FailureKind]] = {
    "free": {FailureKind.BODY},
    "once": {FailureKind.BODY},
    "keyed": {FailureKind.CUT, FailureKind.EVENT},
}


@pytest.mark.parametrize(("column", "repeat"), [(0, "free"), (1, "once"), (2, "keyed")], ids=["GET", "chat", "stream"])
@pytest.mark.parametrize("name", rows_of_the_retry_table())
def test_the_retry_table_is_the_library_s_own(name: str, column: int, repeat: Repeat) -> None:
    """What a cell of the README's table says is repeated and charged is what the policy does."""
    cell = rows_of_the_retry_table()[name][column]
    kinds = KINDS[name] if name in KINDS else BROKEN[repeat]
    for kind in kinds:
        assert (REPEATS[kind][repeat] > 0) == cell.startswith(("yes", "asked again", "continued")), kind
        assert ("in mid-stream asked again" in cell) <= (kind in UNREACHED), kind
        if cell.startswith("no"):
            assert ('"unknown"' in cell) == (repeat != "free" and kind not in UNCHARGED), kind


def test_the_retry_table_has_a_row_for_all_that_is_repeated() -> None:
    """A failure that is repeated and that a reader would look for is in the table."""
    told = {kind for kinds in (*KINDS.values(), *BROKEN.values()) for kind in kinds}
    untold = {kind for kind, repeats in REPEATS.items() if ANY in repeats.values()} - told
    assert not untold
    assert {*KINDS, "broke off in the middle"} == {*rows_of_the_retry_table()}


def rows_of_the_money_table() -> dict[str, list[str]]:
    """Read the README's table of calls: permission, credits, repeated, charged twice, by the calls it names."""
    _, _, after = README.read_text("utf-8").partition("## Money\n\n")
    table, _, _ = after.partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in rows}


CALLS: dict[str, list[Operation[Any]]] = {
    "`stream_chat(…)`, with or without `.final_reply()`": [
        endpoints.stream_chat(
            "Hi", conversation_id=None, context=None, allow_tools=True, idempotency_key=None, first_sent=None, now=0
        )
    ],
    "`chat(…)`": [endpoints.chat("Hi", conversation_id=None, context=None)],
    "`approve_task(…)`": [endpoints.approve_task("t")],
    "`dismiss_task(…)`": [endpoints.dismiss_task("t", reason=None)],
    "`tasks(…)`, `wait_for_task(…)`": [endpoints.tasks(status="pending")],
    "`conversations(…)`, `conversation(…)`, a thread's `history()`": [
        endpoints.conversation("c", include_tool_steps=False, limit=1),
        endpoints.conversations(
            search=None, user_id=None, contact_id=None, deal_id=None, archived=False, page=1, per_page=1
        ),
    ],
    '`request("GET", …)`': [endpoints.request("GET", "/v1/x", json=None, params=None)],
    "`request(…)` with another method": [endpoints.request("POST", "/v1/x", json=None, params=None)],
}


@pytest.mark.parametrize("name", rows_of_the_money_table())
def test_the_money_table_is_the_library_s_own(name: str) -> None:
    """What the README says a call needs, costs and repeats is what leadlex goes by."""
    permission, costs, repeated, charged = rows_of_the_money_table()[name]
    for operation in CALLS[name]:
        assert permission.strip("`") == operation.permission or (permission, operation.permission) == ("its own", None)
        assert (costs == "none") != operation.costs
        assert (charged == "never charged") != operation.costs
        once = repeated == "as `chat`" or repeated.startswith("only where")
        assert ("once" if once else "keyed" if "key" in repeated else "free") == operation.repeat
