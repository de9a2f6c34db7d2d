"""How Compute Engine says no: an HTTP error with a reason, or an error inside an operation."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal of the call itself."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    def body(self) -> dict[str, Any]:
        errors = [{"message": self.message, "domain": "global", "reason": self.reason}]
        return {"error": {"code": self.status, "message": self.message, "errors": errors}}


class OperationError(Exception):
    """A refusal that only shows when the operation is done."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def invalid(field: str, value: object, reason: str) -> ApiError:
    return ApiError(400, "invalid", f"Invalid value for field '{field}': '{value}'. {reason}")


def not_found(link: str) -> ApiError:
    return ApiError(404, "notFound", f"The resource '{link}' was not found")


def in_use(link: str, user: str) -> ApiError:
    return ApiError(400, "resourceInUseByAnotherResource", f"The disk resource '{link}' is already being used by '{user}'")
