"""The statements of the PostgreSQL store. Each is one round trip, and a transaction of its own.

Those that change the turns of a session are functions of the database (functions/): they lock the row of the session
first, and what they read after that stays so until they are done. All others are files of sql/, each of which tells at
its head what it takes and gives.

One session may have 10,000 turns where the average has five, so no plan may rest on that average: turns are found by
their turn_id, or along the index of the shown line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).with_name("sql")


def _file(name: str) -> str:
    lines = (_FOLDER / f"{name}.sql").read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def _call(function: str, *params: str) -> str:
    """A call of a function, whose arguments have the names of the parameters."""
    arguments = ", ".join(f"p_{name} => %({name})s" for name in params)
    return f"SELECT * FROM recollect_{function}({arguments})"  # noqa: S608 - of names that stand below


_SESSION: Final = ("user", "session")
_ENDING: Final = (
    "token", "turn", "status", "output", "usage", "kind", "details", "tokens", "words", "is_shown",
)  # fmt: skip

# Turns.
BEGIN: Final = _call(
    "begin", *_SESSION, "server", "token", "turn", "given", "patient", "version_of", "if_last", "title", "title_words",
    "chain", "input", "tokens", "half",
)  # fmt: skip
JOURNAL: Final = _call("journal", *_SESSION, "token", "first", "data")
END: Final = _call("end", *_SESSION, *_ENDING)
SETTLE: Final = _call("settle", *_SESSION, "server", *_ENDING)
LOST_TURN: Final = _file("lost_turn")
LEAVE_LINE: Final = _file("leave_line")
STOP: Final = _file("stop")
EVENTS: Final = _file("events")
ATTEND: Final = _file("attend")
ATTENDED: Final = _file("attended")

# The record, and its changes.
TURN: Final = _file("turn")
TURNS: Final = _file("turns")
TREE: Final = _file("tree")
SESSION: Final = _file("session")
RENAME: Final = _file("rename")
FEEDBACK: Final = _file("feedback")
REWIND: Final = _call("rewind", *_SESSION, "server", "turn", "if_last", "keep")
CHOOSE: Final = _call("choose", *_SESSION, "server", "turn", "if_last")
DELETE_TURN: Final = _call("delete_turn", *_SESSION, "server", "turn", "if_last")
DELETE_SESSION: Final = _call("delete_session", *_SESSION, "server")
FORK: Final = _call("fork", *_SESSION, "server", "turn", "new")
LOCK_SESSION: Final = _file("lock_session")
RESTORE_SESSION: Final = _file("restore_session")
RESTORE_TURNS: Final = _file("restore_turns")

# All of a user's.
SESSIONS: Final = _file("sessions")
SESSIONS_THAT_SAY: Final = _file("sessions_that_say")
HITS: Final = _file("hits")
CANDIDATES: Final = _file("candidates")
UNREAD: Final = _file("unread")
UNREAD_SESSIONS: Final = _file("unread_sessions")
UNREAD_TURNS: Final = _file("unread_turns")
INDEX_TURNS: Final = _file("index_turns")
INDEX_TITLES: Final = _file("index_titles")
DOCUMENT: Final = _file("document")
SET_DOCUMENT: Final = _file("set_document")
BYTES_KEPT: Final = _file("bytes_kept")
NOTES: Final = _file("notes")
SET_NOTES: Final = _file("set_notes")
CHANGE_NOTES: Final = _file("change_notes")
FORGET: Final = _call("forget", "user")
USERS: Final = _file("users")

# Rates.
COUNT: Final = _file("count")
COUNTED: Final = _file("counted")

# Servers.
CONFIGURE: Final = _file("configure")
BEAT: Final = _file("beat")
LEAVE_SERVERS: Final = _file("leave_servers")
TIDY: Final = _file("tidy")
