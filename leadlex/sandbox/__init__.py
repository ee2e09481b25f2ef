"""The whole Lexi contract on a free loopback port, offline and free of charge."""

from importlib import import_module
from typing import TYPE_CHECKING

from leadlex import ConfigurationError

if TYPE_CHECKING:
    from ._sandbox import Charge, FaultKind, Sandbox, SeenRequest

__all__ = ["Charge", "FaultKind", "Sandbox", "SeenRequest"]

if not TYPE_CHECKING:  # pragma: no branch - a checker must refuse a misspelt name

    def __getattr__(name: str) -> object:
        """Load a name when it is first used: to import this package its extra is not needed."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{__name__}._sandbox"), name)
        except AttributeError as error:  # `from leadlex.sandbox import …` would drop it
            raise ImportError(f"{__name__}.{name} can't be loaded: {error}") from error
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in ("starlette", "uvicorn"):
                raise
            raise ConfigurationError(
                f"The sandbox needs {error.name}, of the extra sandbox. In a clone of leadlex: pip install '.[sandbox]'"
            ) from error
