"""What the sections of a scenario have in common: strictness, documentation, and the bounds of plain numbers."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from roofline.errors import InputError

Positive = Annotated[float, Field(gt=0)]
# Simulated clocks count seconds in a float64: after 64,000 requests at this rate they tell 8 microseconds apart
Rate = Annotated[float, Field(ge=1e-6)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def checked(build: Callable[[], Any]) -> Any:
    """What `build` returns; pydantic names the place only of a `ValueError`."""
    try:
        return build()
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from error


class Section(BaseModel):
    """Unknown keys are errors, values never change, and the text under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
