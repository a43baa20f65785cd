"""What pydantic found wrong, in one line."""

from pydantic import ValidationError


def problems_of(error: ValidationError) -> str:
    """Return every field that was refused with the reason, for the message of an error of ours.

    >>> from pydantic import BaseModel
    >>> class Size(BaseModel):
    ...     height: int
    ...     width: int
    >>> try:
    ...     Size(height="tall", width=2.5)
    ... except ValidationError as error:
    ...     print(problems_of(error)[:42])
    height: Input should be a valid integer, u
    """
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
