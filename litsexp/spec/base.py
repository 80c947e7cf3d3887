"""What every section of a study file has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticKnownError

Level = bool | int | float | str  # a value that a factor can take


class Strict(BaseModel):
    """Immutable; a misspelt key is an error, and so is a boolean where a number belongs (pydantic would read 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _a_boolean_is_no_number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        checked = handler(value)
        if isinstance(value, bool) and not isinstance(checked, bool):
            raise PydanticKnownError("float_type")
        return checked
