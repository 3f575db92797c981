"""Who calls, and in which session: the config modifier that LangServe runs for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from histories.base import check_id
from turns.errors import InvalidInput
from turns.rules import ON_DISCONNECT

ConfigModifier = Callable[[dict[str, Any], Request], Awaitable[dict[str, Any]]]


def if_last_of(request: Request) -> str | None:
    """The turn with which the caller believes the session to end, by `If-Match`; None if anything will do."""
    wanted = request.headers.get("if-match", "*").strip()
    return None if wanted == "*" else unquote(wanted.removeprefix("W/").strip('"'))


def session_config(
    allowed: frozenset[str],
    implied_session: Callable[[Request], str | None] = lambda request: None,
    *,
    memory: bool = True,
) -> ConfigModifier:
    """A modifier that lets clients set the `configurable` keys in `allowed`, and nobody the `user_id`.

    A chain without `memory` needs no session. `implied_session` finds the session of a request whose config has none,
    for clients that can't send one.

    It raises `InvalidId` for a session_id or turn_id that is none: here, and not when the history is bound, because
    what a modifier raises becomes a proper status on every endpoint, before a stream opens.
    """

    async def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        sent = config.get("configurable") or {}
        configurable = {key: value for key, value in sent.items() if key in allowed}
        if memory:
            configurable["session_id"] = check_id(sent.get("session_id") or implied_session(request))
        if memory and sent.get("turn_id") not in (None, ""):
            configurable["turn_id"] = check_id(sent["turn_id"], "turn_id")
        if memory and sent.get("version_of") not in (None, ""):
            configurable["version_of"] = check_id(sent["version_of"], "version_of")
        if memory and sent.get("on_disconnect") not in (None, "", *ON_DISCONNECT):
            raise InvalidInput(f"on_disconnect is one of {', '.join(ON_DISCONNECT)}.")
        if memory and "if-match" in request.headers:
            configurable["if_last"] = if_last_of(request)
        configurable["user_id"] = request.state.user_id
        return {**config, "configurable": configurable}

    return modify
