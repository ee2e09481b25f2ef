"""`python -m tests` and `python -m tests.versions` say what passed, show what failed, and end with a summary."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from pathlib import Path

import pytest

from tests import __main__ as runner
from tests import versions


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch, environ: MutableMapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Put a quick check in the place of the real ones, and leave pytest alone with what it was given."""
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    found: dict[str, tuple[str, ...]] = {"says yes": ("this",)}
    monkeypatch.setattr(runner, "CHECKS", found)
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: MutableMapping[str, str]) -> Path:
    """Put a project of one module with one test in the place of this one."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.coverage.run]\nsource = ["counted"]\nparallel = true\npatch = ["subprocess"]\n'
        "[tool.coverage.report]\nfail_under = 100\n",
        "utf-8",
    )
    (tmp_path / "counted").mkdir()
    (tmp_path / "counted" / "__init__.py").write_text("CONSTANT = 1\n", "utf-8")
    write_test(tmp_path, "__import__('counted')")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    environ["PYTEST_PLUGINS"] = "xdist.plugin"
    environ.pop("COVERAGE_PROCESS_CONFIG", None)  # set where these tests are themselves counted
    return tmp_path


def write_test(folder: Path, outcome: str) -> None:
    """Write one test."""
    (folder / "test_it.py").write_text(f"def test_it():\n    assert {outcome}\n", "utf-8")


@pytest.mark.usefixtures("project")
def test_what_passes_is_named_and_nothing_more(capfd: pytest.CaptureFixture[str]) -> None:
    """A step that passes takes one line; the last line of all is pytest's."""
    assert runner.main([]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["says", "yes", "passed"]
    assert lines[2] == "pytest"
    assert re.search(r"1 passed in [\d.]+s", lines[-1])
    assert not [line for line in lines if "Zen" in line or "Combined" in line]


def test_what_fails_is_shown_whole(
    project: Path, checks: dict[str, tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    """A step that fails shows all it said, does not keep the others from running, and decides the exit code."""
    checks |= {"says no": ("tokenize", "no-such-file.py"), "says yes again": ("this",)}
    write_test(project, "not 'right'")
    assert runner.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["passed", "FAILED"]
    assert "no-such-file.py" in lines[2]
    assert [line for line in lines if re.fullmatch(r"says yes again +passed", line)]
    assert [line for line in lines if line.startswith("E ")]
    assert "Failed: says no, pytest, coverage report." in lines
    assert re.search(r"1 failed in [\d.]+s", lines[-1])


def test_what_no_test_reaches_fails_the_run(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole run counts what the tests reached, and fails below the mark."""
    (project / "counted" / "__init__.py").write_text("def unused():\n    pass\n", "utf-8")
    assert runner.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if re.match(r"coverage report +FAILED", line)]
    assert re.search(r"1 passed", lines[-1])


@pytest.mark.parametrize(("outcome", "code"), [("True", 0), ("not 'right'", 1)])
def test_arguments_run_those_tests_alone(
    project: Path, outcome: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever names a test sees what pytest says of it, at once: no linter, no type checker, no coverage."""
    write_test(project, outcome)
    assert runner.main(["-k", "it"]) == code
    said = capfd.readouterr().out
    assert said.startswith("==")
    assert re.search(r"1 (passed|failed) in [\d.]+s =+\n$", said)
    assert "says yes" not in said
    assert "coverage" not in said


def test_a_name_that_no_test_has_is_told(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever misspells a test, or misnames one, hears how tests are named and where they are listed."""
    (project / "test_it.py").write_text("def it_is_tested():\n    assert True\n", "utf-8")
    assert runner.main(["-k", "it"]) == runner.NO_TESTS
    said = capfd.readouterr().out.splitlines()[-1]
    assert said.startswith("No test matches. A test is a function test_…")


@pytest.mark.parametrize("arguments", [[], ["-k", "it"]], ids=["all", "some"])
def test_what_is_not_installed_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who has leadlex without what its tests need hears the command that brings it, and nothing is run."""
    monkeypatch.setattr(runner, "NEEDED", ("pytest", "no_such_checker"))
    assert runner.main(arguments) == 1
    assert capfd.readouterr().out.splitlines() == [
        "Not installed here: no_such_checker. This brings all that the tests need: pip install -e '.[dev]'"
    ]


def test_a_python_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The versions can't be said to pass where an interpreter is missing, though a file of its name is there."""
    nowhere = versions.Environment("nowhere", "3.0")
    monkeypatch.setattr(versions, "ENVIRONMENTS", (nowhere, versions.ENVIRONMENTS[0]))
    monkeypatch.setattr(versions, "places", lambda _: ["/dev/null", sys.executable])
    assert versions.main(["nowhere"]) == 1
    assert capfd.readouterr().out.splitlines()[-3:] == ["nowhere", "  Python 3.0 is not here", "  not run"]
