"""What an operator may set, and the one place that reads the environment.

`Settings(...)` is built from its arguments and its defaults alone, which is what tests do. `load_settings()` fills it
from the environment, where a setting is named `RECOLLECT_` and its name in capitals. There is no `.env` file.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

VERSION = "0.1.0"

PREFIX = "RECOLLECT_"
_TEST_PREFIX = "RECOLLECT_TEST_"  # belongs to the test suite
_HISTORY_URL = re.compile(r"file:|file:(//)?/(?!/).*|memory:|(rediss?|postgresql)://.+")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_RETENTION = re.compile(r"([a-z][a-z0-9_-]{0,63}=)?[1-9][0-9]{0,5}")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?")
_HS256_KEY_BYTES = 32  # RFC 7518, section 3.2: no shorter than the hash


class SettingsError(ValueError):
    """The environment can't be used. Its text is one line that names the variable, and holds no secret."""


def _web_url(url: str) -> str:
    with suppress(ValueError):  # whose text may repeat the URL
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return url
    raise ValueError("must be a URL that starts with http:// or https://")


def _history_url(url: str) -> str:
    if not _HISTORY_URL.fullmatch(url):
        raise ValueError("must be file:, file:/some/dir, memory:, redis://…, rediss://… or postgresql://…")
    return url


def _recall_url(url: str) -> str:
    if url.startswith("milvus:") and url.removesuffix(".db") != url:
        return url
    with suppress(ValueError):
        return _web_url(url)
    raise ValueError("must be http://host:19530, https://… or milvus:/some/file.db")


def _embeddings(said: str) -> str:
    model, _, url = said.partition("@")
    if not model or ("@" in said and _web_url(url) != url):
        raise ValueError("must be a model's name, or model@http://host/v1")
    return said


def _hs256_key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < _HS256_KEY_BYTES:
        raise ValueError(f"must be at least {_HS256_KEY_BYTES} bytes long")
    return secret


def _root_path(path: str) -> str:
    if path and not _ROOT_PATH.fullmatch(path):
        raise ValueError("must be a path such as /ai, without a slash at its end")
    return path


def _addresses(listed: str) -> str:
    for one in parts_of(listed):
        try:
            ip_network(one, strict=False)
        except ValueError:
            if one != "*":
                raise ValueError("must be addresses or networks with commas between them, or *") from None
    return listed


def _origins(listed: str) -> str:
    for one in parts_of(listed):
        if not _ORIGIN.fullmatch(one):
            raise ValueError("must be origins such as https://app.example with commas between them")
    return listed


def parts_of(listed: str) -> list[str]:
    """The items of a setting that is a list with commas."""
    return [part.strip() for part in listed.split(",") if part.strip()]


def _retention(listed: str) -> str:
    for one in parts_of(listed):
        if not _RETENTION.fullmatch(one):
            raise ValueError("must be a number of days, and others for chains after commas: 90, chat=30")
    return listed


WebUrl = Annotated[str, AfterValidator(_web_url)]
WindowTokens = Annotated[int, Field(ge=100)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings of one server. Frozen.

    Nothing in its repr or its errors is secret: a URL may carry a password, so no URL is in the repr.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1)
    data_dir: Path = Path("data")
    history_url: Annotated[str, AfterValidator(_history_url)] = Field("file:", repr=False)
    history_fsync: bool = True
    model: str | None = None
    model_client: Literal["fast", "openai"] = "fast"
    jwt_secret: Annotated[SecretStr, AfterValidator(_hs256_key)] | None = None
    jwt_jwks_url: WebUrl | None = Field(None, repr=False)
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_max_life_s: Seconds = 86400.0
    sign_in_idle_s: Seconds = 604800.0
    turn_conflict: Literal["queue", "reject"] = "queue"
    turn_wait_s: Seconds = 60.0
    on_disconnect: Literal["grace", "finish", "stop"] = "grace"
    grace_s: Seconds = 30.0
    window_tokens: Literal["auto"] | WindowTokens = "auto"
    recall: Literal["session", "user", "off"] = "session"
    recall_url: Annotated[str, AfterValidator(_recall_url)] | None = Field(None, repr=False)
    embeddings: Annotated[str, AfterValidator(_embeddings)] | None = Field(None, repr=False)
    turns: int | None = Field(None, ge=1)
    turns_per_user: int = Field(16, ge=1)
    turns_in_line: int = Field(512, ge=1)
    max_batch: int = Field(100, ge=1)
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    model_timeout_s: float = Field(120.0, gt=0, allow_inf_nan=False)
    turn_limit_s: Seconds = 600.0
    shutdown_s: Seconds = 30.0
    chains: str | None = None
    trace_hash_users: bool = False
    root_path: Annotated[str, AfterValidator(_root_path)] = ""
    trusted_proxies: Annotated[str, AfterValidator(_addresses)] = "127.0.0.1"
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_ids: Literal["hashed", "plain"] = "hashed"
    log_content: bool = False
    retention_days: Annotated[str, AfterValidator(_retention)] = ""
    shares: bool = True
    titles: Literal["words", "model"] = "words"
    max_import_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    debug_prompts: bool = False
    debug_errors: bool = False
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_day: int = Field(0, ge=0)
    copies_per_minute: int = Field(600, ge=0)
    copied_bytes_per_minute: int = Field(64 * 1024 * 1024, ge=0)
    kept_sessions: int = Field(0, ge=0)
    kept_turns: int = Field(0, ge=0)
    kept_bytes: int = Field(0, ge=0)
    sign_ins_per_minute: int = Field(60, ge=0)
    max_connections: int = Field(10_000, ge=1)
    max_connections_per_address: int | None = Field(None, ge=1)
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: WebUrl | None = Field(None, validation_alias="OPENAI_BASE_URL", repr=False)
    otlp_endpoint: WebUrl | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT", repr=False)
    otlp_traces_endpoint: WebUrl | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", repr=False)
    otel_traces_exporter: Literal["otlp", "none"] = Field("otlp", validation_alias="OTEL_TRACES_EXPORTER")
    otel_sdk_disabled: bool = Field(False, validation_alias="OTEL_SDK_DISABLED")

    @model_validator(mode="after")
    def _settings_agree(self) -> "Settings":
        checks_tokens = self.jwt_secret is not None or self.jwt_jwks_url is not None
        if self.jwt_secret is not None and self.jwt_jwks_url is not None:
            raise ValueError("RECOLLECT_JWT_SECRET and RECOLLECT_JWT_JWKS_URL exclude each other: set one of them")
        for name in ("jwt_audience", "jwt_issuer"):
            if getattr(self, name) is not None and not checks_tokens:
                needed = "RECOLLECT_JWT_SECRET or RECOLLECT_JWT_JWKS_URL"
                raise ValueError(f"{variable(name)} is of no use without {needed}")
        if self.history_url == "memory:" and self.workers > 1:
            raise ValueError(
                "RECOLLECT_HISTORY_URL memory: needs RECOLLECT_WORKERS=1: each worker would have a memory of its own"
            )
        if (self.recall_url is None) != (self.embeddings is None):
            raise ValueError("RECOLLECT_RECALL_URL and RECOLLECT_EMBEDDINGS need each other: set both of them")
        has_server = self.openai_api_key is not None or self.openai_base_url is not None
        if self.embeddings is not None and "@" not in self.embeddings and not has_server:
            raise ValueError(
                "RECOLLECT_EMBEDDINGS: the embedded model makes no embeddings: "
                "set OPENAI_API_KEY or OPENAI_BASE_URL, or say model@http://host/v1"
            )
        if self.workers > 1 and (self.recall_url or "").startswith("milvus:"):
            raise ValueError("RECOLLECT_RECALL_URL milvus: needs RECOLLECT_WORKERS=1: a file is one process's")
        return self

    @property
    def traces_to(self) -> str | None:
        """Where OpenTelemetry's collector takes spans, if it is asked for."""
        if self.otel_sdk_disabled or self.otel_traces_exporter == "none":
            return None
        if self.otlp_traces_endpoint or self.otlp_endpoint is None:
            return self.otlp_traces_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/traces"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: the environment comes through load_settings, and from nowhere else."""
        return (init_settings,)


def environment_url(name: str) -> str | None:
    """The URL that a variable of the operator's own choice holds, for a command that is told to look there."""
    return os.environ.get(name) or None


def share_metrics(folder: str) -> None:
    """Lets this process and its workers count together, in files of that folder: prometheus-client's own variable.

    It has to be called before that library is imported in the processes that count.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


def variable(field: str) -> str:
    """The environment variable that sets a field of Settings."""
    return str(Settings.model_fields[field].validation_alias or f"{PREFIX}{field.upper()}")


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings that an environment names (None: that of this process), where `overrides` win.

    A variable that is set to nothing counts as not set. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    known = {variable(field): field for field in Settings.model_fields}
    wrong = list(_unknown_names(environ, known))
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): environ[name] for name in known if environ.get(name)}
    values = {known.get(name, name): value for name, value in source().items()}
    try:
        settings = Settings(**{**values, **overrides})
    except ValidationError as error:
        wrong += [_sentence(item) for item in error.errors(include_url=False)]
    if wrong:
        raise SettingsError("; ".join(wrong))
    return settings


def _unknown_names(environ: Mapping[str, str], known: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each."""
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(_TEST_PREFIX) or name in known:
            continue
        rests = [candidate.removeprefix(PREFIX) for candidate in known if candidate.startswith(PREFIX)]
        close = difflib.get_close_matches(name.removeprefix(PREFIX), rests, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "the README lists all settings"
        yield f"{name} is not a setting: {hint}"


def _sentence(error: Any) -> str:
    """One of pydantic's errors, said of the variable. The value itself is never repeated: it may be a secret."""
    reason = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"].removeprefix("Input ")
    if not error["loc"]:
        return reason
    name = str(error["loc"][0])
    return f"{variable(name) if name in Settings.model_fields else name}: {reason}"
