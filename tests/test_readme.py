"""The README says nothing that does not run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

import pytest

from leadlex import LeadLex
from leadlex._policy.failures import ANY, REPEATS, UNCHARGED, UNREACHED, FailureKind
from leadlex._protocol.operation import Repeat
from leadlex.sandbox import Sandbox

README = Path(__file__).parent.parent / "README.md"
FIXTURES = "from leadlex.pytest_plugin import leadlex_sandbox, lexi, lexi_clock"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS, ids=[f"snippet-{i}" for i in range(1, len(SNIPPETS) + 1)])
def test_every_snippet_runs(code: str, environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """A reader who pastes a snippet sees it work: no error, no warning, nothing on stderr."""
    with Sandbox(pace=0) as sandbox, LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        lexi.chat("Summarize my pipeline")  # so that there is something to list
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
    assert run.stdout


def test_the_first_commands_are_marked() -> None:
    """The gate runs the README's own commands, which it finds by their marks."""
    marks = re.findall(r"<!-- (\w+) -->\n```sh\n(.+)\n```", README.read_text("utf-8"))
    assert [name for name, _ in marks] == ["demo", "test"]


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
