"""The steps of the Redis store: Lua scripts, each of them whole or not at all.

Each stands in a file of its own in `lua/`, with what it is given and what it answers. Each may be sent again when its
answer was lost; the second rewind or deletion then finds nothing left to do, and says so.

All keys of one user carry that user's hash tag, so that one script may touch them all in a Redis Cluster, too:

    recollect:{user}:sessions           sorted set: session_id by the time of its last change, in microseconds
    recollect:{user}:notes              JSON: what is to be remembered of the user
    recollect:{user}:session:<id>       hash: the session's entry, and its turns (lua/tree.lua)
    recollect:{user}:window:<id>        sorted set: the turns that a model is shown, by the tokens before each of them
    recollect:{user}:path:<id>          sorted set: the numbers of the turns on the shown line, if it ever was changed
    recollect:{user}:lease:<id>         "token channel" of who runs a turn; expires when its holder dies
    recollect:{user}:line:<id>          JSON [[token, channel, expiry], …]: who waits, in order of arrival
    recollect:{user}:journal:<token>    stream: what a running turn has said
    recollect:{user}:heard:<token>      a running turn is listened to on another server; expires
    recollect:{user}:new-…:<token>      a session that is being imported; expires unless it is finished

and, of what belongs to nobody's histories,

    recollect:rates:<name>              a counter of what a user may ask for: see api/counters.py; expires

The session's hash holds title, chain, created, updated, turns, tokens, shown (JSON and numbers), and
    last       the number of the newest shown turn; `top`, the highest number in use
    run        the token of the turn that runs, or ran when its holder died; `added`, the tokens of its input;
               `journaled`, its token once it has a journal; `back`, the end of the line that is shown again if it comes
               to nothing; `stop`, its token when it is to be stopped; `doubt`, see lua/holder.lua
    shape      counts how often turns were taken from the shown line, or its end was hidden
    tree       with `todo`, `sweep` and the fields of the turns: see lua/tree.lua
Records of turns are a few lines of JSON, of which none holds a newline, so a script finds its way in them without
parsing JSON that a stranger wrote.

A token is a random name of one attempt to run a turn. It is the fence: only the token in `run` ends a turn, however
late its holder wakes up; and it tells an attempt that is sent again, because its answer was lost, from a new one.

Where a script writes more than it frees, that comes first: a server without memory then refuses the whole script.
"""

from __future__ import annotations

import re
from hashlib import sha1
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "lua"


class Script:
    """A Lua script, and the name by which a Redis server that has seen it calls it."""

    def __init__(self, name: str) -> None:
        text = _read(name)
        self.text = "".join(f"{part}\n" for part in (*map(_read, _preludes(text)), text))
        self.sha = sha1(self.text.encode("ascii"), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text("ascii")


def _preludes(text: str) -> list[str]:
    found = re.match("-- USES(.*)\n", text)
    return found[1].split() if found is not None else []


BEGIN: Final = Script("begin")
END: Final = Script("end")
SETTLE: Final = Script("settle")
INDEX: Final = Script("index")
RENEW: Final = Script("renew")
QUEUE_BEAT: Final = Script("queue_beat")
LEAVE: Final = Script("leave")
STOP: Final = Script("stop")
APPEND: Final = Script("append")
EVENTS: Final = Script("events")
RUNNING: Final = Script("running")
TURNS: Final = Script("turns")
TURN: Final = Script("turn")
ALL_TURNS: Final = Script("all_turns")
INFO: Final = Script("info")
ENTRIES: Final = Script("entries")
RENAME: Final = Script("rename")
FEEDBACK: Final = Script("feedback")
DOCUMENT: Final = Script("document")
REWIND: Final = Script("rewind")
CHOOSE: Final = Script("choose")
DELETE_TURN: Final = Script("delete_turn")
DELETE: Final = Script("delete")
STAGE: Final = Script("stage")
ADOPT: Final = Script("adopt")
COUNT: Final = Script("count")
NOTES: Final = Script("notes")
