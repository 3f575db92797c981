"""A chain that blocks its thread, too, but not for long."""

from __future__ import annotations

from typing import Any

from chains import Chain


def _answer(said: Any) -> str:
    return "That took no time."


CHAIN = Chain(name="quick", build=lambda model: _answer, input_type=str, output_type=str)
