"""A console that shows what data holds and obeys none of it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.segment import Segment

from rootcost.terminal.printable import printable


class TerminalConsole(Console):
    """A console whose texts are printable; its own styles are not touched."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment if segment.control else Segment(printable(segment.text), segment.style) for segment in buffer
        )
