"""/chat: a plain conversation, for the chat playground."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from chains import Chain
from playground_config.chat import ChatInput

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You're a friendly, helpful assistant."),
        MessagesPlaceholder("history"),
        ("human", "{input}"),
    ]
)

CHAIN = Chain(
    name="chat",
    build=lambda model: PROMPT | model | StrOutputParser(),
    input_type=ChatInput,
    output_type=str,
    input_messages_key="input",
    history_messages_key="history",
    playground="chat",
    description="A plain conversation.",
)
