"""The sandbox without its extra."""

import re

import pytest

from tests.support.surroundings import run_code

SANDBOX = """
import leadlex
try:
    leadlex.LeadLex.sandbox()
except leadlex.ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_is_a_configuration_error(package: str) -> None:
    """Without its extra, asking for a sandbox raises leadlex's own error with the line that installs it."""
    ran = run_code(SANDBOX, without=package)
    assert ran.stderr == ""
    assert re.search(rf"needs {package}, .* pip install '\.\[sandbox\]'", ran.stdout)


def test_another_missing_package_is_not_hidden() -> None:
    """A broken installation is told as what it is."""
    ran = run_code(SANDBOX, without="sqlite3")
    assert ran.stdout == ""
    assert ran.stderr.endswith("ModuleNotFoundError: No module named 'sqlite3'\n")
