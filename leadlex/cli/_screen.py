"""A person's screen: the answer on stdout as it comes, all that goes with it dim on stderr.

Rule: nothing that a server said is shown but through `_text`; nothing is coloured but on a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from leadlex import (
    Charged,
    ChatReply,
    ConfigurationError,
    IdempotencyError,
    LeadLexError,
    StreamEvent,
    StreamInterruptedError,
    Task,
    TextDelta,
    Thinking,
    ToolStep,
)

from ._output import Stopped, Value
from ._text import one_line, visible
from ._values import described, outlined

_CHARGES: Final[Mapping[Charged, str]] = {
    "no": "Nothing was charged.",
    "unknown": "Whether it was charged is not known.",
    "yes": "It was charged.",
}


class Screen:
    """The output for people."""

    def __init__(self) -> None:
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)
        self._shares_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._wheel: Live | None = None
        self._last = "\n"
        self._stepped = False

    def wait(self, what: str) -> None:
        """Turn a wheel, where there is a terminal to turn it on."""
        label = Spinner("dots", Text(one_line(what), style="dim"), style="status.spinner")
        if self._wheel is not None:
            self._wheel.update(label)
        elif self._err.is_terminal:
            self._begin_line()
            self._wheel = _turning(label, self._err)
            self._wheel.start()

    def note(self, text: str) -> None:
        """Write a dim line."""
        self._say(Text(visible(text), style="dim"))

    def warn(self, text: str) -> None:
        """Write a line that is seen."""
        self._say(Text(visible(text), style="yellow"))

    def event(self, event: StreamEvent) -> None:
        """Write text as it comes, and a line for each step."""
        match event:
            case TextDelta(delta):
                self._write(delta)
            case Thinking(text):
                self._step("·", one_line(text))
            case ToolStep(tool, "started"):
                self._start_tool(one_line(tool))
            case ToolStep(tool, status, summary):
                self._step("✓" if status == "completed" else "•", f"{one_line(tool)}  {one_line(summary or status)}")
            case _:
                pass

    def finish(self, reply: ChatReply) -> None:
        """End the answer's last line, and tell what it cost and under which ids it is found."""
        self._end_text()
        left = None if reply.credits_remaining is None else f"{reply.credits_remaining:,} credits left"
        ids = [reply.conversation_id, reply.message_id]
        self._gap()
        self.note(" · ".join(one_line(each) for each in (left, *ids) if each) or "Done.")

    def task(self, task: Task) -> None:
        """Write a line about a task: what it does, and what came out where it has ended."""
        self._say(outlined(task))

    def stop(self, stopped: Stopped | None) -> None:
        """End what was begun, and tell whether it was charged and how to have the answer all the same."""
        self._end_text()
        self.note(f"Stopped. {_CHARGES[stopped.charged]}" if stopped else "Stopped.")
        if stopped:
            self._ask_again(stopped.charged, stopped.again)

    def value(self, value: Value) -> None:
        """Write a value, in a line where one does."""
        self._rest()
        self._out.print(described(value), soft_wrap=True)

    def address(self, url: str, api_key: str, data: str | None) -> None:
        """Write where the sandbox is, and the lines of shell that make leadlex use it."""
        self._rest()
        kept = f"Kept in {one_line(data)}." if data else "Nothing is kept when it stops."
        for line in (
            Text.assemble("The sandbox runs at ", (url, "bold"), " with the key ", (api_key, "bold")),
            Text(f"Everything in it is invented, and free. {kept} Ctrl-C stops it.", style="dim"),
            Text("\nTo use it, in another shell:\n"),
            Text(f"  export LEADLEX_BASE_URL={url}", style="cyan"),
            Text(f"  export LEADLEX_API_KEY={api_key}", style="cyan"),
        ):
            self._out.print(line, soft_wrap=True)

    def error(self, error: LeadLexError) -> None:
        """Write what went wrong, in a line, and in one of its own the command that asks again."""
        self._end_text()
        self._say(Text.assemble(("Error: ", "bold red"), one_line(_explained(error))))
        self._ask_again(error.charged, *getattr(error, "__notes__", ()))

    def close(self) -> None:
        """Give the line of the wheel back, and the cursor."""
        self._rest()

    def _ask_again(self, charged: Charged, command: str | None = None) -> None:
        """Write a command that is there to be copied: to the letter, and broken by no width of a terminal."""
        if charged != "no" and command is not None:
            self.note("To ask the same again without paying again, within 24 hours:")
            self._err.print(Text(command), soft_wrap=True)

    def _start_tool(self, tool: str) -> None:
        if self._err.is_terminal:
            self.wait(f"{tool}…")
        else:
            self._step("…", tool)

    def _step(self, sign: str, text: str) -> None:
        self._stepped = True
        self._begin_line()
        self._print(Text.assemble((f"  {sign} ", "green" if sign == "✓" else "dim"), (text, "dim")))

    def _write(self, delta: str) -> None:
        self._rest()
        if self._stepped:
            self._stepped = False
            self._gap()
        self._last = delta[-1:] or self._last
        self._out.file.write(visible(delta))
        self._out.file.flush()

    def _end_text(self) -> None:
        """End the answer's last line, where it did not: a file should end with one, and the next line needs it."""
        self._rest()
        if self._last != "\n":
            self._out.file.write("\n")
            self._out.file.flush()
        self._last, self._stepped = "\n", False

    def _begin_line(self) -> None:
        """Break the line that the answer left open on the same terminal; stdout itself stays as it is."""
        if self._shares_terminal and self._last != "\n":
            self._last = "\n"
            self._err.file.write("\n")

    def _gap(self) -> None:
        if self._err.is_terminal:
            self._err.print()

    def _say(self, text: Text) -> None:
        self._rest()
        self._print(text)

    def _print(self, text: Text) -> None:
        """Break long lines between words on a terminal, and nowhere else."""
        self._err.print(text, soft_wrap=not self._err.is_terminal)

    def _rest(self) -> None:
        """Stop the wheel."""
        wheel, self._wheel = self._wheel, None
        if wheel is not None:
            wheel.stop()


def _turning(label: Spinner, console: Console) -> Live:
    # rich would put its own in the place of sys.stdout and sys.stderr meanwhile, and before rich 15 those were never
    # a terminal.
    return Live(label, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def _console(stream: TextIO) -> Console:
    # rich itself obeys FORCE_COLOR even into a file, and NO_COLOR (https://no-color.org) only by half.
    styled = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return _Console(file=stream, force_terminal=styled, markup=False, emoji=False, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Say so: rich itself would end the process with 1."""
        raise BrokenPipeError


def _explained(error: LeadLexError) -> str:
    """Say an error in the words of the command, where the library's are about Python."""
    if isinstance(error, ConfigurationError):
        return str(error)
    if isinstance(error, StreamInterruptedError):
        advice = "What arrived is not the whole answer."
    elif isinstance(error, IdempotencyError):
        advice = (
            f"Either ask the first question again, with all that was given with it and --idempotency-key "
            f"{error.idempotency_key}, which is not charged again; or ask this question without that key, which is a "
            "new charge."
        )
    elif error.charged == "unknown" and not error.idempotency_key:
        advice = f"{error.advice} Before you repeat it, look whether it was done: leadlex tasks list".strip()
    else:
        advice = error.advice
    return " ".join(filter(None, [error.problem, _CHARGES[error.charged], advice]))
