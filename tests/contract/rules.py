"""What no schema can say, and so is no breach."""

from __future__ import annotations

import tomllib
from typing import Any

CONFIG = """
# A conversation may have moved on since the turn that If-Match names.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 429, "5xx"]

# What is too long for its schema may be too long for the door.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, 431, "5xx"]

# Which cursors there are, that there are as many configs as inputs, what a packed config unpacks to, and all of what
# LangChain's messages and other programs' exports hold: a 422 for what looks well is right there.
[[operations]]
include-path-regex = "/c/|/batch$|^/sessions$|/turns|/import"
[operations.checks.positive_data_acceptance]
enabled = false
"""


def config() -> dict[str, Any]:
    return tomllib.loads(CONFIG)
