"""Conversations: to list, to read and to take along."""

from __future__ import annotations

import sys
from argparse import Namespace
from itertools import islice
from typing import Final

from leadlex import Conversation, LeadLex

from ._output import Output, show_all
from ._session import connect
from ._text import visible

_PAGE: Final = 100
"""The most that the service puts on a page."""

MOST: Final = 1000
"""The most messages that the service gives of a conversation."""


def list_conversations(options: Namespace, out: Output) -> None:
    """List conversations as their pages come, the latest first."""
    with connect(options, out) as client:
        listing = client.conversations(
            search=options.search,
            user_id=options.user,
            contact_id=options.contact,
            deal_id=options.deal,
            archived=options.archived,
            per_page=min(options.limit + 1, _PAGE),
        )
        found = iter(listing)
        show_all(islice(found, options.limit), out, "There are no such conversations.")
        if next(found, None) is not None:
            out.note(f"{options.limit:,} shown, more exist: --limit")
        if listing.may_be_incomplete:
            out.warn("The listing changed while it was read: some may be missing.")


def show(options: Namespace, out: Output) -> None:
    """Show a conversation, the oldest message first."""
    with connect(options, out) as client:
        conversation = _fetched(client, options)
    out.value(conversation)
    _tell_whether_more(conversation, out)


def export(options: Namespace, out: Output) -> None:
    """Write a conversation as Markdown."""
    with connect(options, out) as client:
        conversation = _fetched(client, options)
    if options.json:
        out.value(conversation)
    else:
        out.close()
        sys.stdout.write(visible(conversation.to_markdown()))
    _tell_whether_more(conversation, out)


def _fetched(client: LeadLex, options: Namespace) -> Conversation:
    return client.conversation(options.id, include_tool_steps=options.tool_steps, limit=options.limit)


def _tell_whether_more(conversation: Conversation, out: Output) -> None:
    count = len(conversation.messages)
    if conversation.may_have_more:
        way_out = "--limit" if count < MOST else "LeadLex gives no more"
        out.note(
            f"These are the latest {count:,} messages, as many as were asked for. Earlier ones may exist: {way_out}"
        )
