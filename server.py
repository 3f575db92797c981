"""The server: everything is put together here, and nowhere else."""

# ruff: noqa: E402 - imports stand between two calls of the garbage collector
from __future__ import annotations

import gc

gc.disable()  # what is imported stays: to look for garbage among it would take a quarter of the start

import asyncio
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from socket import socket
from tempfile import TemporaryDirectory
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
from api.langserve_gaps import CONFIG_KEYS, BatchLimit, Serializer, readable
from api.loop_watch import LoopWatch
from api.ops import docs, logs
from api.ops.metrics import Metrics, bury
from api.ops.outfit import Outfit, metrics_router
from api.ops.watched_store import watched
from api.rates import RateRules, Rates, RequestRate, open_counters
from api.sessions import routes as session_routes
from api.sessions import summary_routes, turn_routes
from api.turn_endpoints import TurnEndpoints
from auth import login
from auth.credentials import Counted
from auth.files import KeyFileError, kept_secret
from auth.holds import Holds
from auth.links import login_url, server_url
from auth.middleware import Auth, AuthMiddleware, current_user
from auth.refusals import Refusal
from chains import BadChain, Chain, load_chains
from chains.checks import doubt_about
from chat_models.context import context_of
from chat_models.models import Endpoint, ModelUnavailable, connect, model_endpoint
from histories import open_store
from histories.base import HistoryStore, StoreUnavailable
from histories.retention import Gone, keep_to
from histories.retention import Rules as RetentionRules
from playground_config import routes as playground_routes
from serving import BAD_SETTINGS, allow_many_files, bind, door_rules, end_with_parent, run, supervise
from settings import Settings, SettingsError, load_settings, parts_of, share_metrics
from turns.rules import Rules
from turns.run import Turns
from turns.session_config import session_config
from turns.shares import FairThreads, OverBudget, ShareRules
from turns.with_history import ChainWithHistory

gc.freeze()  # nor is it looked through later, which would hold every turn up for a tenth of a second now and then
gc.enable()

log = logging.getLogger("recollect.chains")

# sse-starlette 1.8 cuts all streams at SIGTERM. Ours end by themselves: see serving.py.
unpatch_uvicorn_signal_handler()  # type: ignore[no-untyped-call]  # sse-starlette 1.8 has few types

TURNS = 1000
"""How many turns run at once on a model of which nothing is known."""

_THREADS, _THREADS_A_USER = 32, 8
"""For the blocking functions of chains."""

_UNHEARD: Final[dict[str, Any]] = {"unheard": (AsyncEventAggregatorCallback,)}
"""LangServe collects events for clients that it is never told to show them to."""


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
    return _Server(settings, model, store, load_chains(settings.chains) if chains is None else chains).app


class _Server:
    """What one server is made of."""

    def __init__(
        self, settings: Settings, model: BaseChatModel | None, store: HistoryStore | None, chains: list[Chain]
    ) -> None:
        self.settings, self.model, self.chains = settings, model, chains
        self.metrics = Metrics(shared=settings.workers > 1)
        self.auth = auth_of(settings, self.metrics.counted)
        self.outfit = _outfit(settings, self.metrics)
        self.opens_store = store is None
        self.histories = watched(store or _store(settings), self.metrics)
        self.rates = Rates(_rates(settings), open_counters(settings.history_url, settings.data_dir))
        self.auth.failed = partial(_count_failed_sign_in, self.rates)
        self.turns = Turns(
            self.histories, _rules(settings), told_of, Serializer().dumps, self.rates.turn, self.outfit.observers()
        )
        self.loop_watch = LoopWatch()
        self.app = FastAPI(
            title="Recollect",
            description="Chains that remember: LangServe, with a history for each user and each session.",
            version="0.1.0",
            lifespan=self.lifespan,
            docs_url=None,  # ours, without a script from elsewhere
            redoc_url=None,
            exception_handlers={RequestValidationError: on_invalid_request, HTTPException: on_http_exception},
        )
        self.app.state.turns, self.app.state.loop_watch, self.app.state.fault = self.turns, self.loop_watch, None
        self._add_middleware()
        self._add_routes()
        for chain in self._built_at_once():
            assert model is not None  # noqa: S101 - or there are none
            self._add_chain(chain, chain.with_history(model, self.turns, **_UNHEARD))

    def _built_at_once(self) -> list[Chain]:
        """The chains that need nothing to be opened, if their model is here already."""
        return [] if self.model is None else [chain for chain in self.chains if chain.is_simple]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            asyncio.get_running_loop().set_default_executor(FairThreads(_THREADS, _THREADS_A_USER, "recollect-chains"))
            stack.callback(self.rates.close)
            if self.opens_store:
                await self.histories.open()
                stack.push_async_callback(self.histories.close)
            await self._open_chains(stack)
            await stack.enter_async_context(self.metrics.watching_the_loop())
            keeping = asyncio.create_task(self._keep_to_retention(), name="recollect-retention")
            stack.callback(keeping.cancel)
            stack.push_async_callback(self.turns.drain, 0)
            self.loop_watch.start()  # not before: a start takes as long as it takes
            stack.callback(self.loop_watch.stop)
            yield

    async def _open_chains(self, stack: AsyncExitStack) -> None:
        model = self.model
        if model is None:
            endpoint = stack.enter_context(_endpoint(self.settings))
            fast = self.settings.model_client == "fast"
            connecting = connect(endpoint, timeout_s=self.settings.model_timeout_s, fast=fast)
            model = await stack.enter_async_context(connecting)
        self.turns.fits.serve(model, context_of)
        at_once = self._built_at_once()
        for chain in self.chains:
            if chain not in at_once:
                self._add_chain(chain, await stack.enter_async_context(self._opened(chain, model)))

    @asynccontextmanager
    async def _opened(self, chain: Chain, model: BaseChatModel) -> AsyncIterator[ChainWithHistory]:
        """The chain, built; what it has opened is closed in the end. `app.state.fault` says why it can't be."""
        try:
            async with AsyncExitStack() as stack:
                runnable = await stack.enter_async_context(chain.opened(model, self.turns, **_UNHEARD))
                opened = stack.pop_all()
        except BadChain as fault:
            self.app.state.fault = str(fault)
            raise
        async with opened:
            yield runnable

    def _add_middleware(self) -> None:
        # The last one added is the first one met. The limit is not FastAPI's `max_body_size`, which comes before any
        # other middleware: who has not signed in is to learn nothing but that.
        add = self.app.add_middleware
        add(RequestBodyLimitMiddleware, max_body_size=self.settings.max_body_bytes)
        add(Edge, debug_errors=self.settings.debug_errors)
        if self.rates.limits_requests:
            add(RequestRate, rates=self.rates)
        add(AuthMiddleware, auth=self.auth)
        self.outfit.put_on(self.app, self.auth.audit)

    def _add_routes(self) -> None:
        remembering = [chain for chain in self.chains if chain.memory]
        cards = [page.ChainCard.of(one.name, one.description, one.input_messages_key) for one in remembering]
        for router in (
            login.router(self.auth, self.rates.left),
            _ops(self.histories),
            metrics_router(self.metrics),
            docs.router(),
            session_routes.router(self.histories, self.rates),
            turn_routes.router(self.turns),
            summary_routes.router(self.histories),
            memory.router(self.histories),
            page.router(cards),
            playground_routes.router([chain.name for chain in self.chains]),
        ):
            # They become the app's own: what FastAPI includes it analyses a second time, and matches twice.
            self.app.router.routes.extend(router.routes)

    def _add_chain(self, chain: Chain, runnable: ChainWithHistory) -> None:
        """LangServe's routes of a chain, all of them behind the sign-in; before them those on which turns run."""
        doubt = doubt_about(chain, runnable.bound)
        if doubt is not None:
            log.warning("%s: %s", chain.place, doubt)
        allowed = frozenset(spec.id for spec in runnable.config_specs)
        modifier = session_config(allowed, playground_routes.session_of_playground, memory=bool(chain.memory))
        path, serializer = f"/{chain.name}", Serializer()
        endpoints = TurnEndpoints(runnable, path=path, modifier=modifier, serializer=serializer)
        self.app.router.routes[:0] = endpoints.routes()
        add_routes(
            self.app,
            runnable,
            path=path,
            config_keys=CONFIG_KEYS,
            per_req_config_modifier=modifier,
            dependencies=[
                Depends(current_user),
                Depends(readable),
                Depends(BatchLimit(self.turns.rules.max_batch)),
            ],
            playground_type=chain.playground,
            serializer=serializer,
        )

    async def _keep_to_retention(self) -> None:
        """Deletes what is old, every hour, until it is cancelled."""

        def told(gone: Gone) -> None:
            counts: dict[str, Any] = {"deleted": gone.deleted, "held": gone.held, "tidied": gone.tidied}
            self.auth.audit.note("retention", who=None, source="server", **counts)

        rules, folder = RetentionRules.parse(parts_of(self.settings.retention_days)), self.settings.data_dir
        await keep_to(self.histories, rules, Holds(folder).__contains__, folder, told=told)


# What each part is told of the settings.


def auth_of(settings: Settings, counted: Counted = lambda what, how: None) -> Auth:
    """The credentials that a server with these settings accepts."""
    secret = settings.jwt_secret
    return Auth(
        settings.data_dir,
        jwt_secret=None if secret is None else secret.get_secret_value(),
        jwt_jwks_url=settings.jwt_jwks_url,
        jwt_audience=settings.jwt_audience,
        jwt_issuer=settings.jwt_issuer,
        jwt_max_life_s=settings.jwt_max_life_s,
        idle_s=settings.sign_in_idle_s,
        counted=counted,
    )


def _store(settings: Settings) -> HistoryStore:
    folder = str(settings.data_dir / "histories")
    return open_store(settings.history_url, default_dir=folder, fsync=settings.history_fsync)


def _outfit(settings: Settings, metrics: Metrics) -> Outfit:
    return Outfit(
        metrics=metrics,
        names=logs.Names(kept_secret(settings.data_dir, "names.key"), plain=settings.log_ids == "plain"),
        model=settings.model,
        log_content=settings.log_content,
        root_path=settings.root_path,
        trusted_proxies=parts_of(settings.trusted_proxies),
        cors_origins=parts_of(settings.cors_origins),
    )


def _rules(settings: Settings) -> Rules:
    shares = ShareRules(
        at_once=max(1, (settings.turns or TURNS) // settings.workers),
        each=settings.turns_per_user,
        line=settings.turns_in_line,
    )
    return Rules(
        wait_s=settings.turn_wait_s if settings.turn_conflict == "queue" else 0,
        limit_s=settings.turn_limit_s,
        window_tokens=None if settings.window_tokens == "auto" else settings.window_tokens,
        recall=settings.recall,
        on_disconnect=settings.on_disconnect,
        grace_s=settings.grace_s,
        hash_users=settings.trace_hash_users,
        show_prompts=settings.debug_prompts,
        shares=shares,
        max_batch=settings.max_batch,
    )


def _rates(settings: Settings) -> RateRules:
    return RateRules(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_day=settings.tokens_per_day,
        copies_per_minute=settings.copies_per_minute,
        sign_ins_per_minute=settings.sign_ins_per_minute,
    )


def _endpoint(settings: Settings) -> AbstractContextManager[Endpoint]:
    return model_endpoint(
        openai_api_key=settings.openai_api_key, openai_base_url=settings.openai_base_url, model=settings.model
    )


async def _count_failed_sign_in(rates: Rates, address: str) -> None:
    try:
        await rates.failed_sign_in(address)
    except OverBudget as refused:
        raise Refusal(429, str(refused), refused.retry_after_s) from None


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


# Serving, as the environment says.


def main() -> int:
    """Serves as the environment says; gives the exit status, 2 when it can't be served so."""
    try:
        settings = load_settings()
        auth = auth_of(settings)
        sock = bind(settings.host, settings.port)
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})  # of port 0, the one that it became
    except (SettingsError, KeyFileError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"can't serve on {settings.host} port {settings.port}: {error.strerror}")
    allow_many_files()
    _prepare(settings)
    try:
        with sock, _endpoint(settings) as endpoint:
            print(f"Model: {endpoint}", flush=True)
            return _serve(settings, sock, endpoint, lambda: _welcome(settings, auth))
    except (BadChain, ModelUnavailable) as error:
        return _complain(str(error))


def _prepare(settings: Settings) -> None:
    """What each process does before it serves."""
    logs.configure(settings.log_format, settings.log_level)
    # LangServe's stream_log endpoint is made of it, and langchain-core keeps it until 2.0.
    warnings.filterwarnings("ignore", "astream_log is deprecated")


def _serve(settings: Settings, sock: socket, endpoint: Endpoint, welcome: Callable[[], None]) -> int:
    """Serves in this process, or in workers, which then share its embedded model."""
    chains = load_chains(settings.chains)  # what is wrong with them is better said once
    print("Chains: " + ", ".join(f"/{chain.name}" for chain in chains), flush=True)
    if settings.workers == 1:
        return _run(settings, sock, endpoint, welcome)
    welcome()
    with TemporaryDirectory(prefix="recollect-metrics-") as folder:
        share_metrics(folder)
        return supervise(partial(_work, settings, sock, endpoint), settings.workers, on_death=partial(bury, folder))


def _work(settings: Settings, sock: socket, endpoint: Endpoint) -> None:
    """A worker process."""
    end_with_parent()
    _prepare(settings)
    status = _run(settings, sock, endpoint)
    if status:
        sys.exit(status)


def _run(settings: Settings, sock: socket, endpoint: Endpoint, started: Callable[[], None] | None = None) -> int:
    """Serves in this process; gives its exit status. A chain that can't be built is told in one line."""
    shared: dict[str, Any] = {
        "openai_base_url": endpoint.base_url,
        "openai_api_key": endpoint.api_key,
        "model": endpoint.model,
        "turns": settings.turns or endpoint.at_once,
    }
    app = create_app(settings.model_copy(update=shared))
    logging.getLogger("uvicorn.error").addFilter(lambda record: app.state.fault is None)  # its traceback tells no more
    door = door_rules(settings.max_connections, settings.max_connections_per_address)
    try:
        run(app, sock, shutdown_s=settings.shutdown_s, door=door, started=started)
    except SystemExit:  # uvicorn's, when the start fails
        if app.state.fault is None:
            raise
    return 0 if app.state.fault is None else _complain(app.state.fault)


def _welcome(settings: Settings, auth: Auth) -> None:
    url = server_url(settings.host, settings.port) + settings.root_path
    token = auth.first_link()
    print(f"Recollect is at {url}", flush=True)
    if token is not None:
        print(f"Sign in, once, within ten minutes: {login_url(url, token)}", flush=True)
    else:
        print("To sign a browser in: admin.py link --user NAME", flush=True)


def _complain(text: str) -> int:
    print(f"recollect: {text}", file=sys.stderr)
    return BAD_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
