"""The server: everything is put together here, and nowhere else."""

# ruff: noqa: E402 - imports stand between two calls of the garbage collector
from __future__ import annotations

import gc

gc.disable()  # what is imported stays: to look for garbage among it would take a quarter of the start

import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from socket import socket

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from langchain_core.language_models import BaseChatModel
from langserve import add_routes
from langserve.callbacks import AsyncEventAggregatorCallback
from sse_starlette.sse import unpatch_uvicorn_signal_handler
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from api import page
from api.errors import Edge, on_http_exception, on_invalid_request
from api.langserve_gaps import Serializer, readable
from api.sessions import routes as session_routes
from api.turn_endpoints import TurnEndpoints
from auth import login
from auth.files import KeyFileError
from auth.links import login_url, server_url
from auth.middleware import Auth, AuthMiddleware, current_user
from chains import BadChain, Chain, load_chains
from chat_models.models import Endpoint, ModelUnavailable, connect, model_endpoint
from histories import open_store
from histories.base import HistoryStore, StoreUnavailable
from playground_config import routes as playground_routes
from serving import BAD_SETTINGS, allow_many_files, bind, end_with_parent, run, supervise
from settings import Settings, SettingsError, load_settings
from turns.run import Rules, Turns
from turns.session_config import session_config

gc.freeze()  # nor is it looked through later, which would hold every turn up for a tenth of a second now and then
gc.enable()

# sse-starlette 1.8 cuts all streams at SIGTERM. Ours end by themselves: see serving.py.
unpatch_uvicorn_signal_handler()  # type: ignore[no-untyped-call]  # sse-starlette 1.8 has few types


def create_app(
    settings: Settings,
    *,
    model: BaseChatModel | None = None,
    store: HistoryStore | None = None,
    chains: list[Chain] | None = None,
) -> FastAPI:
    """The whole server as an ASGI app. What is handed in is used as it is, and neither opened nor closed here.

    Without `chains` those of the folder are served. Raises `BadChain`, and what `Auth` raises, for what can't be.
    """
    chains, auth = load_chains() if chains is None else chains, _auth(settings)
    histories = store or open_store(
        settings.history_url, default_dir=str(settings.data_dir / "histories"), fsync=settings.history_fsync
    )
    turns = Turns(histories, _rules(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if store is None:
                await histories.open()
                stack.push_async_callback(histories.close)
            if model is None:
                endpoint = stack.enter_context(_endpoint(settings))
                fast = settings.model_client == "fast"
                connecting = connect(endpoint, timeout_s=settings.model_timeout_s, fast=fast)
                opened = await stack.enter_async_context(connecting)
                _add_chains(app, chains, opened, turns)
            stack.push_async_callback(turns.drain, 0)
            yield

    app = FastAPI(
        title="Recollect",
        description="Chains that remember: LangServe, with a history for each user and each session.",
        version="0.1.0",
        lifespan=lifespan,
        exception_handlers={RequestValidationError: on_invalid_request, HTTPException: on_http_exception},
    )
    app.state.turns = turns
    # The last one added is the first one met. The limit is not FastAPI's `max_body_size`, which comes before any
    # other middleware: who has not signed in is to learn nothing but that.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    app.add_middleware(Edge)
    app.add_middleware(AuthMiddleware, auth=auth)
    cards = [page.ChainCard.of(chain.name, chain.description, chain.input_messages_key) for chain in chains]
    for router in (
        login.router(auth),
        _ops(histories),
        session_routes.router(histories),
        page.router(cards),
        playground_routes.router([chain.name for chain in chains]),
    ):
        # They become the app's own: what FastAPI includes it analyses a second time, and matches twice.
        app.router.routes.extend(router.routes)
    if model is not None:
        _add_chains(app, chains, model, turns)
    return app


def _auth(settings: Settings) -> Auth:
    secret = settings.jwt_secret
    return Auth(
        settings.data_dir,
        jwt_secret=None if secret is None else secret.get_secret_value(),
        jwt_jwks_url=settings.jwt_jwks_url,
        jwt_audience=settings.jwt_audience,
        jwt_issuer=settings.jwt_issuer,
    )


def _rules(settings: Settings) -> Rules:
    return Rules(
        wait_s=settings.turn_wait_s if settings.turn_conflict == "queue" else 0,
        silence_s=settings.model_timeout_s,
        window_tokens=settings.window_tokens,
        on_disconnect=settings.on_disconnect,
        show_prompts=settings.debug_prompts,
    )


def _add_chains(app: FastAPI, chains: list[Chain], model: BaseChatModel, turns: Turns) -> None:
    """LangServe's routes of every chain, all of them behind the sign-in; before them those on which turns run."""
    serializer = Serializer()
    for chain in chains:
        runnable = chain.with_history(model, turns, unheard=(AsyncEventAggregatorCallback,))
        modifier = session_config(
            frozenset(spec.id for spec in runnable.config_specs), playground_routes.session_of_playground
        )
        endpoints = TurnEndpoints(runnable, path=f"/{chain.name}", modifier=modifier, serializer=serializer)
        app.router.routes[:0] = endpoints.routes()
        add_routes(
            app,
            runnable,
            path=f"/{chain.name}",
            per_req_config_modifier=modifier,
            dependencies=[Depends(current_user), Depends(readable)],
            playground_type=chain.playground,
            serializer=serializer,
        )


def _ops(store: HistoryStore) -> APIRouter:
    routes = APIRouter(tags=["ops"])

    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", summary="Does the store answer?", dependencies=[Depends(current_user)])
    async def readyz() -> JSONResponse:
        try:
            await store.ping()
        except StoreUnavailable as error:
            return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    return routes


def main() -> int:
    """Serves as the environment says; gives the exit status, 2 when it can't be served so."""
    try:
        settings = load_settings()
        auth = _auth(settings)
        sock = bind(settings.host, settings.port)
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})  # of port 0, the one that it became
    except (SettingsError, KeyFileError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"can't serve on {settings.host} port {settings.port}: {error.strerror}")
    allow_many_files()
    # LangServe's stream_log endpoint is made of it, and langchain-core keeps it until 2.0.
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    try:
        with sock, _endpoint(settings) as endpoint:
            print(f"Model: {endpoint}", flush=True)
            return _serve(settings, sock, endpoint, lambda: _welcome(settings, auth))
    except (BadChain, ModelUnavailable) as error:
        return _complain(str(error))


def _serve(settings: Settings, sock: socket, endpoint: Endpoint, welcome: Callable[[], None]) -> int:
    """Serves in this process, or in workers, which then share its embedded model."""
    if settings.workers == 1:
        run(_app_on(settings, endpoint), sock, shutdown_s=settings.shutdown_s, started=welcome)
        return 0
    load_chains()  # what is wrong with them is better said once
    welcome()
    return supervise(partial(_work, settings, sock, endpoint), settings.workers)


def _work(settings: Settings, sock: socket, endpoint: Endpoint) -> None:
    """A worker process."""
    end_with_parent()
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    run(_app_on(settings, endpoint), sock, shutdown_s=settings.shutdown_s)


def _app_on(settings: Settings, endpoint: Endpoint) -> FastAPI:
    shared = {"openai_base_url": endpoint.base_url, "openai_api_key": endpoint.api_key, "model": endpoint.model}
    return create_app(settings.model_copy(update=shared))


def _endpoint(settings: Settings) -> AbstractContextManager[Endpoint]:
    return model_endpoint(
        openai_api_key=settings.openai_api_key, openai_base_url=settings.openai_base_url, model=settings.model
    )


def _welcome(settings: Settings, auth: Auth) -> None:
    url = server_url(settings.host, settings.port)
    token = auth.first_link()
    print(f"Recollect is at {url}", flush=True)
    if token is not None:
        print(f"Sign in, once, within ten minutes: {login_url(url, token)}", flush=True)


def _complain(text: str) -> int:
    print(f"recollect: {text}", file=sys.stderr)
    return BAD_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
