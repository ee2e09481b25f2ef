"""Conversations: to list, to read and to take along."""

from __future__ import annotations

import sys
from argparse import Namespace
from itertools import islice
from typing import Final

from ._output import Output, show_all
from ._session import connect
from ._text import visible

_PAGE: Final = 100
"""The most that the service puts on a page."""


def list_conversations(options: Namespace, out: Output) -> None:
    """List conversations as their pages come, the latest first."""
    with connect(options, out) as client:
        listing = client.conversations(
            search=options.search,
            user_id=options.user,
            contact_id=options.contact,
            deal_id=options.deal,
            archived=options.archived,
            per_page=min(options.limit, _PAGE),
        )
        show_all(islice(listing, options.limit), out, "There are no such conversations.")


def show(options: Namespace, out: Output) -> None:
    """Show a conversation, the oldest message first."""
    with connect(options, out) as client:
        out.value(client.conversation(options.id, include_tool_steps=options.tool_steps, limit=options.limit))


def export(options: Namespace, out: Output) -> None:
    """Write a conversation as Markdown."""
    with connect(options, out) as client:
        conversation = client.conversation(options.id, include_tool_steps=options.tool_steps, limit=options.limit)
    if options.json:
        out.value(conversation)
    else:
        out.close()
        sys.stdout.write(visible(conversation.to_markdown()))
