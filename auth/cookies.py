"""Cookies that belong to one server: to its scheme, its port and its prefix, which browsers do not all tell apart."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

COOKIE = "recollect"


def root_path(scope: Scope) -> str:
    """The prefix under which the server is found, without a slash at its end."""
    return str(scope.get("root_path", "")).rstrip("/")


def route_path(scope: Scope) -> str:
    """The path of a request below that prefix."""
    path, root = str(scope["path"]), root_path(scope)
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def cookie_name(connection: HTTPConnection, base: str = COOKIE) -> str:
    """The name of a cookie of this server. Under https the browser itself holds it to its origin, by `__Host-`."""
    port = connection.headers.get("host", "").rpartition(":")[2]
    root = root_path(connection.scope)
    name = "-".join([base, *([port] if port.isdecimal() and port.isascii() else []), *root.split("/")[1:]])
    if connection.scope["scheme"] != "https":
        return name
    return f"__Secure-{name}" if root else f"__Host-{name}"  # `__Host-` wants the path to be `/`


def set_cookie(response: Response, connection: HTTPConnection, value: str, life_s: int, base: str = COOKIE) -> None:
    """Sets one. Lax, so that who follows a link to this server is still signed in; `refuse_foreign` guards changes."""
    response.set_cookie(cookie_name(connection, base), value, life_s, **_attributes(connection))


def delete_cookie(response: Response, connection: HTTPConnection, base: str = COOKIE) -> None:
    """Takes it away again."""
    response.delete_cookie(cookie_name(connection, base), **_attributes(connection))


def _attributes(connection: HTTPConnection) -> dict[str, Any]:
    secure, path = connection.scope["scheme"] == "https", root_path(connection.scope) or "/"
    return {"secure": secure, "path": path, "httponly": True, "samesite": "lax"}
