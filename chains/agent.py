"""/agent: an assistant with tools, a calculator and a clock. Served where the extra `agents` is installed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final
from zoneinfo import ZoneInfo

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from typing_extensions import TypedDict

from chains.chain import Chain


class Messages(TypedDict):
    """What is said to the agent, and what it says."""

    messages: list[AnyMessage]


_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@tool
def calculator(expression: str) -> str:
    """Calculates with numbers, + - * / // % ** and brackets, as in "2 * (3 + 4)"."""
    try:
        return str(_value(ast.parse(expression[:200], mode="eval").body))
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        return f"This can't be calculated: {error}"


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp):
        return float_or_int(_OPERATORS[type(node.op)](_value(node.operand)))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            if abs(right) > 100 or abs(left) > 1_000_000:
                raise ValueError("the power is too large")
            return float_or_int(left**right)
        return float_or_int(_OPERATORS[type(node.op)](left, right))
    raise ValueError("only numbers and + - * / // % ** are known")


def float_or_int(number: Any) -> float:
    """A number that is real: roots of negative ones are not."""
    if not isinstance(number, (int, float)):
        raise ValueError("the result is not a real number")
    return number


@tool
def clock(timezone: str = "UTC") -> str:
    """Tells the date and the time in a time zone, as in "Europe/Oslo"."""
    try:
        zone = UTC if timezone.upper() == "UTC" else ZoneInfo(timezone)
    except (LookupError, ValueError, OSError):
        return f"There is no time zone {timezone}."
    return datetime.now(zone).strftime("%A, %d %B %Y, %H:%M (%Z)")


def _agent(model: BaseChatModel) -> Runnable[Any, Any]:
    from langchain.agents import create_agent  # here: it is an extra, and takes long to import

    return create_agent(
        model,
        [calculator, clock],
        system_prompt="You're a helpful assistant. Use your tools to calculate and for the time.",
    )


PROMPT: Final = "You're a helpful assistant. Use your tools to calculate, and to tell the time."

CHAIN = (
    Chain(
        name="agent",
        build=_agent,
        input_type=Messages,
        output_type=Messages,
        input_messages_key="messages",
        description="An assistant with a calculator and a clock.",
        late=True,  # it imports a quarter of a second, and 12 MB
    )
    if find_spec("langgraph") and find_spec("langchain")
    else None
)
