"""The command `leadlex`: talk with Lexi, and look after conversations and tasks, in a terminal or in a script.

Rule: stdout carries what was asked for and nothing else; all the rest goes to stderr. The command knows no more of
leadlex than its users do.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; `leadlex --help` lists the codes.

    Args:
        arguments: What follows the command's name; None takes those of the process.
    """
    try:
        from ._commands import run  # noqa: PLC0415  # needs the extra
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        sys.stderr.write("The command leadlex needs the extra cli. In a clone of leadlex: pip install '.[cli]'\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)
