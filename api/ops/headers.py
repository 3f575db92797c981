"""Headers that every response has, unless its route says otherwise: nothing is guessed, framed, cached or leaked."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PLAYGROUND_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""LangServe's playgrounds begin with a script in the page, which holds the schemas, and compile these as they run."""
_DEFAULTS: Final = (
    (b"x-content-type-options", b"nosniff"),
    # The chat playground tells its session by its address: see playground_config.routes.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")


def add_headers(message: MutableMapping[str, Any], scope: MutableMapping[str, Any]) -> None:
    """Adds to the start of a response what it does not say itself."""
    headers = message.setdefault("headers", [])
    said = {name.lower() for name, _ in headers}
    headers += [default for default in _DEFAULTS if default[0] not in said]
    if b"content-security-policy" not in said:
        policy = PLAYGROUND_POLICY if "/playground" in scope["path"] else POLICY
        headers.append((b"content-security-policy", policy.encode()))
    if scope["scheme"] == "https" and _HSTS[0] not in said:
        headers.append(_HSTS)
