"""How /tutor shows itself: a form of two fields in LangServe's default playground."""

from pydantic import BaseModel, Field


class TutorInput(BaseModel):
    """What /tutor takes. The form starts with the first examples: with empty fields it would start with errors."""

    ability: str = Field(
        title="Ability: what the assistant is good at",
        examples=["math", "Italian cooking"],
        json_schema_extra={"default": "math"},
    )
    input: str = Field(
        title="Question: what you say next",
        description="What was said before is the server's to remember.",
        examples=["What does cosine mean?"],
        json_schema_extra={"default": "What does cosine mean?"},
    )
