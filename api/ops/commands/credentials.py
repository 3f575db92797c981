"""Who gets in: keys, links, sign-ins, the signing secret."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from api.ops.commands.terminal import add_command, audit, hint
from auth.files import SigningSecret
from auth.keys import ApiKeys
from auth.links import Links, login_url, server_url
from auth.sign_ins import SignIns
from settings import Settings


def add_to(commands: Any) -> None:
    """Adds the parsers of these commands."""
    _add_keys(commands.add_parser("keys", help="make, list and revoke API keys"))
    link = add_command(commands, "link", make_link, "make a link that signs a browser in once")
    link.add_argument("--user", required=True, metavar="NAME")
    link.add_argument("--base-url", type=_web_url, metavar="URL", help="where browsers find the server")
    signout = add_command(commands, "signout", sign_out, "sign a user's browsers out")
    signout.add_argument("--user", required=True, metavar="NAME")
    add_command(commands, "rotate-secret", rotate_secret, "sign cookies with a new secret")


def _add_keys(keys: argparse.ArgumentParser) -> None:
    commands = keys.add_subparsers(required=True, metavar="COMMAND")
    create = add_command(commands, "create", create_key, "make a key for a user")
    create.add_argument("--user", required=True, metavar="NAME")
    create.add_argument(
        "--name", "--label", dest="label", default="", type=_line, metavar="TEXT", help="what it is for"
    )
    create.add_argument("--expires", type=_days, metavar="DAYS", help="after so many days it is refused")
    scopes = ("chat", "read", "metrics")
    create.add_argument("--scope", action="append", choices=scopes, help="what it opens; may be repeated (chat)")
    add_command(commands, "list", list_keys, "show all keys")
    revoke = add_command(commands, "revoke", revoke_key, "end a key")
    revoke.add_argument("id", metavar="ID", help="as `keys list` shows it")


def create_key(args: argparse.Namespace, settings: Settings) -> int:
    """Makes an API key, and prints the key alone on the last line: it is kept nowhere."""
    expires = datetime.now(UTC) + timedelta(days=args.expires) if args.expires else None
    scopes = tuple(args.scope or ["chat"])
    record, key = ApiKeys(settings.data_dir).create(args.user, args.label, scopes=scopes, expires=expires)
    audit(settings, "key.create", user=record.user, key=record.id, scopes=list(scopes), expires=record.expires_at)
    hint(f"key {record.id} of {record.user}: it is shown only now, and `keys revoke {record.id}` ends it")
    print(key)
    return 0


def list_keys(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each key, with tabs between its id, its user, when it was made, its name, what it opens,

    when it expires, and when it was last used, to the minute (- for never).
    """
    keys = ApiKeys(settings.data_dir)
    for key in keys.all():
        used = keys.used.at(key.id)
        last = "-" if used is None else datetime.fromtimestamp(used, UTC).isoformat(timespec="minutes")
        fields = (key.id, key.user, key.created_at, key.label, ",".join(key.scopes), key.expires_at or "-", last)
        print(*fields, sep="\t")
    return 0


def revoke_key(args: argparse.Namespace, settings: Settings) -> int:
    """Ends a key at once, and the sign-in of each browser that came by it."""
    ApiKeys(settings.data_dir).revoke(args.id)
    ended = _sign_ins(settings).end_all(key_id=args.id)
    audit(settings, "key.revoke", key=args.id, sign_ins=ended)
    hint(f"key {args.id} is refused from now on; {_browsers(ended)} that came by it {_have(ended)} to sign in again")
    return 0


def sign_out(args: argparse.Namespace, settings: Settings) -> int:
    """Ends the sign-in of each browser of a user. Their keys and tokens stay good."""
    keys = ApiKeys(settings.data_dir)
    keys.sign_out(args.user)
    ended = _sign_ins(settings).end_all(user=args.user)
    audit(settings, "user.signout", user=args.user, sign_ins=ended)
    if ended:
        hint(f"{_browsers(ended)} of {args.user} {_have(ended)} to sign in again")
    else:
        hint(f"nobody was signed out: no browser of {args.user} was signed in")
    if keys.newest(args.user) is None:
        hint(f"{args.user} has no API key: is the name right?")
    return 0


def make_link(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a link that signs a browser in once, within ten minutes. Revoking the user's newest key ends that."""
    key = ApiKeys(settings.data_dir).newest(args.user)
    token = Links(settings.data_dir).create(args.user, key.id if key is not None else None)
    audit(settings, "link.create", user=args.user)
    if key is None:
        hint(f"{args.user} has no API key: only `signout --user` will end this sign-in early")
    here = server_url(settings.host, settings.port) + settings.root_path
    print(login_url(args.base_url or here, token))
    return 0


def rotate_secret(args: argparse.Namespace, settings: Settings) -> int:
    """Signs browsers' cookies with a new secret from now on. Nobody is signed out, unless it is done twice."""
    had_older = (settings.data_dir / "secret.old").exists()
    SigningSecret(settings.data_dir).rotate()
    audit(settings, "secret.rotate")
    hint("nobody who signed in since the last rotation is signed out: their cookies stay good for their 30 days")
    if had_older:
        hint("who signed in before the last rotation, and not since, has to sign in again")
    return 0


def _sign_ins(settings: Settings) -> SignIns:
    return SignIns(settings.data_dir, idle_s=settings.sign_in_idle_s)


def _browsers(count: int) -> str:
    return "no browser" if not count else f"{count} browser{'s' if count > 1 else ''}"


def _have(count: int) -> str:
    return "have" if count > 1 else "has"


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 36500:
        raise argparse.ArgumentTypeError("it must be a number of days, 1 or more")
    return int(text)


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("it must start with http:// or https://")
    return text


def _line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("it must be one line")
    return text
