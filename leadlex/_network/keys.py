"""The API key of a call, where a function of the user gives it.

Rule: what it gives is in no frame of ours.
"""

from __future__ import annotations

from inspect import isawaitable

from anyio.to_thread import run_sync

from leadlex._api_key import ApiKey, ApiKeys
from leadlex._errors import ConfigurationError


async def ask_for_key(keys: ApiKeys) -> ApiKey:
    """Ask the function, a plain one in a thread of its own, which nobody waits for who was cancelled.

    Raises:
        ConfigurationError: It raised, or gave what can't be an API key.
    """
    return keys.take(await _answer(keys))


async def _answer(keys: ApiKeys) -> object:
    try:
        [made] = keys.ask() if keys.is_async else await run_sync(keys.ask, abandon_on_cancel=True)
        return await made if isawaitable(made) else made
    except Exception as error:
        raise ConfigurationError(f"The function given as api_key raised {type(error).__name__}.") from error
