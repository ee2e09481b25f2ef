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
    from . import sandbox as sandbox
    from . import webhooks as webhooks
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
    from ._network.aiohttp_client import aiohttp_client
    from ._network.clock import FakeClock
    from ._pager import AsyncPager
    from ._sse import sse
    from ._stream import AsyncChatStream
    from ._sync import ChatStream, LeadLex, Pager, Thread
    from ._thread import AsyncThread
    from ._values.contexts import ChatContext, StreamContext
    from ._values.events import Done, StreamEvent, TextDelta, Thinking, ToolStep, UnknownEvent
    from ._values.metadata import Attempt, Charged, Meta, RateLimit
    from ._values.models import (
        ChatReply,
        Conversation,
        ConversationSummary,
        EntityContext,
        Message,
        Page,
        RawReply,
        Task,
        TaskDecision,
        TaskStatus,
    )
    from ._values.structure import event_from_dict

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
    "FakeClock",
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
    "TaskStatus",
    "TextDelta",
    "Thinking",
    "Thread",
    "Timeout",
    "ToolStep",
    "UnknownEvent",
    "WebhookVerificationError",
    "__version__",
    "aiohttp_client",
    "event_from_dict",
    "sse",
]

# Importing httpx and cattrs takes a tenth of a second: a name loads when it is first used (PEP 562). Checkers see the
# imports above, and so refuse a misspelt name.
if not TYPE_CHECKING:
    _MODULES = {
        "_network.aiohttp_client": "aiohttp_client",
        "_network.clock": "FakeClock",
        "_client": "AsyncLeadLex",
        "_config": "RetryPolicy Timeout __version__",
        "_errors": (
            "APIConnectionError APIResponseError APIStatusError APITimeoutError AuthenticationError "
            "BadRequestError ClientClosedError ConfigurationError ConflictError IdempotencyError "
            "InsufficientCreditsError LeadLexError NotFoundError PaginationError PermissionDeniedError RateLimitError "
            "ServerError StreamBusyError StreamDivergedError StreamInterruptedError WebhookVerificationError"
        ),
        "_values.contexts": "ChatContext StreamContext",
        "_values.events": "Done StreamEvent TextDelta Thinking ToolStep UnknownEvent",
        "_values.metadata": "Attempt Charged Meta RateLimit",
        "_values.models": (
            "ChatReply Conversation ConversationSummary EntityContext Message Page RawReply "
            "Task TaskDecision TaskStatus"
        ),
        "_values.structure": "event_from_dict",
        "_pager": "AsyncPager",
        "_sse": "sse",
        "_stream": "AsyncChatStream",
        "_sync": "ChatStream LeadLex Pager Thread",
        "_thread": "AsyncThread",
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

    _SUBMODULES = {"sandbox", "webhooks"}

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return import_module(f"leadlex.{name}")
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module 'leadlex' has no attribute {name!r}")
        try:
            value = globals()[name] = getattr(import_module(f"leadlex.{module}"), name)
        except AttributeError as error:  # `from leadlex import …` would drop it, and what a dependency lacks with it
            raise ImportError(f"leadlex.{name} can't be loaded: {error}") from error
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
