"""The API put together: routes, the guard before them, and every error in one form."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from framework.failures import to_answer
from framework.rest.context import Context, answer
from framework.rest.guard import Guard
from framework.rest.inventory import router as inventory
from framework.rest.marathon import router as marathon
from framework.rest.orders import router as orders
from framework.service import Broker
from framework.source import LedgerSource
from storage.errors import PollyError
from storage.inventory import Ledger

logger = logging.getLogger(__name__)


def create_app(broker: Broker, ledger: Ledger, *, token: str | None) -> FastAPI:
    """The API of one broker. With a token every request must bear it; without, only this machine's programs are answered."""
    app = FastAPI(title="Polly", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.polly = Context(broker=broker, source=LedgerSource(ledger, broker.info().scheduler))
    for router in (marathon, orders, inventory):
        app.include_router(router)
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(PollyError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_request)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _fail)
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, PollyError)  # noqa: S101 - tells the type checker what the registration says
    status, body = to_answer(error)
    return answer(body, status)


async def _refuse_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    wrong = [f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
    return answer({"code": "Invalid", "message": f"The request is not valid: {'; '.join(wrong)}.", "advice": ""}, 422)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{phrase}: {request.method} {request.url.path}."
    return answer({"code": phrase.replace(" ", ""), "message": message, "advice": ""}, error.status_code)


async def _fail(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer({"code": "Internal", "message": "Polly failed at this; its log says more.", "advice": ""}, 500)
