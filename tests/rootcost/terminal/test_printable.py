"""Escape sequences in data never reach a terminal: not by tables, errors, JSON, CSV or the log."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import polars as pl
import pytest

from rootcost.terminal.console import log_to, out, out_json, out_rows, say, write_table
from rootcost.terminal.tables import console_of, table
from rootcost.terminal.terminal_console import TerminalConsole

EVIL = "\x1b]8;;http://evil\x07bot\x1b[2J\x9b31m\u202egnp\x7f"
CONTROL = set(EVIL) - set("]8;http://evilbot[2J31mgnp")


def test_no_command_prints_a_control_character_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    out(EVIL)
    out_json({"agent": EVIL})
    out_rows([{"agent": EVIL}])
    console_of().print(table(["agent"], [{"agent": EVIL}]))
    streams = capsys.readouterr()
    assert "bot" in streams.out
    assert "bot" in streams.err
    assert not CONTROL & set(streams.out + streams.err)


def test_json_stays_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    out_json({"agent": EVIL})
    assert json.loads(capsys.readouterr().out) == {"agent": EVIL}


def test_colours_of_a_terminal_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    TerminalConsole(file=screen, force_terminal=True, color_system="standard").print(EVIL, style="bold red", markup=False)
    assert screen.getvalue().startswith("\x1b[1;31m␛")
    assert "\x1b]" not in screen.getvalue()


def test_csv_on_a_terminal_is_shown_and_in_a_pipe_exact(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    frame = pl.DataFrame({"agent": [EVIL]})
    write_table(frame, "csv", None)
    assert EVIL.encode() in capfdbinary.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_table(frame, "csv", None)
    assert not CONTROL & set(capfdbinary.readouterr().out.decode())


def test_the_log_holds_neither_escapes_nor_secrets(tmp_path: Path) -> None:
    path = log_to(tmp_path)
    root = logging.getLogger()
    handler = root.handlers[-1]
    try:
        logging.getLogger("rootcost.test").error("%s at https://h/v1?api_key=s3cr3t", EVIL)
        text = path.read_text(encoding="utf-8")
        assert not CONTROL & set(text)
        assert "s3cr3t" not in text
    finally:
        root.removeHandler(handler)
        handler.close()
