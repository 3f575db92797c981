"""The server: everything is put together here, and nowhere else."""

# ruff: noqa: E402 - imports stand between two calls of the garbage collector
from __future__ import annotations

import gc

gc.disable()  # what is imported stays: to look for garbage among it would take a quarter of the start

import asyncio
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from socket import socket
from typing import Any

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
from api.door import DoorRules
from api.errors import Edge, on_http_exception, on_invalid_request
from api.langserve_gaps import BatchLimit, Serializer, readable
from api.loop_watch import LoopWatch
from api.rates import RateRules, Rates, RequestRate, open_counters
from api.sessions import routes as session_routes
from api.turn_endpoints import TurnEndpoints
from auth import login
from auth.files import KeyFileError
from auth.links import login_url, server_url
from auth.middleware import Auth, AuthMiddleware, current_user
from auth.refusals import Refusal
from chains import BadChain, Chain, load_chains
from chat_models.models import Endpoint, ModelUnavailable, connect, model_endpoint
from histories import open_store
from histories.base import HistoryStore, StoreUnavailable
from playground_config import routes as playground_routes
from serving import BAD_SETTINGS, allow_many_files, bind, door_rules, end_with_parent, run, supervise
from settings import Settings, SettingsError, load_settings
from turns.run import Rules, Turns
from turns.session_config import session_config
from turns.shares import FairThreads, OverBudget, ShareRules

gc.freeze()  # nor is it looked through later, which would hold every turn up for a tenth of a second now and then
gc.enable()

# sse-starlette 1.8 cuts all streams at SIGTERM. Ours end by themselves: see serving.py.
unpatch_uvicorn_signal_handler()  # type: ignore[no-untyped-call]  # sse-starlette 1.8 has few types


TURNS = 1000
"""How many turns run at once on a model of which nothing is known."""

_THREADS, _THREADS_A_USER = 32, 8
"""For the blocking functions of chains."""


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
    rates = Rates(_rates(settings), open_counters(settings.history_url, settings.data_dir))
    turns, watch = Turns(histories, _rules(settings), rates.turn), LoopWatch()
    auth.failed = partial(_count_failed_sign_in, rates)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            threads = FairThreads(_THREADS, _THREADS_A_USER, "recollect-chains")
            asyncio.get_running_loop().set_default_executor(threads)
            stack.callback(rates.close)
            if store is None:
                await histories.open()
                stack.push_async_callback(histories.close)
            if model is None:
                endpoint = stack.enter_context(_endpoint(settings))
                opened = await stack.enter_async_context(connect(endpoint, timeout_s=settings.model_timeout_s))
                _add_chains(app, chains, opened, turns)
            stack.push_async_callback(turns.drain, 0)
            watch.start()  # not before: a start takes as long as it takes
            stack.callback(watch.stop)
            yield

    app = FastAPI(
        title="Recollect",
        description="Chains that remember: LangServe, with a history for each user and each session.",
        version="0.1.0",
        lifespan=lifespan,
        exception_handlers={RequestValidationError: on_invalid_request, HTTPException: on_http_exception},
    )
    app.state.turns, app.state.loop_watch = turns, watch
    _add_middleware(app, settings, auth, rates)
    _add_routes(app, chains, auth, histories, rates)
    if model is not None:
        _add_chains(app, chains, model, turns)
    return app


def _add_middleware(app: FastAPI, settings: Settings, auth: Auth, rates: Rates) -> None:
    # The last one added is the first one met. The limit is not FastAPI's `max_body_size`, which comes before any
    # other middleware: who has not signed in is to learn nothing but that.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    app.add_middleware(Edge)
    if rates.limits_requests:
        app.add_middleware(RequestRate, rates=rates)
    app.add_middleware(AuthMiddleware, auth=auth)


def _add_routes(app: FastAPI, chains: list[Chain], auth: Auth, histories: HistoryStore, rates: Rates) -> None:
    cards = [page.ChainCard.of(chain.name, chain.description, chain.input_messages_key) for chain in chains]
    for router in (
        login.router(auth, rates.left),
        _ops(histories),
        session_routes.router(histories, rates),
        page.router(cards),
        playground_routes.router([chain.name for chain in chains]),
    ):
        # They become the app's own: what FastAPI includes it analyses a second time, and matches twice.
        app.router.routes.extend(router.routes)


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
    shares = ShareRules(
        at_once=max(1, (settings.turns or TURNS) // settings.workers),
        each=settings.turns_per_user,
        line=settings.turns_in_line,
    )
    return Rules(
        shares=shares,
        max_batch=settings.max_batch,
        wait_s=settings.turn_wait_s if settings.turn_conflict == "queue" else 0,
        silence_s=settings.model_timeout_s,
        window_tokens=settings.window_tokens,
        on_disconnect=settings.on_disconnect,
        show_prompts=settings.debug_prompts,
    )


def _rates(settings: Settings) -> RateRules:
    return RateRules(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_day=settings.tokens_per_day,
        copies_per_minute=settings.copies_per_minute,
        sign_ins_per_minute=settings.sign_ins_per_minute,
    )


async def _count_failed_sign_in(rates: Rates, address: str) -> None:
    try:
        await rates.failed_sign_in(address)
    except OverBudget as refused:
        raise Refusal(429, str(refused), refused.retry_after_s) from None


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
            dependencies=[Depends(current_user), Depends(readable), Depends(BatchLimit(turns.rules.max_batch))],
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
        run(_app_on(settings, endpoint), sock, shutdown_s=settings.shutdown_s, door=_door(settings), started=welcome)
        return 0
    load_chains()  # what is wrong with them is better said once
    welcome()
    return supervise(partial(_work, settings, sock, endpoint), settings.workers)


def _work(settings: Settings, sock: socket, endpoint: Endpoint) -> None:
    """A worker process."""
    end_with_parent()
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    run(_app_on(settings, endpoint), sock, shutdown_s=settings.shutdown_s, door=_door(settings))


def _door(settings: Settings) -> DoorRules:
    return door_rules(settings.max_connections, settings.max_connections_per_address)


def _app_on(settings: Settings, endpoint: Endpoint) -> FastAPI:
    shared: dict[str, Any] = {
        "openai_base_url": endpoint.base_url,
        "openai_api_key": endpoint.api_key,
        "model": endpoint.model,
        "turns": settings.turns or endpoint.at_once,
    }
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
