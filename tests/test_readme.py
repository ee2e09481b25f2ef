"""The README says nothing that does not run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leadlex import LeadLex
from leadlex.sandbox import Sandbox

README = Path(__file__).parent.parent / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS, ids=[f"snippet-{i}" for i in range(1, len(SNIPPETS) + 1)])
def test_every_snippet_runs(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader who pastes a snippet sees it work: no error, no warning, nothing on stderr."""
    with Sandbox(pace=0) as sandbox, LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        lexi.chat("Summarize my pipeline")  # so that there is something to list
        monkeypatch.setenv("LEADLEX_API_KEY", sandbox.api_key)
        monkeypatch.setenv("LEADLEX_BASE_URL", sandbox.url)
        monkeypatch.setenv("PYTHONPATH", str(README.parent))
        script = tmp_path / "snippet.py"
        script.write_text(code, "utf-8")
        run = subprocess.run(
            [sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60, check=False
        )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout


def test_the_first_commands_are_marked() -> None:
    """The gate runs the README's own commands, which it finds by their marks."""
    marks = re.findall(r"<!-- (\w+) -->\n```sh\n(.+)\n```", README.read_text("utf-8"))
    assert [name for name, _ in marks] == ["demo", "test"]
