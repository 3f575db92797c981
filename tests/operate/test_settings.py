"""The settings: what stops a start, with which words, and what is never said."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from settings import Settings, SettingsError, load_settings, variable

SECRET = "a-secret-of-more-than-thirty-two-bytes"


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ)
    text = str(refused.value)
    assert "\n" not in text
    assert refused.value.__context__ is None or refused.value.__suppress_context__  # whose text may repeat a value
    return text


def test_the_defaults_are_the_documented_ones() -> None:
    assert load_settings({}) == Settings()
    assert Settings().model_dump() == {
        "host": "127.0.0.1",
        "port": 8000,
        "workers": 1,
        "data_dir": Path("data"),
        "history_url": "file:",
        "history_fsync": True,
        "model": None,
        "jwt_secret": None,
        "jwt_jwks_url": None,
        "jwt_audience": None,
        "jwt_issuer": None,
        "jwt_max_life_s": 86400.0,
        "sign_in_idle_s": 604800.0,
        "turn_conflict": "queue",
        "turn_wait_s": 60.0,
        "on_disconnect": "grace",
        "grace_s": 30.0,
        "window_tokens": "auto",
        "recall": "session",
        "recall_url": None,
        "embeddings": None,
        "turns": None,
        "turns_per_user": 16,
        "turns_in_line": 512,
        "max_batch": 100,
        "max_body_bytes": 4194304,
        "max_import_bytes": 33554432,
        "shares": True,
        "titles": "words",
        "model_client": "fast",
        "model_timeout_s": 120.0,
        "turn_limit_s": 600.0,
        "shutdown_s": 30.0,
        "chains": None,
        "trace_hash_users": False,
        "root_path": "",
        "trusted_proxies": "127.0.0.1",
        "cors_origins": "",
        "log_format": "console",
        "log_level": "info",
        "log_ids": "hashed",
        "log_content": False,
        "retention_days": "",
        "debug_prompts": False,
        "debug_errors": False,
        "requests_per_minute": 0,
        "tokens_per_day": 0,
        "copies_per_minute": 600,
        "copied_bytes_per_minute": 64 * 1024 * 1024,
        "kept_sessions": 0,
        "kept_turns": 0,
        "kept_bytes": 0,
        "sign_ins_per_minute": 60,
        "max_connections": 10_000,
        "max_connections_per_address": None,
        "openai_api_key": None,
        "openai_base_url": None,
        "otlp_endpoint": None,
        "otlp_traces_endpoint": None,
        "otel_traces_exporter": "otlp",
        "otel_sdk_disabled": False,
    }


def test_every_setting_is_read_from_its_variable() -> None:
    environ = {
        "RECOLLECT_HOST": "0.0.0.0",
        "RECOLLECT_PORT": "0",
        "RECOLLECT_WORKERS": "4",
        "RECOLLECT_DATA_DIR": "/var/lib/recollect",
        "RECOLLECT_HISTORY_URL": "postgresql://ann:pw@db/chat",
        "RECOLLECT_HISTORY_FSYNC": "false",
        "RECOLLECT_MODEL": "gpt-5-mini",
        "RECOLLECT_JWT_SECRET": SECRET,
        "RECOLLECT_JWT_AUDIENCE": "chat",
        "RECOLLECT_JWT_ISSUER": "https://issuer.example",
        "RECOLLECT_JWT_MAX_LIFE_S": "3600",
        "RECOLLECT_SIGN_IN_IDLE_S": "0",
        "RECOLLECT_ROOT_PATH": "/ai",
        "RECOLLECT_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "RECOLLECT_CORS_ORIGINS": "https://app.example",
        "RECOLLECT_LOG_FORMAT": "json",
        "RECOLLECT_LOG_LEVEL": "debug",
        "RECOLLECT_LOG_IDS": "plain",
        "RECOLLECT_LOG_CONTENT": "true",
        "RECOLLECT_RETENTION_DAYS": "90, chat=30",
        "RECOLLECT_TURN_CONFLICT": "reject",
        "RECOLLECT_TURN_WAIT_S": "0",
        "RECOLLECT_ON_DISCONNECT": "finish",
        "RECOLLECT_GRACE_S": "12",
        "RECOLLECT_WINDOW_TOKENS": "1200",
        "RECOLLECT_RECALL": "user",
        "RECOLLECT_MAX_BODY_BYTES": "1048576",
        "RECOLLECT_MAX_IMPORT_BYTES": "2097152",
        "RECOLLECT_SHARES": "false",
        "RECOLLECT_TITLES": "model",
        "RECOLLECT_MODEL_CLIENT": "openai",
        "RECOLLECT_MODEL_TIMEOUT_S": "2.5",
        "RECOLLECT_SHUTDOWN_S": "5",
        "RECOLLECT_TURNS": "9",
        "RECOLLECT_TURNS_PER_USER": "3",
        "RECOLLECT_TURNS_IN_LINE": "30",
        "RECOLLECT_MAX_BATCH": "7",
        "RECOLLECT_REQUESTS_PER_MINUTE": "60",
        "RECOLLECT_TOKENS_PER_DAY": "1000",
        "RECOLLECT_COPIES_PER_MINUTE": "5",
        "RECOLLECT_COPIED_BYTES_PER_MINUTE": "4096",
        "RECOLLECT_KEPT_SESSIONS": "11",
        "RECOLLECT_KEPT_TURNS": "12",
        "RECOLLECT_KEPT_BYTES": "13",
        "RECOLLECT_SIGN_INS_PER_MINUTE": "6",
        "RECOLLECT_MAX_CONNECTIONS": "500",
        "RECOLLECT_MAX_CONNECTIONS_PER_ADDRESS": "50",
        "RECOLLECT_RECALL_URL": "https://me:pw@milvus.example:19530/db",
        "RECOLLECT_EMBEDDINGS": "m@http://embedder/v1",
        "RECOLLECT_DEBUG_PROMPTS": "true",
        "RECOLLECT_DEBUG_ERRORS": "true",
        "RECOLLECT_TURN_LIMIT_S": "7",
        "RECOLLECT_CHAINS": "mine.chains,/srv/chains",
        "RECOLLECT_TRACE_HASH_USERS": "true",
        "OPENAI_API_KEY": "a key",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_SDK_DISABLED": "true",
    }
    unread = {variable(field) for field in Settings.model_fields} - environ.keys()
    assert unread == {"RECOLLECT_JWT_JWKS_URL"}  # it excludes the secret
    assert load_settings(environ) == Settings(
        host="0.0.0.0",
        port=0,
        workers=4,
        data_dir=Path("/var/lib/recollect"),
        history_url="postgresql://ann:pw@db/chat",
        history_fsync=False,
        model="gpt-5-mini",
        jwt_secret=SecretStr(SECRET),
        jwt_audience="chat",
        jwt_issuer="https://issuer.example",
        jwt_max_life_s=3600,
        sign_in_idle_s=0,
        root_path="/ai",
        trusted_proxies="10.0.0.0/8, ::1",
        cors_origins="https://app.example",
        log_format="json",
        log_level="debug",
        log_ids="plain",
        log_content=True,
        retention_days="90, chat=30",
        turn_conflict="reject",
        turn_wait_s=0,
        on_disconnect="finish",
        grace_s=12,
        window_tokens=1200,
        recall="user",
        recall_url="https://me:pw@milvus.example:19530/db",
        embeddings="m@http://embedder/v1",
        max_body_bytes=1048576,
        max_import_bytes=2097152,
        shares=False,
        titles="model",
        model_client="openai",
        model_timeout_s=2.5,
        turn_limit_s=7,
        chains="mine.chains,/srv/chains",
        trace_hash_users=True,
        debug_errors=True,
        turns=9,
        turns_per_user=3,
        turns_in_line=30,
        max_batch=7,
        requests_per_minute=60,
        tokens_per_day=1000,
        copies_per_minute=5,
        copied_bytes_per_minute=4096,
        kept_sessions=11,
        kept_turns=12,
        kept_bytes=13,
        sign_ins_per_minute=6,
        max_connections=500,
        max_connections_per_address=50,
        shutdown_s=5,
        debug_prompts=True,
        openai_api_key=SecretStr("a key"),
        openai_base_url="http://127.0.0.1:9/v1",
        otlp_endpoint="http://127.0.0.1:4318",
        otlp_traces_endpoint="http://127.0.0.1:4318/v1/traces",
        otel_traces_exporter="none",
        otel_sdk_disabled=True,
    )
    jwks = "https://issuer.example/keys"
    assert load_settings({"RECOLLECT_JWT_JWKS_URL": jwks}).jwt_jwks_url == jwks


def test_without_an_argument_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOLLECT_PORT", "8765")
    assert load_settings().port == 8765


def test_settings_built_from_arguments_know_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECOLLECT_PORT", "8765")
    monkeypatch.setenv("OPENAI_API_KEY", "not for you")
    settings = Settings(data_dir=tmp_path)
    assert (settings.port, settings.openai_api_key, settings.data_dir) == (8000, None, tmp_path)


def test_no_dotenv_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RECOLLECT_PORT=8765\nOPENAI_API_KEY=surprise\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings({}) == Settings()


def test_overrides_win_over_the_environment() -> None:
    environ = {"RECOLLECT_PORT": "8765", "OPENAI_API_KEY": "the environment's"}
    settings = load_settings(environ, port=9, openai_api_key="the caller's")
    assert settings.port == 9
    assert settings.openai_api_key == SecretStr("the caller's")


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert load_settings({variable(field): "" for field in Settings.model_fields}) == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_variables_of_other_programs_and_of_the_tests_are_left_alone() -> None:
    assert load_settings({"PORT": "x", "RECOLLECT": "x", "RECOLLECT_TEST_REDIS_URL": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RECOLLECT_PROT", "did you mean RECOLLECT_PORT?"),
        ("RECOLLECT_HISTORYURL", "did you mean RECOLLECT_HISTORY_URL?"),
        ("RECOLLECT_OPENAI_API_KEY_FILE_OF_MINE", "the README lists all settings"),
        ("RECOLLECT_", "the README lists all settings"),
    ],
)
def test_an_unknown_name_stops_the_start_and_is_put_right(name: str, hint: str) -> None:
    assert refusal({name: SECRET}) == f"{name} is not a setting: {hint}"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PORT", "80a", "valid integer"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("HISTORY_FSYNC", "perhaps", "valid boolean"),
        ("TURN_CONFLICT", "merge", "'queue' or 'reject'"),
        ("TURN_WAIT_S", "-1", "greater than or equal to 0"),
        ("TURN_WAIT_S", "inf", "finite"),
        ("ON_DISCONNECT", "Stop", "'grace', 'finish' or 'stop'"),
        ("WINDOW_TOKENS", "99", "should be 'auto'; RECOLLECT_WINDOW_TOKENS: should be greater than or equal to 100"),
        ("RECALL", "all", "'session', 'user' or 'off'"),
        ("MAX_BODY_BYTES", "10", "greater than or equal to 1024"),
        ("MODEL_TIMEOUT_S", "0", "greater than 0"),
        ("SHUTDOWN_S", "nan", "finite"),
        ("JWT_SECRET", "too-short", "at least 32 bytes"),
        ("JWT_JWKS_URL", "file:///etc/passwd", "http:// or https://"),
        ("JWT_JWKS_URL", "https://", "http:// or https://"),
        ("JWT_JWKS_URL", "http://[hunter2", "http:// or https://"),
        ("HISTORY_URL", "/var/lib/histories", "must be file:"),
        ("HISTORY_URL", "mysql://ann:hunter2@db/chat", "postgresql://"),
        ("HISTORY_URL", "memory:more", "memory:"),
        ("HISTORY_URL", "redis:hunter2", "redis:"),
        ("HISTORY_URL", "redis://", "redis:"),
        ("HISTORY_URL", "file:histories", "file:/some/dir"),
        ("HISTORY_URL", "file://histories/here", "file:/some/dir"),
        ("ROOT_PATH", "ai", "a path such as /ai"),
        ("ROOT_PATH", "/ai/", "without a slash at its end"),
        ("TRUSTED_PROXIES", "proxy.example", "addresses or networks"),
        ("CORS_ORIGINS", "*", "must be origins"),
        ("RECALL_URL", "./vectors.db", "must be http://host:19530"),
        ("RECALL_URL", "http://milvus:19530", "need each other"),
        ("EMBEDDINGS", "m@nowhere", "must be a URL"),
        ("CORS_ORIGINS", "https://app.example/", "must be origins"),
        ("RETENTION_DAYS", "soon", "90, chat=30"),
        ("RETENTION_DAYS", "0", "90, chat=30"),
        ("JWT_AUDIENCE", "chat", "of no use without"),
        ("JWT_ISSUER", "https://issuer.example", "of no use without"),
    ],
)
def test_a_bad_value_stops_the_start_with_a_line_that_names_the_variable(name: str, value: str, reason: str) -> None:
    text = refusal({f"RECOLLECT_{name}": value})
    assert text.startswith(f"RECOLLECT_{name}")
    assert reason in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "url",
    ["file:", "file:/h", "file:///h", "memory:", "redis://:pw@h:1/2", "rediss://h", "postgresql:///d?host=/run"],
)
def test_every_kind_of_store_has_its_url(url: str) -> None:
    assert load_settings({"RECOLLECT_HISTORY_URL": url}).history_url == url


def test_all_that_is_wrong_is_said_at_once() -> None:
    unknown = {"RECOLLECT_PRT": "8000", "RECOLLECT_LOG_LEVLE": "debug"}
    text = refusal({"RECOLLECT_PORT": "x", "OPENAI_BASE_URL": "ftp://models", **unknown})
    assert "RECOLLECT_LOG_LEVLE is not a setting: did you mean RECOLLECT_LOG_LEVEL?; RECOLLECT_PRT is not" in text
    assert "RECOLLECT_PORT: should be a valid integer" in text
    assert "; OPENAI_BASE_URL: must be a URL" in text


def test_a_shared_secret_and_a_key_set_exclude_each_other() -> None:
    text = refusal({"RECOLLECT_JWT_SECRET": SECRET, "RECOLLECT_JWT_JWKS_URL": "https://issuer.example/keys"})
    assert "RECOLLECT_JWT_SECRET and RECOLLECT_JWT_JWKS_URL exclude each other" in text
    assert SECRET not in text


def test_memory_is_for_one_worker() -> None:
    assert load_settings({"RECOLLECT_HISTORY_URL": "memory:"}).history_url == "memory:"
    text = refusal({"RECOLLECT_HISTORY_URL": "memory:", "RECOLLECT_WORKERS": "2"})
    assert "RECOLLECT_WORKERS=1" in text


def test_a_body_limit_of_the_default_admits_a_message_of_a_megabyte() -> None:
    escaped = 3  # how JSON may grow a text that is not ASCII: 4 bytes of UTF-8 become 12
    assert Settings().max_body_bytes > 1_000_000 * escaped


@pytest.mark.parametrize("length", [31, 32])
def test_a_signing_secret_is_measured_in_bytes(length: int) -> None:
    environ = {"RECOLLECT_JWT_SECRET": "é" + "x" * (length - 2)}
    if length < 32:
        assert "at least 32 bytes" in refusal(environ)
    else:
        assert load_settings(environ).jwt_secret is not None


def test_nothing_that_is_printed_of_the_settings_is_secret() -> None:
    settings = load_settings(
        {
            "RECOLLECT_HISTORY_URL": "redis://:hunter2@cache/0",
            "RECOLLECT_JWT_SECRET": SECRET,
            "OPENAI_API_KEY": "hunter2",
            "OPENAI_BASE_URL": "https://ann:hunter2@models.example/v1",
        }
    )
    for text in (repr(settings), str(settings), f"{settings!r}"):
        assert "hunter2" not in text
        assert SECRET not in text


def test_an_error_of_settings_built_from_arguments_repeats_no_value() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(jwt_secret=SecretStr("hunter2"), history_url="hunter2")
    assert "hunter2" not in str(refused.value)
