"""Attributes of usage that no row of the emitter table reads. (CA-7)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ingest.otel.attribute_values import is_usage_attribute
from ingest.otel.emitters import OWN_METER, rows_of


class UnreadAttributes:
    """Which attributes of usage are neither read nor left out for a reason. `names` are those that the emitter table reads."""

    def __init__(self, names: Iterable[str]) -> None:
        rows = rows_of("attributes")
        listed_names = {row["attribute"] for row in rows} | {f"{row['attribute']}.{row['path']}" for row in rows if row["path"]}
        self._known_names = frozenset(names) | listed_names
        self._known_families = tuple(name[:-1] for name in listed_names if name.endswith(".*") and name != f"{OWN_METER}*")

    def take(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Removes the attributes of usage that the table does not read from those of a span; returns them.

        Those that the table leaves out for a reason are removed, too, and not returned.
        """
        unknown = attributes.keys() - self._known_names
        unread = {name: attributes.pop(name) for name in sorted(unknown) if is_usage_attribute(name)} if unknown else {}
        return {name: value for name, value in unread.items() if not name.startswith(self._known_families)}
