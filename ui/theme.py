"""Colours and images shared by all pages. Streamlit's own theme is in `.streamlit/config.toml`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

ASSETS = Path(__file__).parent / "assets"
ICON = ASSETS / "icon.svg"
"""The picture in the browser's tab."""
LOGO = ASSETS / "logo.svg"
"""The picture above the pages' names."""

PALETTE: tuple[str, ...] = ("#2f7fd1", "#e39b0b", "#10946f", "#c86aa3", "#4fb3e0", "#cf5a18", "#8573d6", "#a69512")
"""Distinguishable with any kind of colour vision, on white and on black; as in `.streamlit/config.toml`."""
NOBODY = "#97a1ab"
"""Cost without a name: idle, shared, owned or unallocated."""
EVERYBODY_ELSE = "#c3cad1"
"""All names too small for a colour of their own."""
CLASS_COLOURS = {"metered": "#2f7fd1", "owner": "#10946f", "shared": "#8573d6", "idle": "#e39b0b", "unallocated": NOBODY}
"""A colour for each cost class."""
EVIDENCE_COLOURS = {"evidence": "#10946f", "table": "#2f7fd1", "inference": "#e39b0b", "nothing": NOBODY}
"""A colour for what money stands on."""
EVIDENCE_PLACES = {name: place for place, name in enumerate(EVIDENCE_COLOURS)}
EVIDENCE_TONES: Mapping[str, Literal["good", "cool", "warn", "muted"]] = {
    "evidence": "good",
    "table": "cool",
    "inference": "warn",
    "nothing": "muted",
}


def colours(names: Sequence[str], *, nameless: Collection[str], others: str) -> list[str]:
    """A colour for each name, in order; greys for what has no name and for the rest.

    >>> colours(["Care", "(no team)"], nameless={"(no team)"}, others="others")
    ['#2f7fd1', '#97a1ab']
    """
    grey = {**dict.fromkeys(nameless, NOBODY), others: EVERYBODY_ELSE}
    bright = iter(PALETTE * (len(names) // len(PALETTE) + 1))
    return [grey[name] if name in grey else next(bright) for name in names]
