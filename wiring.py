"""What each part of a server is told of the settings: of all the others it knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from api.ops import logs
from api.ops.metrics import Metrics
from api.ops.outfit import Outfit, tracing
from api.quotas import QuotaRules
from api.rates import RateRules
from auth.credentials import Counted
from auth.files import kept_secret
from auth.middleware import Auth
from chat_models.embeddings import Embeddings, EmbeddingsUnavailable
from chat_models.endpoints import OPENAI_URL, Endpoint, model_endpoint
from histories import open_store
from histories.base import HistoryStore
from histories.meaning.meaning import Meaning
from histories.meaning.vectors import MeaningUnavailable, Vectors
from settings import VERSION, Settings, SettingsError, parts_of
from turns.rules import Rules
from turns.shares import ShareRules

TURNS = 1000
"""How many turns run at once on a model of which nothing is known."""

_LARGE_TURNS, _LARGE_TURNS_OF_ALL = 4, 64
"""How many of the largest turns may be there, running or not, of one user and in all: each takes some ten times its
size in memory."""


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


def auth_within(settings: Settings) -> Auth:
    """The sign-in of the data folder. Raises `SettingsError`, for one, where that is another user's."""
    try:
        return auth_of(settings)
    except OSError as error:
        raise SettingsError(f"RECOLLECT_DATA_DIR {settings.data_dir}: {error.strerror}") from None


def store_of(settings: Settings) -> HistoryStore:
    """The store that the settings name. Opening it is its user's."""
    folder = str(settings.data_dir / "histories")
    return open_store(settings.history_url, default_dir=folder, fsync=settings.history_fsync)


def meaning_of(settings: Settings, store: HistoryStore) -> Meaning | None:
    """Recall by meaning over that store, where the settings ask for it."""
    if settings.recall_url is None or settings.embeddings is None:
        return None
    name, _, url = settings.embeddings.partition("@")
    # The key is for who answers the chat: it is sent nowhere else.
    base_url, key = (url, None) if url else (settings.openai_base_url or OPENAI_URL, settings.openai_api_key)
    embeddings = Embeddings(base_url, key, name)

    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        try:
            return await embeddings(texts)
        except EmbeddingsUnavailable as error:
            raise MeaningUnavailable(str(error)) from None

    return Meaning(store, Vectors(settings.recall_url, name), embed, embeddings.close)


def outfit_of(settings: Settings, metrics: Metrics) -> Outfit:
    """What operators see of a server with these settings."""
    names = logs.Names(kept_secret(settings.data_dir, "names.key"), plain=settings.log_ids == "plain")
    return Outfit(
        metrics=metrics,
        names=names,
        traces=tracing(settings.traces_to, names, settings.model, VERSION),
        model=settings.model,
        log_content=settings.log_content,
        root_path=settings.root_path,
        trusted_proxies=parts_of(settings.trusted_proxies),
        cors_origins=parts_of(settings.cors_origins),
    )


def rules_of(settings: Settings) -> Rules:
    """How turns are run."""
    shares = ShareRules(
        at_once=max(1, (settings.turns or TURNS) // settings.workers),
        each=settings.turns_per_user,
        line=settings.turns_in_line,
        line_bytes=_LARGE_TURNS * settings.max_body_bytes,
        line_bytes_of_all=_LARGE_TURNS_OF_ALL * settings.max_body_bytes,
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


def rates_of(settings: Settings) -> RateRules:
    """How much each user may ask for."""
    return RateRules(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_day=settings.tokens_per_day,
        copies_per_minute=settings.copies_per_minute,
        copied_bytes_per_minute=settings.copied_bytes_per_minute,
        sign_ins_per_minute=settings.sign_ins_per_minute,
    )


def quotas_of(settings: Settings) -> QuotaRules:
    """How much of each user's is kept."""
    return QuotaRules(sessions=settings.kept_sessions, turns=settings.kept_turns, size=settings.kept_bytes)


def endpoint_of(settings: Settings) -> AbstractContextManager[Endpoint]:
    """The model that answers: the settings', or the embedded one, which ends with the context."""
    return model_endpoint(
        openai_api_key=settings.openai_api_key, openai_base_url=settings.openai_base_url, model=settings.model
    )
