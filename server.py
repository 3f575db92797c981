"""The server: everything is put together here, and nowhere else."""

# ruff: noqa: E402 - imports stand between calls that make them cheaper
from __future__ import annotations

from api.ops import imports

imports.begin()

import asyncio
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from langchain_core.language_models import BaseChatModel
from langserve import add_routes
from langserve.callbacks import AsyncEventAggregatorCallback
from pydantic import SecretStr
from sse_starlette.sse import unpatch_uvicorn_signal_handler
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

imports.end()

from api import memory, page
from api import shares as share_routes
from api.bodies import BodiesInTurn
from api.chain_routes import ChainRoutes
from api.errors import Edge, on_http_exception, on_invalid_request, told_of
from api.langserve_gaps import CONFIG_KEYS, REFUSES_ALL, Serializer, readable
from api.loop_watch import LoopWatch
from api.ops import logs
from api.ops.metrics import Metrics, bury
from api.ops.outfit import routers
from api.ops.watchdog import Watchdog
from api.ops.watched_store import opened_store, watched
from api.playground_bar import PlaygroundBar
from api.quotas import Quotas
from api.rates import Left, Rates, RequestRate, open_counters
from api.sessions import export, summary_routes, turn_routes
from api.sessions import routes as session_routes
from api.turn_endpoints import TurnEndpoints
from api.turnstile import Turnstile
from auth import login
from auth.files import KeyFileError
from auth.holds import Holds
from auth.links import invitation, server_url
from auth.middleware import PUBLIC_PATHS, Auth, AuthMiddleware, current_user
from auth.shares import Shares
from chains import BadChain, Chain, described, load_chains
from chains.checks import doubt_about
from chat_models.context import context_of
from chat_models.embedded_model import ModelUnavailable
from chat_models.endpoints import Endpoint
from histories import open_store
from histories.base import HistoryStore
from histories.retention import Gone, keep_to
from histories.retention import Rules as RetentionRules
from playground_config import routes as playground_routes
from serving import (
    BAD_SETTINGS,
    allow_many_files,
    arguments,
    bind,
    door_rules,
    end_with_parent,
    give_memory_back,
    no_collector,
    run,
    supervise,
)
from settings import VERSION, Settings, SettingsError, load_settings, parts_of, share_metrics
from turns.run import Turns
from turns.session_config import session_config
from turns.shares import FairThreads
from turns.titles import Titles
from turns.with_history import ChainWithHistory
from wiring import auth_of, auth_within, endpoint_of, meaning_of, outfit_of, quotas_of, rates_of, rules_of, store_of

imports.freeze()

log = logging.getLogger("recollect.chains")

# sse-starlette 1.8 cuts all streams at SIGTERM. Ours end by themselves: see serving.py.
unpatch_uvicorn_signal_handler()  # type: ignore[no-untyped-call]  # sse-starlette 1.8 has few types

_THREADS, _THREADS_A_USER = 32, 8  # for the blocking functions of chains

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
    with no_collector():
        return _Server(settings, model, store, load_chains(settings.chains) if chains is None else chains).app


class _Server:
    """What one server is made of."""

    def __init__(
        self, settings: Settings, model: BaseChatModel | None, store: HistoryStore | None, chains: list[Chain]
    ) -> None:
        self.settings, self.model, self.chains = settings, model, chains
        self.metrics = Metrics(shared=settings.workers > 1)
        self.auth = auth_of(settings, self.metrics.counted)
        self.outfit = outfit_of(settings, self.metrics)
        self.opens_store = store is None
        kept = store or store_of(settings)
        self.meaning = meaning_of(settings, kept)
        self.histories = watched(kept if self.meaning is None else self.meaning.store, self.metrics)
        self.rates = Rates(rates_of(settings), open_counters(settings.history_url, settings.data_dir, self.histories))
        self.quotas = Quotas(quotas_of(settings), self.histories)
        self.auth.failed = self.rates.failed_sign_in
        self.titles = self._titles()
        self.turns = self._turns()
        self.loop_watch, self.watchdog = LoopWatch(), Watchdog(self.turns)
        self.app = self._fastapi()
        self.app.state.turns, self.app.state.loop_watch, self.app.state.fault = self.turns, self.loop_watch, None
        self.app.state.door_told = self.metrics.at_the_door
        self._add_middleware()
        self._add_routes()
        for chain in self._built_at_once():
            assert model is not None  # noqa: S101 - or there are none
            self._add_chain(chain, chain.with_history(model, self.turns, **_UNHEARD))

    def _titles(self) -> Titles | None:
        """Who gives titles by the model, where that is asked for."""
        settings = self.settings
        has_embedded_model = settings.openai_api_key is None and settings.openai_base_url is None
        return Titles(self.histories, shared=has_embedded_model) if settings.titles == "model" else None

    def _turns(self) -> Turns:
        observers = [*self.outfit.observers(), *([] if self.titles is None else [self.titles])]
        admit = self.quotas.turn if self.quotas.limits_anything else None
        rules, encode = rules_of(self.settings), Serializer().dumps
        return Turns(self.histories, rules, told_of, encode, self.rates.turn, observers, admit)

    def _fastapi(self) -> FastAPI:
        return FastAPI(
            title="Recollect",
            description="Chains that remember: LangServe, with a history for each user and each session.",
            version=VERSION,
            telemetry=self.outfit.telemetry(),
            lifespan=self.lifespan,
            openapi_url=None,  # ours is made beside the event loop
            docs_url=None,  # ours, without a script from elsewhere
            redoc_url=None,
            exception_handlers={RequestValidationError: on_invalid_request, HTTPException: on_http_exception},
        )

    def _built_at_once(self) -> list[Chain]:
        """The chains that need nothing to be opened, if their model is here already."""
        return [] if self.model is None else [chain for chain in self.chains if chain.is_simple]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            asyncio.get_running_loop().set_default_executor(FairThreads(_THREADS, _THREADS_A_USER, "recollect-chains"))
            stack.callback(self.rates.close)
            stack.push_async_callback(self.outfit.close)
            if self.opens_store:
                await stack.enter_async_context(opened_store(self.histories))
            if self.meaning is not None:
                await stack.enter_async_context(self.meaning.following())
            await self._open_chains(stack)
            await stack.enter_async_context(self.metrics.watching_the_loop())
            keeping = asyncio.create_task(self._keep_to_retention(), name="recollect-retention")
            stack.callback(keeping.cancel)
            stack.push_async_callback(self.turns.drain, 0)
            await stack.enter_async_context(self.watchdog.watching())
            self.loop_watch.start_soon()
            stack.callback(self.loop_watch.stop)
            yield

    async def _open_chains(self, stack: AsyncExitStack) -> None:
        model = self.model
        if model is None:
            from chat_models.models import connect  # here: its clients take half a second to import

            endpoint = stack.enter_context(endpoint_of(self.settings))
            fast, limit = self.settings.model_client == "fast", self.settings.model_timeout_s
            connecting = connect(endpoint, timeout_s=limit, fast=fast, **self.outfit.on_models(endpoint.base_url))
            model = await stack.enter_async_context(connecting)
        self.turns.fits.serve(model, context_of)
        if self.titles is not None:
            self.titles.serve(model)
            stack.push_async_callback(self.titles.close)
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
        # The last one added is the first one met. FastAPI's `max_body_size` would come before the sign-in.
        add = self.app.add_middleware
        add(RequestBodyLimitMiddleware, max_body_size=self.settings.max_body_bytes)
        add(PlaygroundBar)
        add(BodiesInTurn, largest=self.settings.max_body_bytes)
        add(Edge, debug_errors=self.settings.debug_errors)
        if self.rates.limits_requests:
            add(RequestRate, rates=self.rates)
        public = PUBLIC_PATHS | share_routes.PUBLIC_PATHS if self.settings.shares else PUBLIC_PATHS
        add(AuthMiddleware, auth=self.auth, public=public)
        add(Turnstile)
        self.outfit.put_on(self.app, self.auth.audit, [(chain.name, bool(chain.memory)) for chain in self.chains])

    def _add_routes(self) -> None:
        remembering = [chain for chain in self.chains if chain.memory]
        shares = Shares(self.settings.data_dir)
        cards = [page.ChainCard.of(one.name, one.description, one.input_messages_key) for one in remembering]
        for router in (
            login.router(self.auth, self._left),
            *routers(self.metrics, self.histories, self.watchdog),
            session_routes.router(
                self.histories,
                self.rates,
                self.quotas,
                max_body_bytes=self.settings.max_body_bytes,
                max_import_bytes=self.settings.max_import_bytes,
                deleted=shares.forget,
            ),
            turn_routes.router(self.turns),
            export.router(self.histories),
            summary_routes.router(self.histories),
            memory.router(self.histories),
            page.router(cards),
            share_routes.router(self.histories, shares, self.rates, self.auth.audit) if self.settings.shares else None,
            playground_routes.router([chain.name for chain in self.chains]),
        ):
            # They become the app's own: what FastAPI includes it analyses a second time, and matches twice.
            self.app.router.routes.extend(router.routes if router is not None else ())

    async def _left(self, user_id: str) -> list[Left] | None:
        """What is left of each limit and quota of a user; None if there are none."""
        return [*await self.rates.left(user_id), *await self.quotas.left(user_id)] or None

    def _add_chain(self, chain: Chain, runnable: ChainWithHistory) -> None:
        """LangServe's routes of a chain, all of them behind the sign-in, and before them those on which turns run."""
        if (doubt := doubt_about(chain, runnable.bound)) is not None:
            log.warning("%s: %s", chain.place, doubt)
        allowed = frozenset(spec.id for spec in runnable.config_specs)
        modifier = session_config(allowed, playground_routes.session_of_playground, memory=bool(chain.memory))
        path, serializer = f"/{chain.name}", Serializer()
        routes = ChainRoutes(self.app)
        add_routes(
            routes,
            runnable,
            path=path,
            config_keys=CONFIG_KEYS,
            per_req_config_modifier=modifier,
            dependencies=[Depends(current_user), Depends(readable)],
            playground_type=chain.playground,
            disabled_endpoints=REFUSES_ALL,
            serializer=serializer,
        )
        endpoints = TurnEndpoints(runnable, routes.handler, path=path, modifier=modifier, serializer=serializer)
        self.app.router.routes[:0] = endpoints.routes()

    async def _keep_to_retention(self) -> None:
        """Deletes what is old, every hour, until it is cancelled."""

        def told(gone: Gone) -> None:
            counts: dict[str, Any] = {"deleted": gone.deleted, "held": gone.held, "tidied": gone.tidied}
            self.auth.audit.note("retention", who=None, source="server", **counts)

        rules, folder = RetentionRules.parse(parts_of(self.settings.retention_days)), self.settings.data_dir
        rules.tell_of_others({chain.name for chain in self.chains})
        await keep_to(self.histories, rules, Holds(folder).__contains__, folder, told=told)


async def look_at_chains(settings: Settings) -> list[str]:
    """Builds all chains on a model that is never asked, and gives a line for each. Raises `BadChain`."""
    from chat_models.models import connect  # here: see above

    nowhere = Endpoint("http://127.0.0.1:9/v1", SecretStr("none"), "none")
    async with connect(nowhere, timeout_s=1) as model:
        return await described(load_chains(settings.chains), model, Turns(open_store("memory:"), rules_of(settings)))


# Serving, as the environment says.


def main(argv: Sequence[str] | None = None) -> int:
    """Serves as the environment and the arguments say; gives the exit status, 2 when it can't be served so."""
    said = arguments(argv)
    try:
        settings = load_settings(**said)
        auth = auth_within(settings)
        sock = bind(settings.host, settings.port)
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})  # of port 0, the one that it became
    except (SettingsError, KeyFileError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"can't serve on {settings.host} port {settings.port}: {error.strerror}")
    allow_many_files()
    _prepare(settings)
    try:
        with sock, endpoint_of(settings) as endpoint:
            print(f"Model: {endpoint}", flush=True)
            return _serve(settings, sock, endpoint, lambda: _welcome(settings, auth))
    except (BadChain, ModelUnavailable) as error:
        return _complain(str(error))


def _prepare(settings: Settings) -> None:
    """What each process does before it serves."""
    logs.configure(settings.log_format, settings.log_level)
    give_memory_back()
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
    with no_collector():
        import chat_models.models  # noqa: F401 - by who serves alone: who supervises workers has no time for it

        app = create_app(settings.model_copy(update=shared))
    imports.freeze()
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
    print(f"Recollect is at {url}", invitation(url, auth.first_link()), sep="\n", flush=True)


def _complain(text: str) -> int:
    print(f"recollect: {text}", file=sys.stderr)
    return BAD_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
