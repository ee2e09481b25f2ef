"""The sandbox without its extra."""

import sys

import pytest

import leadlex


class Missing:
    """Be a finder that finds a package missing while a module is imported."""

    def __init__(self, package: str, module: str) -> None:
        self._package = package
        self._module = module

    def find_spec(self, name: str, *_: object) -> None:
        """Fail where the module is looked for; others are found as ever."""
        if name == self._module:
            raise ModuleNotFoundError(f"No module named {self._package!r}", name=self._package)


def fail_import(package: str, monkeypatch: pytest.MonkeyPatch, module: str = "leadlex.sandbox._sandbox") -> None:
    """Let the next import of a module miss a package that it needs."""
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(package, module), *sys.meta_path])


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_is_a_configuration_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its extra, asking for a sandbox raises leadlex's own error with the line that installs it."""
    fail_import(package, monkeypatch)
    with pytest.raises(leadlex.ConfigurationError, match=rf"needs {package}, .* pip install '\.\[sandbox\]'"):
        leadlex.LeadLex.sandbox()


def test_another_missing_package_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is told as what it is."""
    fail_import("sqlite3", monkeypatch)
    with pytest.raises(ModuleNotFoundError, match="sqlite3"):
        leadlex.LeadLex.sandbox()
