"""/tutor: an assistant who is good at something, and brief."""

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from chains import Chain
from playground_config.tutor import TutorInput

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You're an assistant who's good at {ability}. Respond in 20 words or fewer."),
        MessagesPlaceholder("history"),
        ("human", "{input}"),
    ]
)

CHAIN = Chain(
    name="tutor",
    build=lambda model: PROMPT | model,
    input_type=TutorInput,
    input_messages_key="input",
    history_messages_key="history",
    description="An assistant who is good at what you say, and answers in 20 words or fewer.",
)
