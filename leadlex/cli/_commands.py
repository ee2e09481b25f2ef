"""What can be typed: every command and option is here and nowhere else."""

from __future__ import annotations

import io
import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from typing import Any, Final, NoReturn, cast, get_args

from leadlex import ConfigurationError, LeadLexError, TaskStatus, __version__

from . import _chat, _conversations, _sandbox, _tasks, _webhooks
from ._exits import CUT_OFF, STOPPED, exit_code, exit_codes
from ._json import JsonLines
from ._output import Output
from ._screen import Screen

Group = Any
"""A parser's subcommands: argparse has a type for them, but no public name."""

Command = Callable[[Namespace, Output], None]

_EXAMPLES: Final = """\
examples:
  leadlex chat --sandbox "Find me 20 CEOs at law firms in New York"
  leadlex chat
  leadlex conversations list --search acme
  leadlex tasks list --json | jq .id

environment:
  LEADLEX_API_KEY   the workspace's key (wbk_…)
  LEADLEX_BASE_URL  another address of the API, as of `leadlex sandbox`
  LEADLEX_VERIFY    whose certificates are trusted: a PEM file, or system for what this machine trusts
  LEADLEX_WEBHOOK_SECRET
                    what `leadlex webhooks send` signs with
  NO_COLOR          no colours
"""

_BEHAVIOURS: Final = ("replay", "regenerate", "conflict")

_LISTED: Final = "list conversations, your own and not archived, the latest first"

_STATUSES: Final = get_args(TaskStatus)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever can be expected to go wrong ends here, in a line."""
    _tame_streams()
    # Looked for by itself, since what can't be parsed is told in JSON too; after "--" it would be a message.
    out: Output = JsonLines() if "--json" in takewhile("--".__ne__, arguments) else Screen()
    try:
        code = _run(arguments, out)
        sys.stdout.flush()
    except LeadLexError as error:
        out.error(error)
        code = exit_code(error)
    except KeyboardInterrupt as stopped:
        out.stop(*stopped.args or (None,))
        code = STOPPED
    except BrokenPipeError:
        _discard_output()
        code = CUT_OFF
    finally:
        out.close()
    return code


def _run(arguments: Sequence[str], out: Output) -> int:
    try:
        options = parser().parse_args(arguments or ["--help"])
    except SystemExit as done:  # --help and --version
        return cast("int", done.code)
    command: Command = options.command
    command(options, out)
    return 0


def _tame_streams() -> None:
    """Let no stream that is closed, and no text that can't be read or written, end in a traceback.

    A terminal has an encoding of its own; files and pipes get UTF-8, whatever that is.
    """
    # What is not UTF-8 becomes lone surrogates, as in arguments (PEP 383), and those leadlex refuses by name.
    handlers = {"stdin": "surrogateescape", "stdout": "backslashreplace", "stderr": "backslashreplace"}
    for name, errors in handlers.items():
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            of_its_own = stream is sys.stdin or stream.isatty()
            stream.reconfigure(errors=errors, encoding=None if of_its_own else "utf-8")


def _discard_output() -> None:
    # The interpreter flushes stdout once more when it exits (https://docs.python.org/3/library/signal.html#note-on-sigpipe).
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# The parser ------------------------------------------------------------------------------------------------------


class Parser(ArgumentParser):
    """A parser whose errors are told like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed."""
        raise ConfigurationError(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def parser() -> Parser:
    """Make the parser of the whole command."""
    top = Parser(
        prog="leadlex",
        description="Talk with Lexi, the AI assistant inside the LeadLex CRM for law firms.",
        epilog=f"{_EXAMPLES}\nexit codes:\n{exit_codes()}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"leadlex {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_chat(commands)
    _add_conversations(_group(commands, "conversations", "list, show and export conversations"))
    _add_tasks(_group(commands, "tasks", "list, approve and dismiss what Lexi proposes"))
    _add_sandbox(commands)
    _add_webhooks(_group(commands, "webhooks", "try what receives webhooks"))
    return top


def _add_chat(commands: Group) -> None:
    chat = _command(commands, "chat", _chat.chat, "ask Lexi one message, or have a conversation")
    chat.add_argument("message", nargs="?", help="what to ask; without it a conversation, or what stdin has")
    chat.add_argument("--conversation", metavar="ID", help="go on with this conversation")
    chat.add_argument(
        "--idempotency-key", metavar="KEY", help="ask the same again within 24 hours, without paying again"
    )
    chat.add_argument("--first-sent", type=_moment, metavar="TIME", help="when that key was first sent, as it was told")


def _add_conversations(commands: Group) -> None:
    listing = _command(commands, "list", _conversations.list_conversations, _LISTED)
    listing.add_argument("--search", metavar="WORDS", help="those with these words in title or messages")
    listing.add_argument("--user", metavar="ID", help="those of another user")
    listing.add_argument("--contact", metavar="ID", help="those about a contact")
    listing.add_argument("--deal", metavar="ID", help="those about a deal")
    listing.add_argument("--archived", action="store_true", help="archived ones too")
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="how many at most (default: 50)")
    for name, run_it, limit, words in (
        ("show", _conversations.show, 200, "show a conversation, the oldest message first"),
        ("export", _conversations.export, _conversations.MOST, "write a conversation as Markdown"),
    ):
        one = _command(commands, name, run_it, words)
        one.add_argument("id", metavar="ID", help="the conversation")
        one.add_argument("--tool-steps", action="store_true", help="with what Lexi's tools gave")
        told = f"the latest messages, at most {_conversations.MOST:,} (default: {limit:,})"
        one.add_argument("--limit", type=_count, default=limit, metavar="N", help=told)


def _add_tasks(commands: Group) -> None:
    listing = _command(commands, "list", _tasks.list_tasks, "list the tasks of one status")
    listing.add_argument("--status", choices=_STATUSES, default="pending", help="which ones (default: pending)")
    approve = _command(commands, "approve", _tasks.approve, "let Lexi carry out a task; it may cost credits")
    approve.add_argument("id", metavar="ID", help="the task")
    approve.add_argument("--wait", action="store_true", help="wait until it is done, and tell what came out")
    dismiss = _command(commands, "dismiss", _tasks.dismiss, "dismiss a task for good")
    dismiss.add_argument("id", metavar="ID", help="the task")
    dismiss.add_argument(
        "--reason", help="why, as not_relevant, manual_execution, incorrect_params, duplicate, testing"
    )


def _add_webhooks(commands: Group) -> None:
    send = _plain_command(commands, "send", _webhooks.send, "sign a webhook as LeadLex does, and send it")
    send.add_argument("url", metavar="URL", help="the endpoint that receives it")
    kinds = "what happened, as task.created (the default), task.updated, task.approved, task.dismissed"
    send.add_argument("--event", default="task.created", metavar="NAME", help=kinds)
    send.add_argument("--data", metavar="JSON", help="what it is about, a JSON object (default: what stdin has)")
    send.add_argument("--secret", help="the endpoint's secret (default: LEADLEX_WEBHOOK_SECRET)")
    _add_json(send)


def _add_sandbox(commands: Group) -> None:
    words = "serve an invented workspace on this machine, offline and free"
    sandbox = _plain_command(commands, "sandbox", _sandbox.sandbox, words)
    sandbox.add_argument("--data", metavar="FILE", help="keep everything in this file; else nothing is kept")
    sandbox.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    sandbox.add_argument("--port", type=_port, default=0, metavar="N", help="the port (default: a free one)")
    allowed = "another name under which it is reached, as in a container; may be repeated"
    sandbox.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=allowed)
    sandbox.add_argument("--credits", type=_amount, metavar="N", help="the balance (default: the file's, else 5,000)")
    prices = "credits for a chat, a search, a stream and each tool in it: search=5,tool_step=1"
    sandbox.add_argument("--prices", type=_prices, metavar="NAME=N,…", help=prices)
    sandbox.add_argument("--quota", type=_amount, default=10_000, metavar="N", help="requests a day (default: 10,000)")
    pace = "words a second in a stream, 0 for all at once (default: 25)"
    sandbox.add_argument("--pace", type=_pace, default=25.0, metavar="N", help=pace)
    again = "what a repeated idempotency key gets (default: replay)"
    sandbox.add_argument("--idempotency", choices=_BEHAVIOURS, default="replay", help=again)
    _add_json(sandbox)


def _group(commands: Group, name: str, words: str) -> Group:
    group = commands.add_parser(name, help=words, description=_sentence(words), allow_abbrev=False)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _command(commands: Group, name: str, run_it: Command, words: str) -> ArgumentParser:
    command = _plain_command(commands, name, run_it, words)
    command.add_argument("--sandbox", action="store_true", help="ask a sandbox, whose answers are invented and free")
    _add_json(command)
    return command


def _plain_command(commands: Group, name: str, run_it: Command, words: str) -> ArgumentParser:
    """Add a command that asks nobody."""
    command: ArgumentParser = commands.add_parser(name, help=words, description=_sentence(words), allow_abbrev=False)
    command.set_defaults(command=run_it)
    return command


def _add_json(command: ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="JSON lines on stdout, errors as JSON on stderr")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _count(text: str) -> int:
    return _whole(text, range(1, sys.maxsize), "from 1")


def _whole(text: str, numbers: range, named: str) -> int:
    with suppress(ValueError):
        if int(text) in numbers:
            return int(text)
    raise ArgumentTypeError(f"it must be a whole number {named}, and is {text!r}")


def _amount(text: str) -> int:
    return _whole(text, range(sys.maxsize), "from 0")


def _pace(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise ArgumentTypeError(f"it must be a number from 0, and is {text!r}")


def _prices(text: str) -> dict[str, int]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): _amount(price) for name, _, price in pairs}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"it must be a time, as 2026-04-17T10:30:00Z, and is {text!r}") from None
    if moment.tzinfo is None:
        raise ArgumentTypeError(f"it needs a time zone, as in {text}Z")
    return moment


def _port(text: str) -> int:
    return _whole(text, range(1 << 16), "from 0 to 65535")
