"""The sandbox in a program that is one file: a zipapp, or frozen by PyInstaller."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipapp
from importlib import resources
from pathlib import Path

import httpx
import pytest

import leadlex
from leadlex.sandbox import Sandbox

from .conftest import code_of

PACKAGE = Path(leadlex.__file__).parent
PROGRAM = """
import urllib.request
import leadlex, leadlex.sandbox

with leadlex.sandbox.Sandbox(pace=0) as sandbox:
    with leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        print(lexi.stream_chat("Where is Jane Doe?").final_reply().response[:8])
    try:
        with urllib.request.urlopen(sandbox.url + "/openapi.yaml") as answer:
            print(answer.read(14))
    except urllib.request.HTTPError as error:
        print(error.code)
print(leadlex.__file__)
"""


def test_a_zipapp_has_a_sandbox(tmp_path: Path) -> None:
    """Out of an archive the sandbox runs, and has the contract's file."""
    source, app = tmp_path / "source", tmp_path / "app.pyz"
    shutil.copytree(PACKAGE, source / "leadlex", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "__main__.py").write_text(PROGRAM)
    zipapp.create_archive(source, app)
    ran = subprocess.run([sys.executable, app], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["Jane Doe", "b'openapi: 3.1.0'", f"{app}/leadlex/__init__.py"]


def test_a_sandbox_without_the_contract_s_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the file was not packed, only who asks for it learns of that."""
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with Sandbox() as sandbox:
        answer = httpx.get(f"{sandbox.url}/openapi.yaml")
    assert code_of(answer) == (404, "not_found")
    assert "leadlex.sandbox/lexi.openapi.yaml" in answer.json()["error"]["message"]


@pytest.mark.heavy
@pytest.mark.skipif(not importlib.util.find_spec("PyInstaller"), reason="needs pyinstaller")
@pytest.mark.parametrize(
    ("options", "contract"), [([], "404"), (["--collect-data", "leadlex"], "b'openapi: 3.1.0'")], ids=["plain", "data"]
)
def test_a_frozen_program_has_a_sandbox(options: list[str], contract: str, tmp_path: Path) -> None:
    """Frozen with no hint the sandbox runs; with its data it has the contract's file too."""
    (tmp_path / "program.py").write_text(PROGRAM)
    freeze = [sys.executable, "-m", "PyInstaller", "--onedir", "--paths", str(PACKAGE.parent), *options, "program.py"]
    frozen = subprocess.run(freeze, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert frozen.returncode == 0, frozen.stderr[-2_000:]
    program = tmp_path / "dist" / "program" / "program"
    ran = subprocess.run([program], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[:2] == ["Jane Doe", contract]
