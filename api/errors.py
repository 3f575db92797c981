"""The edge between chains and HTTP: what a client is told of an error, and when a client has left.

LangServe answers a stream with 200 before its chain has run, turns every error into a 500 event, and then breaks the
body off. This ASGI middleware holds the start of a stream back until there is something to send: so an error before
that gets its true status, and one after it becomes one `error` event, and a proper end.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from api.chain_errors import is_lost_connection, problem_of_chain
from api.problems import Problem, over_budget, with_retry
from api.problems import json_response as json_response
from histories.base import (
    HistoryDamaged,
    HistoryMoved,
    InvalidCursor,
    InvalidId,
    SessionBusy,
    SessionExists,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    TurnNotFound,
)
from turns.connection import Connection, connection
from turns.errors import (
    BegunAnew,
    ChainFailed,
    InvalidInput,
    MessageTooLong,
    OwnerDied,
    RecordedFailure,
    ShuttingDown,
    TurnStopped,
    TurnTooLong,
    WrongChain,
)
from turns.failures import innermost
from turns.rules import Told
from turns.shares import LineFull, OverBudget, OverQuota

log = logging.getLogger("recollect.errors")

STATUS: dict[type[BaseException], int] = {
    InvalidId: 422,
    InvalidInput: 422,
    MessageTooLong: 413,
    InvalidCursor: 422,
    SessionNotFound: 404,
    TurnNotFound: 404,
    HistoryMoved: 412,
    SessionExists: 409,
    SessionBusy: 409,
    TurnStopped: 409,
    WrongChain: 409,
    BegunAnew: 409,
    TurnTooLong: 503,
    ShuttingDown: 503,
    LineFull: 429,
    HistoryDamaged: 503,
    OverQuota: 507,
    StoreFull: 507,
    StoreUnavailable: 503,
    OwnerDied: 503,
}
"""Of an error the status of its own class, or of the nearest of its bases. Its message is for the client."""


def status_of(error: BaseException) -> int | None:
    """The status of an error whose message was written for clients; None for any other one."""
    if isinstance(error, RecordedFailure):
        return error.status_code
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)


def problem_of(error: BaseException, *, debug: bool = False) -> Problem:
    """What to tell of an error. Only messages that were written for clients are passed on, except for `debug`."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, dict(error.headers or {}))
    if isinstance(error, ChainFailed):
        return problem_of_chain(error, debug=debug)
    if isinstance(error, OverBudget):
        return over_budget(error)
    status = status_of(error)
    if status is not None:
        return with_retry(status, str(error))
    if isinstance(error, ValidationError):
        return Problem(422, _fields(error.errors(include_url=False, include_context=False, include_input=False)))
    if isinstance(error, (UnicodeDecodeError, RecursionError)) or _is_huge_number(error):
        return Problem(422, "The body is not JSON in UTF-8 that this server reads.")
    if _is_no_message(error):
        return Problem(422, 'The input holds what is no message: send a text, or {"type": "human", "content": …}.')
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return Problem(500, "The server made a mistake, which is in its log. Nothing that was acknowledged is lost.")


def _is_huge_number(error: BaseException) -> bool:
    return type(error) is ValueError and "integer string conversion" in str(error)


def _is_no_message(error: BaseException) -> bool:
    """What LangChain makes messages with raises what pydantic lets by, for a `type` that is an object, say."""
    if not isinstance(error, (TypeError, KeyError, AttributeError)):
        return False
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return raised_in[-1:] != [] and raised_in[-1].startswith("langchain_core.messages")


def told_of(error: BaseException) -> Told:
    """The same for the record of a turn."""
    if not isinstance(error, ChainFailed):
        return Told(
            status_code=status_of(error) or 502,
            message=str(error),
            reason="limit" if isinstance(error, TurnTooLong) else "error",
        )
    problem = problem_of_chain(error)
    reason = "cut" if is_lost_connection(error.__cause__) else "error"
    return Told(status_code=problem.status, message=str(problem.message), reason=reason)


def _fields(errors: Any) -> list[dict[str, Any]]:
    """The errors of a validation, by field, without what was sent: it may be long, and is the client's own."""
    if any(isinstance(one, str) for one in errors):
        return [{"loc": ["body"], "msg": str(one), "type": "value_error"} for one in errors]
    return [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in errors]


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """FastAPI's handler for requests that don't fit."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    return json_response({"detail": _fields(error.errors())}, 422)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The handler for statuses that routes raise. LangServe's 400 is a malformed config hash: 422, as all of them."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    status = 422 if error.status_code == 400 else error.status_code
    headers = {"Allow": ", ".join(sorted(_allowed(request)))} if status == 405 else {}
    return json_response({"detail": error.detail}, status, {**(error.headers or {}), **headers})


def _allowed(request: Request) -> set[str]:
    """The methods of all routes of a path. Starlette names those of the first alone; HEAD is wherever GET is."""
    methods = set[str]()
    for route in request.app.router.routes:
        if route.matches(dict(request.scope))[0] is not Match.NONE:
            methods |= set(getattr(route, "methods", None) or ())
    return methods | ({"HEAD"} if "GET" in methods else set())


class Edge:
    """The middleware that answers for errors, and watches whether clients are still there.

    With `debug_errors`, clients are told why a chain failed.
    """

    def __init__(self, app: ASGIApp, debug_errors: bool = False) -> None:
        self.app, self._debug = app, debug_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client, answer = _Client(receive), _Answer(send)
        token = connection.set(client)
        try:
            await self.app(scope, client.receive, answer.send)
        except Exception as error:
            if answer.can_fail:
                await answer.fail(problem_of(innermost(error), debug=self._debug), scope, receive)
            else:
                raise
        finally:
            connection.reset(token)
            client.close()


class _Client(Connection):
    """The client of a request: found gone as soon as the server is told, whoever listens."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive, self._has_sent_all = receive, False
        self._gone = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """The request's messages. After the body, all who wait for the disconnect share one listener."""
        if not self._has_sent_all:
            message = await self._receive()
            self._has_sent_all = not message.get("more_body", False)
            if message["type"] == "http.disconnect":
                self.lose()
            return message
        self._listen()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    @override
    def watch(self, left: Any) -> None:
        super().watch(left)
        if self._has_sent_all:
            self._listen()

    @override
    def lose(self) -> None:
        self._gone.set()
        super().lose()

    def _listen(self) -> None:
        if self._listener is None and not self.lost:
            self._listener = asyncio.create_task(self._await_disconnect(), name="recollect-disconnect")

    async def _await_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.lose()

    def close(self) -> None:
        """The request is over."""
        if self._listener is not None:
            self._listener.cancel()
        self.lose()


class _Answer:
    """The response on its way out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: Message | None = None
        self._started = self._is_stream = self._ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            content_type = _content_type(message)
            if message["status"] == 413 and content_type.startswith(b"text/plain"):  # Starlette's body limit
                await self._too_large()
                return
            self._is_stream = content_type.startswith(b"text/event-stream")
            if self._is_stream:
                self._held = message
                return
            self._started = True
        elif self._ended:
            return
        elif self._is_stream and message.get("body", b"").startswith(b"event: error\r\n"):
            return  # LangServe's, which knows no status: the exception that follows it does
        await self._release()
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def _too_large(self) -> None:
        problem = Problem(413, "The body is larger than this server takes (RECOLLECT_MAX_BODY_BYTES).")
        self._started = self._ended = True
        await problem.response()({"type": "http"}, _no_receive, self._send)

    async def _release(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._started = True
            await self._send(held)

    @property
    def can_fail(self) -> bool:
        """Whether the client can still be told."""
        return not self._started or (self._is_stream and not self._ended)

    async def fail(self, problem: Problem, scope: Scope, receive: Receive) -> None:
        """Ends the response: with the error's status, or, in a stream, with an event."""
        if not self._started:
            await problem.response()(scope, receive, self._send)
        else:
            await self._send({"type": "http.response.body", "body": problem.event(), "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _no_receive() -> Message:
    return {"type": "http.disconnect"}


def _content_type(message: Message) -> bytes:
    return next((bytes(value) for name, value in message.get("headers", ()) if name.lower() == b"content-type"), b"")
