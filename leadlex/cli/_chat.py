"""Talking with Lexi: one message, or a conversation.

Rule: Ctrl-C stops the answer; what Lexi proposes is done only if a person says so here.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Final

import leadlex

from ._output import Output
from ._prompt import edit_lines, read_line, remember
from ._session import connect
from ._tasks import decide, pending_tasks

_WELCOME: Final = "Ask Lexi. Ctrl-C stops an answer, Ctrl-D leaves."


def chat(options: Namespace, out: Output) -> None:
    """Ask one message, from the command line or from stdin, or go on until Ctrl-D."""
    message = options.message
    if message is None and (options.json or not sys.stdin.isatty()):
        message = sys.stdin.read()
    with connect(options, out) as client:
        talk = Talk(client, out, options)
        if message is None:
            _converse(talk, out)
        else:
            talk.ask(message)


class Talk:
    """Be one conversation on the screen.

    Args:
        client: What asks.
        out: Where answers are shown.
        options: What was said on the command line.
    """

    def __init__(self, client: leadlex.LeadLex, out: Output, options: Namespace) -> None:
        self._client = client
        self._out = out
        self._thread = client.thread(options.conversation)
        self._key: str | None = options.idempotency_key
        self._decides = sys.stdin.isatty() and sys.stderr.isatty() and not options.json
        self._looks = (self._decides or options.sandbox) and not options.json

    def ask(self, message: str) -> None:
        """Ask, show the answer as it comes, and then what Lexi proposes to do.

        Raises:
            KeyboardInterrupt: It was stopped; its argument, if any, says whether it was charged.
            LeadLexError: It failed.
        """
        before = self._pending()
        self._answer(message)
        if before is not None:
            self._offer(before)

    def _answer(self, message: str) -> None:
        key, self._key = self._key, None
        self._out.wait("Lexi is thinking…")
        with self._thread.stream_chat(message, idempotency_key=key) as stream:
            try:
                for event in stream:
                    self._out.event(event)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(stream.charged) from None
            self._out.finish(stream.reply)

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
