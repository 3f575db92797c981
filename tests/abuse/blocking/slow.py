"""A chain that blocks its thread for long."""

from __future__ import annotations

import time
from typing import Any

from chains import Chain

_BLOCKS_S = 5.0


def _wait(said: Any) -> str:
    time.sleep(_BLOCKS_S)
    return "That took long."


CHAIN = Chain(name="slow", build=lambda model: _wait, input_type=str, output_type=str)
