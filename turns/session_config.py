"""Who calls, and in which session: the config modifier that LangServe runs for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from histories.base import check_id

ConfigModifier = Callable[[dict[str, Any], Request], Awaitable[dict[str, Any]]]


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
        for name in ("turn_id", "version_of"):
            if memory and sent.get(name) not in (None, ""):
                configurable[name] = check_id(sent[name], name)
        configurable["user_id"] = request.state.user_id
        return {**config, "configurable": configurable}

    return modify
