"""`ChatOpenAI` without the detours: what it sends and what it gives are the same."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Self

import langchain_openai
import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatResult
from langchain_openai.chat_models.base import _handle_openai_api_error, _handle_openai_bad_request
from pydantic import model_validator
from typing_extensions import override

from chat_models.habits import Habits
from chat_models.openai_client import ChatCompletions

_ROLES: dict[type[Any], str] = {HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system"}


_OF_O_SERIES: Final = re.compile(r"o\d")


class ChatOpenAI(Habits, langchain_openai.ChatOpenAI):
    """LangChain's, with a client that gives dictionaries.

    LangChain looks at each character of a message's text for whether it is a block of audio, and makes the result of a
    whole reply in another thread. It has the same name, as clients read it in the events of a run.
    """

    only_reads: ClassVar = True
    """It leaves the messages that it is given as they are: who calls it need not copy them first."""

    @model_validator(mode="after")
    def _streams_unless_told(self) -> Self:
        """A model that `configurable_fields` makes is given the defaults, too: nobody wished it not to stream."""
        if not self.streaming:
            self.model_fields_set.discard("streaming")
        return self

    @override
    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        messages = input_ if isinstance(input_, list) else self._convert_input(input_).to_messages()
        if _OF_O_SERIES.match(self.model_name or ""):  # whose system messages are a developer's
            return super()._get_request_payload(messages, stop=stop, **kwargs)
        payload: dict[str, Any] = super()._get_request_payload([], stop=stop, **kwargs)
        if "messages" not in payload:  # of the Responses API
            return super()._get_request_payload(messages, stop=stop, **kwargs)
        for message in messages:
            plain = _plain(message)
            payload["messages"] += [plain] if plain else super()._get_request_payload([message])["messages"]
        return payload

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        if not isinstance(self.async_client, ChatCompletions) or self._needs_more(payload):
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        try:
            body = (await self.async_client.with_raw_response.create(**payload)).parse()
        except openai.BadRequestError as error:
            _handle_openai_bad_request(error)
        except openai.APIError as error:
            _handle_openai_api_error(error)
        result = self._create_chat_result(body)
        if isinstance(body, dict) and body["choices"]:  # LangChain does it for OpenAI's models alone
            refusal = body["choices"][0]["message"]["refusal"]
            result.generations[0].message.additional_kwargs["refusal"] = refusal
        return result

    def _needs_more(self, payload: dict[str, Any]) -> bool:
        """Whether more is asked for than the reply."""
        return bool("response_format" in payload or self.include_response_headers or self._uses_gateway)


def _plain(message: Any) -> dict[str, Any] | None:
    """A message as the server takes it, if it is nothing but somebody's text."""
    kind: type[Any] = type(message)
    role = _ROLES.get(kind)
    if role is None or not isinstance(content := message.content, str) or message.name is not None:
        return None
    told = message.additional_kwargs
    if told and any(value is not None for value in told.values()):
        return None
    if kind is AIMessage and (message.tool_calls or message.invalid_tool_calls):
        return None
    return {"content": content, "role": role}
