"""What a question may be about."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:
    from typing_extensions import TypedDict  # pydantic reads no other there


class ChatContext(TypedDict, total=False):
    """The keys that `chat` takes as `context`; those of your own go through, those of `stream_chat` are refused.

    Source: `POST /v1/lexi/chat`, `ChatRequest.context`.
    """

    list_id: str
    campaign_id: str
    conversation_id: str


class StreamContext(TypedDict, total=False):
    """The keys that `stream_chat` takes as `context`; those of your own go through, those of `chat` are refused.

    Source: `POST /v1/lexi/chat/stream`, `StreamRequest.context`.
    """

    contact_id: str
    deal_id: str
    matter_id: str
    company_id: str
    page: str
