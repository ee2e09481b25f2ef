"""leadlex: the Python SDK for Lexi, the AI assistant inside the LeadLex CRM for law firms.

Example:
    with leadlex.LeadLex.sandbox() as client:
        for delta in client.stream_chat("Summarize my pipeline").text_stream:
            print(delta, end="", flush=True)
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's, which takes half of the time of this import; checkers know it by its name

if TYPE_CHECKING:
    from ._aiohttp import aiohttp_client
    from ._client import AsyncLeadLex
    from ._config import RetryPolicy, Timeout, __version__
    from ._errors import (
        APIConnectionError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ClientClosedError,
        ConfigurationError,
        ConflictError,
        IdempotencyError,
        InsufficientCreditsError,
        LeadLexError,
        NotFoundError,
        PaginationError,
        PermissionDeniedError,
        RateLimitError,
        ServerError,
        StreamBusyError,
        StreamDivergedError,
        StreamInterruptedError,
        WebhookVerificationError,
    )
    from ._events import Done, StreamEvent, TextDelta, Thinking, ToolStep, UnknownEvent
    from ._meta import Attempt, Charged, Meta, RateLimit
    from ._models import (
        ChatContext,
        ChatReply,
        Conversation,
        ConversationSummary,
        EntityContext,
        Message,
        Page,
        RawReply,
        StreamContext,
        Task,
        TaskDecision,
    )
    from ._pager import AsyncPager
    from ._stream import AsyncChatStream
    from ._sync import ChatStream, LeadLex, Pager, Thread
    from ._threads import AsyncThread

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncChatStream",
    "AsyncLeadLex",
    "AsyncPager",
    "AsyncThread",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "Charged",
    "ChatContext",
    "ChatReply",
    "ChatStream",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "Conversation",
    "ConversationSummary",
    "Done",
    "EntityContext",
    "IdempotencyError",
    "InsufficientCreditsError",
    "LeadLex",
    "LeadLexError",
    "Message",
    "Meta",
    "NotFoundError",
    "Page",
    "Pager",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimit",
    "RateLimitError",
    "RawReply",
    "RetryPolicy",
    "ServerError",
    "StreamBusyError",
    "StreamContext",
    "StreamDivergedError",
    "StreamEvent",
    "StreamInterruptedError",
    "Task",
    "TaskDecision",
    "TextDelta",
    "Thinking",
    "Thread",
    "Timeout",
    "ToolStep",
    "UnknownEvent",
    "WebhookVerificationError",
    "__version__",
    "aiohttp_client",
]

# Importing httpx and cattrs takes a tenth of a second: a name loads when it is first used (PEP 562). Checkers see the
# imports above, and so refuse a misspelt name.
if not TYPE_CHECKING:
    _ROOMS = {
        "_aiohttp": "aiohttp_client",
        "_client": "AsyncLeadLex",
        "_config": "RetryPolicy Timeout __version__",
        "_errors": (
            "APIConnectionError APIResponseError APIStatusError APITimeoutError AuthenticationError "
            "BadRequestError ClientClosedError ConfigurationError ConflictError IdempotencyError "
            "InsufficientCreditsError LeadLexError NotFoundError PaginationError PermissionDeniedError RateLimitError "
            "ServerError StreamBusyError StreamDivergedError StreamInterruptedError WebhookVerificationError"
        ),
        "_events": "Done StreamEvent TextDelta Thinking ToolStep UnknownEvent",
        "_meta": "Attempt Charged Meta RateLimit",
        "_models": (
            "ChatContext ChatReply Conversation ConversationSummary EntityContext Message Page RawReply StreamContext "
            "Task TaskDecision"
        ),
        "_pager": "AsyncPager",
        "_stream": "AsyncChatStream",
        "_sync": "ChatStream LeadLex Pager Thread",
        "_threads": "AsyncThread",
    }
    _HOMES = {name: room for room, names in _ROOMS.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        room = _HOMES.get(name)
        if room is None:
            raise AttributeError(f"module 'leadlex' has no attribute {name!r}")
        try:
            value = globals()[name] = getattr(import_module(f"leadlex.{room}"), name)
        except AttributeError as error:  # `from leadlex import …` would drop it, and what a dependency lacks with it
            raise ImportError(f"leadlex.{name} can't be loaded: {error}") from error
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
