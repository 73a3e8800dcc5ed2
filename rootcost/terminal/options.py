"""Fields of the API's models as options of commands: an error names the option that a person typed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from ledger.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


@contextlib.contextmanager
def fields_as(options: Mapping[str, str]) -> Iterator[None]:
    """Names the option, or argument, in a `UsageError` that names a field."""
    try:
        yield
    except UsageError as error:
        error.where = options.get(error.where, error.where)
        raise


def validated(model: type[M], values: Mapping[str, object], options: Mapping[str, str]) -> M:
    """The model of what was typed. Raises `UsageError` that names the option."""
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise UsageError(
            f"{first['input']!r}: {first['msg'].removeprefix('Value error, ')}",
            where=options.get(field, field),
            remedy="see --help",
        ) from error
