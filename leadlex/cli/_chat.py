"""Talking with Lexi: one message, or a conversation.

Rule: Ctrl-C stops the answer; what Lexi proposes is done only if a person says so here.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import leadlex

from ._output import Output, Stopped
from ._prompt import edit_lines, read_all, read_line, remember
from ._session import connect, is_sandbox
from ._tasks import decide, pending_tasks

_TYPED: Final = 200
"""Characters of a question that one types again; a longer one is given as it was."""

_WELCOME: Final = "Ask Lexi. Ctrl-C stops an answer, Ctrl-D leaves."


def chat(options: Namespace, out: Output) -> None:
    """Ask one message, from the command line or from stdin, or go on until Ctrl-D."""
    message, options.piped = options.message, False
    if message is None and (options.json or not sys.stdin.isatty()):
        message, options.piped = read_all("message"), True
    with connect(options, out) as client:
        talk = Talk(client, out, options)
        if message is None:
            _converse(talk, out)
        else:
            # A file or a pipe ends with a line end that is no part of the question, and would make it another one.
            talk.ask(message.rstrip("\r\n"))


class Talk:
    """One conversation on the screen.

    Args:
        client: What asks.
        out: Where answers are shown.
        options: What was said on the command line.
    """

    def __init__(self, client: leadlex.LeadLex, out: Output, options: Namespace) -> None:
        self._client = client
        self._out = out
        self._thread = client.thread(options.conversation)
        self._options = options
        self._key: str | None = options.idempotency_key
        self._first_sent: datetime | None = options.first_sent
        self._decides = sys.stdin.isatty() and sys.stderr.isatty() and not options.json
        self._looks = (self._decides or options.sandbox) and not options.json

    def ask(self, message: str) -> None:
        """Ask, show the answer as it comes, and then what Lexi proposes to do.

        Raises:
            KeyboardInterrupt: It was stopped; its argument, if any, is a `Stopped`.
            LeadLexError: It failed.
        """
        before = self._pending()
        self._answer(message)
        if before is not None:
            self._offer(before)

    def _answer(self, message: str) -> None:
        key, self._key, first_sent, self._first_sent = self._key, None, self._first_sent, None
        continued = self._thread.conversation_id
        self._out.wait("Lexi is thinking…")
        with self._thread.stream_chat(message, idempotency_key=key, first_sent=first_sent) as stream:
            try:
                for event in stream:
                    self._out.event(event)
            except KeyboardInterrupt:
                again = self._again(message, continued, stream)
                raise KeyboardInterrupt(
                    Stopped(stream.charged, stream.idempotency_key, stream.first_sent, again)
                ) from None
            except leadlex.LeadLexError as error:
                again = self._again(message, continued, stream)
                if again is not None:
                    error.add_note(again)
                raise
            self._out.finish(stream.reply)

    def _again(self, message: str, conversation: str | None, stream: leadlex.ChatStream) -> str | None:
        """Write the command that asks the same again; a sandbox that is gone with its process knows no key."""
        if is_sandbox(self._options) or stream.first_sent is None:
            return None
        words = ["leadlex", "chat", *(["--conversation", conversation] if conversation else [])]
        words += [
            "--idempotency-key",
            stream.idempotency_key,
            "--first-sent",
            f"{stream.first_sent:%Y-%m-%dT%H:%M:%SZ}",
        ]
        if self._options.piped or len(message) > _TYPED or not message.isprintable():
            return f"{shlex.join(words)} < the same input"
        return shlex.join([*words, *(["--"] if message.startswith("-") else []), message])

    def _pending(self) -> Mapping[str, leadlex.Task] | None:
        return pending_tasks(self._client) if self._looks else None

    def _offer(self, before: Mapping[str, leadlex.Task]) -> None:
        """Show what Lexi proposed meanwhile (a stream itself can't tell), and ask what to do with it."""
        new = [task for id_, task in (self._pending() or {}).items() if id_ not in before]
        if new:
            self._out.note("\nLexi proposes:")
        for task in new:
            self._out.task(task)
            if self._decides:
                decide(self._client, task, self._out)


def _converse(talk: Talk, out: Output) -> None:
    edit_lines()
    out.note(_WELCOME)
    while (message := _next_message()) is not None:
        try:
            talk.ask(message)
        except KeyboardInterrupt as stopped:
            out.stop(*stopped.args or (None,))
        except leadlex.LeadLexError as error:
            out.error(error)


def _next_message() -> str | None:
    """Read until there is something to ask; None at Ctrl-D."""
    while True:
        try:
            message = read_line("\nyou ▸ ")
        except EOFError:
            return None
        except KeyboardInterrupt:
            message = ""  # a line half written is dropped, as in a shell
        if message.strip():
            remember(message)
            return message
