"""Check that a webhook is LeadLex's, and read it; sign one, to try what receives them.

Rule: nothing of a body is looked at before its signature is found to be right.

Example:
    event = webhooks.verify(await request.body(), request.headers, secret)
    if event.event == "task.created":
        print(event.data)
"""

from __future__ import annotations

import hmac
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar, cast

from attrs import field, frozen

from ._errors import ConfigurationError, WebhookVerificationError
from ._values.plain import Value, extra_field

__all__ = ["WebhookEvent", "sign", "verify"]

T = TypeVar("T")

TOLERANCE: Final = 300.0
"""Seconds that a delivery may be old, or ahead of this machine's clock."""

MAX_BODY: Final = 16 << 20
MAX_VALUES: Final = 500_000
_MAX_TOLERANCE: Final = 1e9

_SIGNATURE: Final = "X-LeadLex-Signature"
_DELIVERY_ID: Final = "X-LeadLex-Delivery-ID"
_TIMESTAMP: Final = "X-LeadLex-Timestamp"
_SCHEME: Final = "sha256="
_FIELDS: Final = frozenset({"event", "timestamp", "workspace_id", "data"})


@frozen(kw_only=True)
class WebhookEvent(Value):
    """What LeadLex told by a webhook, once it was verified.

    Args:
        event: What happened: `task.created`, `task.updated`, `task.approved`, `task.dismissed`; others may come.
        timestamp: When, an aware datetime.
        workspace_id: In which workspace.
        data: What it is about.
        delivery_id: The id of the delivery, by which a repeated one is known; it is not signed.
        extra: Fields beyond the contract.
    """

    event: str
    timestamp: datetime
    workspace_id: str
    data: Mapping[str, Any] = field(hash=False)
    delivery_id: str | None = None
    extra: Mapping[str, Any] = extra_field()


class Headers(Protocol):
    """What frameworks give as headers: a mapping of names to values, in any case."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Give the pairs."""
        ...


def verify(
    body: bytes | bytearray,
    headers: Headers,
    secret: str | bytes | Sequence[str | bytes],
    *,
    tolerance: float = TOLERANCE,
) -> WebhookEvent:
    """Return the event of a webhook, once its signature and time were found to be right.

    Answer with 2xx within 10 seconds; what takes longer is done afterwards.

    Args:
        body: The body as it was received, byte for byte: JSON that was read and written again has another signature.
        headers: The request's headers, their names in any case.
        secret: The secret of the endpoint; several, any of which may have signed, while one is replaced by another.
        tolerance: How many seconds the signed `timestamp` may differ from now, either way; more than 0.

    Raises:
        WebhookVerificationError: It is not LeadLex's, was changed, is too old, or is not in LeadLex's form.
        ConfigurationError: An argument is of the wrong type, or a secret is empty or missing.

    Example:
        event = webhooks.verify(await request.body(), request.headers, os.environ["LEADLEX_WEBHOOK_SECRET"])
        print(event.event, event.data)
    """
    try:
        seconds, raw = _tolerance(tolerance), _bytes(body)
        signature = _header(headers, _SIGNATURE)
        right = any(_is_signature(signature, raw, key) for key in _keys(secret))
    finally:
        del secret  # a traceback that shows locals must not show it
    if not right:
        raise WebhookVerificationError(_wrong(signature))
    event = _event(raw, _header(headers, _DELIVERY_ID))
    _check_time(event.timestamp, seconds)
    return event


def sign(body: bytes | bytearray, secret: str | bytes) -> dict[str, str]:
    """Return the headers with which LeadLex sends a body, each time with another delivery id.

    Args:
        body: The JSON to be sent, byte for byte.
        secret: The secret of the endpoint.

    Raises:
        ConfigurationError: An argument is of the wrong type, or the secret is empty.

    Example:
        now = datetime.now(UTC).isoformat()
        body = json.dumps({"event": "task.created", "timestamp": now, "workspace_id": "ws_1", "data": {}}).encode()
        response = client.post("/webhooks/leadlex", content=body, headers=webhooks.sign(body, secret))
    """
    try:
        signature = _signature(_bytes(body), _key(secret))
    finally:
        del secret  # as above
    moment = now().isoformat(timespec="seconds").replace("+00:00", "Z")
    sent = {_SIGNATURE: signature, _TIMESTAMP: moment, _DELIVERY_ID: str(uuid.uuid4())}
    return {"Content-Type": "application/json", **sent}


def now() -> datetime:
    """Read the clock; a test that has no fresh delivery puts another in its place."""
    return datetime.now(UTC)


# Arguments -------------------------------------------------------------------------------------------------------


def _tolerance(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_TOLERANCE:
        raise ConfigurationError("tolerance must be a number of seconds above 0, at most 1,000,000,000.")
    return value


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    raise ConfigurationError(
        f"body must be the raw bytes of the request, before any JSON is read; given: {type(body).__name__}."
    )


def _keys(secret: object) -> list[bytes]:
    try:
        several = isinstance(secret, Sequence) and not isinstance(secret, str | bytes | bytearray) and len(secret) > 0
        return [*map(_key, cast("Sequence[object]", secret))] if several else [_key(secret)]
    finally:
        del secret


def _key(secret: object) -> bytes:
    try:
        # Half a surrogate pair is no error here: an error of the codec would carry the secret.
        key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
        if isinstance(key, bytes) and key:
            return key
        given = "an empty one" if isinstance(key, bytes) else type(key).__name__
        del key
    finally:
        del secret
    raise ConfigurationError(f"secret must be the endpoint's secret, a str or bytes; given: {given}.")


def _header(headers: object, wanted: str) -> str | None:
    items = getattr(headers, "items", None)
    if not callable(items):
        raise ConfigurationError(f"headers must be a mapping of names to values; given: {type(headers).__name__}.")
    pairs = cast("Iterable[tuple[object, object]]", items())
    return next((_text(value, wanted) for name, value in pairs if _is_name(name, wanted)), None)


def _is_name(name: object, wanted: str) -> bool:
    # RFC 9110, 5.1: names of fields are case-insensitive.
    return isinstance(name, str) and name.lower() == wanted.lower()


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"headers[{name!r}] must be a str; given: {type(value).__name__}.")
    return value.strip()


# The signature ---------------------------------------------------------------------------------------------------


def _is_signature(given: str | None, body: bytes, key: bytes) -> bool:
    try:
        right = _signature(body, key)
        # Text that is not ASCII can't be compared in constant time, bytes can.
        return hmac.compare_digest(right.encode(), (given or "").lower().encode("utf-8", "replace"))
    finally:
        del key


def _signature(body: bytes, key: bytes) -> str:
    try:
        return _SCHEME + hmac.new(key, body, sha256).hexdigest()
    finally:
        del key


def _wrong(given: str | None) -> str:
    if not given:
        return f"The header {_SIGNATURE} is missing: it did not come from LeadLex."
    if not given.lower().startswith(_SCHEME):
        return f"The header {_SIGNATURE} is not of the form {_SCHEME}<hex>."
    return "The signature does not fit the body: the secret is another one, or the body is not what was sent."


# The body --------------------------------------------------------------------------------------------------------


def _event(body: bytes, delivery_id: str | None) -> WebhookEvent:
    told = _object(body)
    return WebhookEvent(
        event=_field(told, "event", str),
        timestamp=_moment(_field(told, "timestamp", str)),
        workspace_id=_field(told, "workspace_id", str),
        data=cast("dict[str, Any]", _field(told, "data", dict)),
        delivery_id=delivery_id,
        extra={name: value for name, value in told.items() if name not in _FIELDS},
    )


def _object(body: bytes) -> dict[str, Any]:
    # Each value but the first stands behind one of these signs; that text has some too is no matter in a delivery.
    if len(body) > MAX_BODY or sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise WebhookVerificationError("The body is signed but is too large to be a delivery.")
    try:
        told = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise WebhookVerificationError("The body is signed but is not JSON.") from None
    if not isinstance(told, dict):
        raise WebhookVerificationError("The body is signed but is not a JSON object.")
    return cast("dict[str, Any]", told)


def _field(told: dict[str, Any], name: str, kind: type[T]) -> T:
    value = told.get(name)
    if not isinstance(value, kind):
        reason = "is missing" if value is None else "is of the wrong type"
        raise WebhookVerificationError(f"The body is signed but its field {name!r} {reason}.")
    return value


# RFC 3339, 5.7: a leap second, which Python does not know.
_LEAP: Final = re.compile(r"(?<=[T ]23:59:)60(?!\d)")


def _moment(text: str) -> datetime:
    text = text.upper()  # RFC 3339, 5.6: "t" and "z" may be small
    try:
        moment = datetime.fromisoformat(_LEAP.sub("59", text)) + timedelta(seconds=bool(_LEAP.search(text)))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise WebhookVerificationError("The body is signed but its timestamp is not ISO 8601.") from None


def _check_time(sent: datetime, tolerance: float) -> None:
    # The header X-LeadLex-Timestamp is not signed: whoever repeats an old delivery can set it to now.
    late = (now() - sent).total_seconds()
    if abs(late) > tolerance:
        when = f"{late:.0f} s ago" if late > 0 else f"{-late:.0f} s in the future"
        raise WebhookVerificationError(
            f"It was sent {when}, and the tolerance is {tolerance:g} s: it is an old one repeated, or a clock is wrong."
        )
