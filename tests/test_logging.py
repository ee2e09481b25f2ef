"""The log that `LEADLEX_LOG` asks for, beside whatever the application does with logs of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.architecture import ROOT
from tests.support.lexi import LexiScript
from tests.support.server import ScriptedServer

PROGRAM = """
import logging, logging.config, sys
import anyio, leadlex

def ask_sync(url):
    with leadlex.LeadLex("wbk_invented", base_url=url) as lexi:
        yield
        lexi.tasks()

async def ask_async(url):
    async with leadlex.AsyncLeadLex("wbk_invented", base_url=url) as lexi:
        yield
        await lexi.tasks()

async def under_a_loop(url, settings):
    async for _ in ask_async(url):
        exec(settings)

_, url, runner, when, settings = sys.argv
if when == "before":
    exec(settings)
    settings = ""
if runner == "sync":
    for _ in ask_sync(url):
        exec(settings)
else:
    anyio.run(under_a_loop, url, settings, backend=runner)
"""

DICT_CONFIG = """
logging.config.dictConfig({
    "version": 1,
    "formatters": {"own": {"format": "own %(message)s"}},
    "handlers": {"terminal": {"class": "logging.StreamHandler", "formatter": "own"}},
    "root": {"handlers": ["terminal"]},
})
"""

#: What applications do with logs; who then writes the line: leadlex to stderr, or the application its own way.
SETTINGS = {
    "nothing": ("", "leadlex"),
    "basicConfig": ("logging.basicConfig(format='own %(message)s')", "own"),
    "to stdout": ("logging.basicConfig(format='own %(message)s', stream=sys.stdout)", "own"),
    "warnings only": (
        "handler = logging.StreamHandler(); handler.setLevel('WARNING'); logging.getLogger().addHandler(handler)",
        "leadlex",
    ),
    "to a file": ("logging.basicConfig(format='own %(message)s', filename='/dev/null')", "leadlex"),
    "dictConfig": ("logging.config.dictConfig({'version': 1})", "leadlex"),
    "dictConfig with a handler": (DICT_CONFIG, "own"),
}


#: The loop makes no difference to who writes, so one of the settings runs on each.
CASES = [(runner, "after", "dictConfig") for runner in ("asyncio", "trio")] + [
    ("sync", when, name) for when in ("before", "after") for name in SETTINGS
]


@pytest.mark.parametrize(("runner", "when", "name"), CASES)
def test_one_line_an_attempt(runner: str, when: str, name: str) -> None:
    """An attempt is one line, whatever the application did with logs before or after it made its client."""
    settings, who = SETTINGS[name]
    with ScriptedServer(LexiScript()) as server:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.url, runner, when, settings],
            env={**os.environ, "LEADLEX_LOG": "info"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    lines = (ended.stdout + ended.stderr).splitlines()
    [line] = [line for line in lines if "answered operation=tasks" in line]
    assert line.startswith("own ") == (who == "own")
    assert (" INFO leadlex: " in line) == (who == "leadlex")
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
