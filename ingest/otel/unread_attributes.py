"""Attributes of usage that no row of the emitter table reads. (CA-7)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ingest.logs.unread_usage import field_paths
from ingest.otel.attribute_values import AttributeValueError, is_usage_attribute, parse_object
from ingest.otel.emitters import OWN_METER, rows_of


class UnreadAttributes:
    """Which attributes of usage are neither read nor left out for a reason. `names` are those that the emitter table reads."""

    def __init__(self, names: Iterable[str]) -> None:
        rows = rows_of("attributes")
        listed_names = {row["attribute"] for row in rows} | {f"{row['attribute']}.{row['path']}" for row in rows if row["path"]}
        self._known_names = frozenset(names) | listed_names
        # A gateway's own usage object repeats the attributes of its span.
        objects = {row["attribute"] for row in rows if row["path"] and "usage" in row["attribute"]}
        self._objects = frozenset(name for name in objects if not name.startswith("metadata."))
        self._known_families = tuple(name[:-1] for name in listed_names if name.endswith(".*") and name != f"{OWN_METER}*")

    def take(self, attributes: dict[str, Any], *, is_event: bool = False) -> dict[str, Any]:
        """Removes the attributes of usage that the table does not read from those of a span; returns them.

        Those that the table leaves out for a reason are removed, too, and not returned.
        """
        objects = self._objects & attributes.keys()
        states_usage = states_count if is_event else is_usage_attribute
        unknown = attributes.keys() - self._known_names
        unread = {name: attributes.pop(name) for name in sorted(unknown) if states_usage(name)} if unknown else {}
        for name in sorted(objects):
            unread |= self._inner_fields(name, attributes[name])
        return {name: value for name, value in unread.items() if not name.startswith(self._known_families)}

    def may_be_in(self, names: Iterable[str]) -> bool:
        """Whether `take` may find something in spans with these attributes, going by their names."""
        return any(name in self._objects or (name not in self._known_names and is_usage_attribute(name)) for name in names)

    def _inner_fields(self, attribute: str, value: object) -> dict[str, Any]:
        """The fields of an object of usage that no row reads."""
        try:
            usage = parse_object(value)
        except AttributeValueError:
            return {}  # who reads the attribute reports it
        fields = ((f"{attribute}.{path}", field) for path, field in field_paths(usage or {}))
        return {name: field for name, field in fields if name not in self._known_names}


def states_count(name: str) -> bool:
    """Whether an attribute of an event states how much was used, going by its name.

    >>> [states_count(name) for name in ("thoughts_token_count", "image_tokens", "gen_ai.request.max_tokens", "max_tokens", "model")]
    [True, True, False, False, False]
    """
    is_setting = ".request." in name or name.startswith("max_")
    return is_usage_attribute(name) or (name.endswith(("_tokens", "_token_count", ".tokens")) and not is_setting)
