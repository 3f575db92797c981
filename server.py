"""The server: everything is put together here, and nowhere else."""

# ruff: noqa: E402 - imports stand between two calls of the garbage collector
from __future__ import annotations

import gc

gc.disable()  # what is imported stays: to look for garbage among it would take a quarter of the start

import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from socket import socket
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from langchain_core.language_models import BaseChatModel
from langserve import add_routes
from langserve.callbacks import AsyncEventAggregatorCallback
from pydantic import SecretStr
from sse_starlette.sse import unpatch_uvicorn_signal_handler
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from api import memory, page
from api.errors import Edge, on_http_exception, on_invalid_request, told_of
from api.langserve_gaps import CONFIG_KEYS, Serializer, readable
from api.sessions import routes as session_routes
from api.sessions import turn_routes
from api.turn_endpoints import TurnEndpoints
from auth import login
from auth.files import KeyFileError
from auth.links import login_url, server_url
from auth.middleware import Auth, AuthMiddleware, current_user
from chains import BadChain, Chain, load_chains
from chains.checks import doubt_about
from chat_models.context import context_of
from chat_models.models import Endpoint, ModelUnavailable, connect, model_endpoint
from histories import open_store
from histories.base import HistoryStore, StoreUnavailable
from playground_config import routes as playground_routes
from serving import BAD_SETTINGS, allow_many_files, bind, end_with_parent, run, supervise
from settings import Settings, SettingsError, load_settings
from turns.run import Rules, Turns
from turns.session_config import session_config
from turns.with_history import ChainWithHistory

gc.freeze()  # nor is it looked through later, which would hold every turn up for a tenth of a second now and then
gc.enable()

log = logging.getLogger("recollect.chains")

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
    chains, auth = load_chains(settings.chains) if chains is None else chains, _auth(settings)
    at_once = [] if model is None else [chain for chain in chains if chain.is_simple]
    histories = store or open_store(
        settings.history_url, default_dir=str(settings.data_dir / "histories"), fsync=settings.history_fsync
    )
    turns = Turns(histories, _rules(settings), told_of, Serializer().dumps)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if store is None:
                await histories.open()
                stack.push_async_callback(histories.close)
            talks = model
            if talks is None:
                endpoint = stack.enter_context(_endpoint(settings))
                talks = await stack.enter_async_context(connect(endpoint, timeout_s=settings.model_timeout_s))
            turns.fits.serve(talks, context_of)
            for chain in chains:
                if chain not in at_once:
                    _add_chain(app, chain, await stack.enter_async_context(_opened(app, chain, talks, turns)))
            stack.push_async_callback(turns.drain, 0)
            yield

    app = FastAPI(
        title="Recollect",
        description="Chains that remember: LangServe, with a history for each user and each session.",
        version="0.1.0",
        lifespan=lifespan,
        exception_handlers={RequestValidationError: on_invalid_request, HTTPException: on_http_exception},
    )
    app.state.turns, app.state.fault = turns, None
    # The last one added is the first one met. The limit is not FastAPI's `max_body_size`, which comes before any
    # other middleware: who has not signed in is to learn nothing but that.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    app.add_middleware(Edge, debug_errors=settings.debug_errors)
    app.add_middleware(AuthMiddleware, auth=auth)
    cards = [page.ChainCard.of(one.name, one.description, one.input_messages_key) for one in chains if one.memory]
    for router in (
        login.router(auth),
        _ops(histories),
        session_routes.router(histories),
        turn_routes.router(turns),
        memory.router(histories),
        page.router(cards),
        playground_routes.router([chain.name for chain in chains]),
    ):
        # They become the app's own: what FastAPI includes it analyses a second time, and matches twice.
        app.router.routes.extend(router.routes)
    for chain in at_once:
        assert model is not None  # noqa: S101 - or there are none
        _add_chain(app, chain, chain.with_history(model, turns, **_UNHEARD))
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
        limit_s=settings.turn_limit_s,
        window_tokens=None if settings.window_tokens == "auto" else settings.window_tokens,
        recall=settings.recall,
        on_disconnect=settings.on_disconnect,
        grace_s=settings.grace_s,
        hash_users=settings.trace_hash_users,
        show_prompts=settings.debug_prompts,
    )


_UNHEARD: Final[dict[str, Any]] = {"unheard": (AsyncEventAggregatorCallback,)}
"""LangServe collects events for clients that it is never told to show them to."""


@asynccontextmanager
async def _opened(app: FastAPI, chain: Chain, model: BaseChatModel, turns: Turns) -> AsyncIterator[ChainWithHistory]:
    """The chain, built; what it has opened is closed in the end. `app.state.fault` says why it can't be."""
    try:
        async with AsyncExitStack() as stack:
            runnable = await stack.enter_async_context(chain.opened(model, turns, **_UNHEARD))
            opened = stack.pop_all()
    except BadChain as fault:
        app.state.fault = str(fault)
        raise
    async with opened:
        yield runnable


def _add_chain(app: FastAPI, chain: Chain, runnable: ChainWithHistory) -> None:
    """LangServe's routes of a chain, all of them behind the sign-in; before them those on which turns run."""
    serializer = Serializer()
    doubt = doubt_about(chain, runnable.bound)
    if doubt is not None:
        log.warning("%s: %s", chain.place, doubt)
    allowed = frozenset(spec.id for spec in runnable.config_specs)
    modifier = session_config(allowed, playground_routes.session_of_playground, memory=chain.memory)
    endpoints = TurnEndpoints(runnable, path=f"/{chain.name}", modifier=modifier, serializer=serializer)
    app.router.routes[:0] = endpoints.routes()
    add_routes(
        app,
        runnable,
        path=f"/{chain.name}",
        config_keys=CONFIG_KEYS,
        per_req_config_modifier=modifier,
        dependencies=[Depends(current_user), Depends(readable)],
        playground_type=chain.playground,
        serializer=serializer,
    )


async def look_at_chains(settings: Settings) -> list[str]:
    """Builds all chains on a model that is never asked, and gives a line for each. Raises `BadChain`."""
    turns, lines = Turns(open_store("memory:"), _rules(settings)), list[str]()
    nowhere = Endpoint("http://127.0.0.1:9/v1", SecretStr("none"), "none")
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(connect(nowhere, timeout_s=1))
        for chain in load_chains(settings.chains):
            runnable = await stack.enter_async_context(chain.opened(model, turns))
            memory = "remembers" if chain.memory else "no memory"
            doubt = doubt_about(chain, runnable.bound)
            lines.append("\t".join([f"/{chain.name}", memory, chain.place, *([f"but: {doubt}"] if doubt else [])]))
    return lines


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
    chains = load_chains(settings.chains)  # what is wrong with them is better said once
    print("Chains: " + ", ".join(f"/{chain.name}" for chain in chains), flush=True)
    if settings.workers == 1:
        return _run(settings, sock, endpoint, welcome)
    welcome()
    return supervise(partial(_work, settings, sock, endpoint), settings.workers)


def _work(settings: Settings, sock: socket, endpoint: Endpoint) -> None:
    """A worker process."""
    end_with_parent()
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    status = _run(settings, sock, endpoint)
    if status:
        sys.exit(status)


def _run(settings: Settings, sock: socket, endpoint: Endpoint, started: Callable[[], None] | None = None) -> int:
    """Serves in this process; gives its exit status. A chain that can't be built is told in one line."""
    shared = {"openai_base_url": endpoint.base_url, "openai_api_key": endpoint.api_key, "model": endpoint.model}
    app = create_app(settings.model_copy(update=shared))
    logging.getLogger("uvicorn.error").addFilter(lambda record: app.state.fault is None)  # its traceback tells no more
    try:
        run(app, sock, shutdown_s=settings.shutdown_s, started=started)
    except SystemExit:  # uvicorn's, when the start fails
        if app.state.fault is None:
            raise
    return 0 if app.state.fault is None else _complain(app.state.fault)


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
