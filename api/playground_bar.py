"""A bar above LangServe's playgrounds: which session it is, what was said in it, and a way to a new one.

LangServe's pages know none of that. They stay as they are; one script is added to them, which draws the bar.
"""

from __future__ import annotations

from html import escape

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth.cookies import root_path, route_path
from playground_config.routes import session_in

_END = b"</body>"


class PlaygroundBar:
    """The middleware that adds the script to the pages of playgrounds in a session."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope) if scope["type"] == "http" else ""
        session_id = session_in(path) if path.rstrip("/").endswith("/playground") else None
        if session_id is None:
            await self.app(scope, receive, send)
            return
        chain = path.split("/")[1]
        await self.app(scope, receive, _Page(send, _script(root_path(scope), chain, session_id)).send)


def _script(root: str, chain: str, session_id: str) -> bytes:
    of = {"src": f"{root}/web/playground.js", "data-root": f"{root}/", "data-chain": chain, "data-session": session_id}
    attributes = " ".join(f'{name}="{escape(value)}"' for name, value in of.items())
    return f'<script id="recollect" type="module" {attributes}></script>'.encode()


class _Page:
    """A response on its way out: LangServe sends its page in one piece."""

    def __init__(self, send: Send, script: bytes) -> None:
        self._send, self._script = send, script
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            headers = MutableHeaders(raw=start["headers"])
            if headers.get("content-type", "").startswith("text/html") and _END in message.get("body", b""):
                message["body"] = message["body"].replace(_END, self._script + _END, 1)
                headers["content-length"] = str(len(message["body"]))
            await self._send(start)
        await self._send(message)
