"""Where the repository and the recorded test data lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the repository."""
DATA = ROOT / "tests" / "data"
"""Recorded inputs of the tests; each folder names its source and licence."""
