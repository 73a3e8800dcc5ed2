"""The dashboard's process: Streamlit, started by the service and ended with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ledger.errors import RootCostError
from rootcost.terminal.console import say


class NotHealthyError(RootCostError):
    """A server was started and did not become healthy."""


class Dashboard:
    """The Streamlit process. If it ends it is restarted, a few times."""

    RESTARTS = 3

    def __init__(
        self, home: Path, host: str, port: int, api_url: str, *, hosts: Sequence[str] = (), public_api_url: str = ""
    ) -> None:
        self._host, self._port = host, port
        self._settings = {"ROOTCOST_API_URL": api_url, "ROOTCOST_ALLOWED_HOSTS": ",".join(hosts)}
        if public_api_url:
            self._settings["ROOTCOST_PUBLIC_API_URL"] = public_api_url
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts_left = self.RESTARTS
        self.log = home / "dashboard.log"

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Starts it in a process group of its own, so that Ctrl-C reaches it through the service; its input is the pipe of `child`."""
        module_spec = find_spec("ui")
        if module_spec is None or not module_spec.submodule_search_locations:
            raise NotHealthyError("the package ui is not installed", remedy="reinstall rootcost, or use --no-ui")
        package = Path(next(iter(module_spec.submodule_search_locations)))
        # It only reads, from the API: it is given no secret of the ledger.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOTCOST_")}
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "rootcost.service.child", "ui.server", self._host, str(self._port)],
                stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=package,
                env={**environment, **self._settings}, start_new_session=True,
            )  # fmt: skip

    def keep_up(self) -> None:
        """Starts it again if it has ended; raises `NotHealthyError` when it keeps ending."""
        if self._child is None or self.code is None:
            return
        if self._restarts_left == 0:
            raise NotHealthyError(f"the dashboard keeps ending (code {self.code})", remedy=f"see {self.log}")
        self._restarts_left -= 1
        self._close_pipe(self._child)
        say(f"The dashboard ended with code {self.code} and is started again; see {self.log}")
        self.start()

    def stop(self) -> None:
        """Stops it and its children: by SIGTERM, then by SIGKILL."""
        if self._child is None:
            return
        for number, patience_seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_seconds)
                break
        self._close_pipe(self._child)

    def _close_pipe(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            child.stdin.close()
