"""The shape of an error, sent or raised."""

from collections.abc import Mapping
from typing import NoReturn

from starlette.responses import JSONResponse


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the answer that every error of the contract is."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


class Refusal(Exception):
    """An error of the contract, raised to be sent."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


def refuse(message: str) -> NoReturn:
    """Refuse a request that the contract does not allow."""
    raise Refusal(400, "validation_error", message)
