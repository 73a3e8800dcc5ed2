"""The settings in force as a `rootcost.toml`, each with its description."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from ledger.settings import Settings

_HIDDEN = "(set, not shown)"
_SECRET = {"webhook_url", "options", "s3_options", "client_secret", "url", "secret"}


def as_toml(settings: Settings) -> str:
    """All settings as a rootcost.toml; empty values are commented out, secrets are not shown.

    The result is valid TOML, and reading it back gives the same settings (secrets and the home aside).
    """
    lines = ["# Settings in force. Precedence: command line, environment, rootcost.toml, defaults.", ""]
    top = {name: value for name, value in settings if not isinstance(value, BaseModel)}
    for name, value in top.items():
        lines += _setting(type(settings), name, value)
    for section, values in settings:
        if isinstance(values, BaseModel):
            lines += ["", f"# {(type(values).__doc__ or '').strip()}", f"[{section}]"]
            tables: list[str] = []
            for name, value in values:
                if _is_tables(value):
                    tables += _tables(f"{section}.{name}", value)
                else:
                    lines += _setting(type(values), name, value)
            lines += tables
    return "\n".join(lines)


def as_values(settings: Settings) -> dict[str, Any]:
    """All settings as nested values, secrets hidden."""
    return {name: _section(values) if isinstance(values, BaseModel) else values for name, values in settings}


def _section(values: BaseModel) -> dict[str, Any]:
    return {name: _masked(name, value) for name, value in values.model_dump().items()}


def _setting(model: type[BaseModel], name: str, value: object) -> Iterator[str]:
    description = model.model_fields[name].description or ""
    yield from (f"# {line}" for line in textwrap.wrap(description, 120))
    value_text = _masked(name, value)
    off = value_text in (None, "", [], {}) or value_text == _HIDDEN or value_text != value or isinstance(value_text, Path)
    yield f"{'# ' if off else ''}{name} = {_toml(value_text)}"


def _masked(name: str, value: object) -> object:
    if name == "database_url" and value:
        import sqlalchemy as sa

        return sa.make_url(str(value)).render_as_string(hide_password=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if name in _SECRET and value:
        return _HIDDEN
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{key: _masked(key, inner) for key, inner in row.items()} for row in value]
    return value


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel)


def _tables(name: str, rows: Sequence[BaseModel]) -> Iterator[str]:
    for row in rows:
        yield ""
        yield f"[[{name}]]"
        yield from (
            f"{'# ' if key in _SECRET else ''}{key} = {_toml(_masked(key, value))}" for key, value in row if value is not None
        )


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    # Decimals are quoted: a TOML number would be read as a float.
    return json.dumps("" if value is None else str(value) if isinstance(value, Decimal | Path) else value, ensure_ascii=False)
