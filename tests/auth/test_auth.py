"""The gate, and API keys."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket

from auth.middleware import Auth, AuthMiddleware, current_user
from tests.sign_in import app_of, bearer, client_of


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    return Auth(tmp_path / "data")


async def ask(auth: Auth, path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> int:
    """The status of a request whose body must not be read, to an app that must not be reached unless it is open."""
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("the body was read")

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": list(headers)}
    await app_of(auth)({**scope, "http_version": "1.1", "scheme": "http", "server": ("test", 80)}, receive, send)
    return statuses[0]


async def test_two_users_are_told_apart_by_their_keys(auth: Auth) -> None:
    (_, alice), (_, bob) = auth.keys.create("alice"), auth.keys.create("bob")
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers=bearer(alice))).json() == "alice"
        assert (await client.get("/whoami", headers=bearer(bob))).json() == "bob"
        assert (await client.get("/me", headers=bearer(bob))).json() == {"user_id": "bob"}
        assert (await client.post("/change", content=b"x", headers=bearer(alice))).json() == "alice: x"


@pytest.mark.parametrize("path", ["/whoami", "/docs", "/openapi.json", "/nowhere", "/login/", "//login", "/", "/LOGIN"])
async def test_nobody_is_let_in_without_a_credential(auth: Auth, path: str) -> None:
    async with client_of(auth) as client:
        response = await client.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Bearer <API key or JWT>" in response.json()["detail"]


async def test_the_public_paths_are_open(auth: Auth) -> None:
    async with client_of(auth) as client:
        for path in ("/healthz", "/login", "/login.css"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/change", "/whoami", "/nowhere", "/healthz/../change"])
async def test_the_401_comes_before_the_body_the_path_and_the_method_are_looked_at(auth: Auth, path: str) -> None:
    assert await ask(auth, path, (b"content-length", b"99999999999"), method="POST") == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer rk_wrong",
        "Bearer nonsense",
        "Bearer a.b.c",
        "Basic YWxpY2U6eA==",
        "{key}",
        "Basic {key}",
        "Bearer {key} {key}",
        "Bearer x{key}",
        "Bearer {key}x",
    ],
)
async def test_a_malformed_or_wrong_header_is_401_and_is_never_repeated(auth: Auth, header: str) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        response = await client.get("/whoami", headers={"Authorization": header.format(key=key)})
    assert response.status_code == 401
    assert key not in response.text


async def test_two_authorization_headers_are_refused(auth: Auth) -> None:
    _, key = auth.keys.create("alice")
    header = (b"authorization", f"Bearer {key}".encode())
    assert await ask(auth, "/whoami", header, header) == 401


async def test_the_scheme_is_read_without_regard_to_case(auth: Auth) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers={"Authorization": f"bEARER  {key}"})).status_code == 200


@settings(max_examples=60, deadline=None)
@given(header=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda rest: b"Bearer " + rest)))
async def test_no_bytes_in_the_header_break_the_gate(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    auth = Auth(tmp_path_factory.getbasetemp() / "fuzz", jwt_secret="s" * 32)
    assert await ask(auth, "/whoami", (b"authorization", header)) == 401
    assert await ask(auth, "/whoami", (b"cookie", b"recollect=" + header)) == 401


async def test_websockets_are_refused(auth: Auth) -> None:
    sent: list[MutableMapping[str, Any]] = []
    app = FastAPI()

    @app.websocket("/healthz")
    async def reached(socket: WebSocket) -> None:
        raise AssertionError

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    gate = AuthMiddleware(app, auth)
    await gate({"type": "websocket", "path": "/healthz", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_route_without_the_gate_is_closed() -> None:
    with pytest.raises(HTTPException) as caught:
        await current_user(Request({"type": "http", "headers": []}))
    assert caught.value.status_code == 401


async def test_openapi_says_which_credentials_there_are(auth: Auth) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        document = (await client.get("/openapi.json", headers=bearer(key))).json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "API key or JWT"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "recollect", "description": "Set by /login."},
    }
    assert document["paths"]["/whoami"]["get"]["security"] == [{"bearer": []}, {"cookie": []}]
