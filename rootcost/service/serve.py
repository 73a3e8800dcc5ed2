"""One command, three servers: the API, the scheduler and the dashboard, started together and stopped together.

    this process   uvicorn (thread) · scheduler (threads) · this loop: waits for a signal, watches the dashboard
    child          the dashboard (`rootcost.service.dashboard`), which ends with this process

Nothing starts before both ports are known to be free. On SIGINT or SIGTERM the API stops accepting, what was received is
booked, the scheduler stops, the dashboard is ended by its pid, and the process leaves with 0.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.sources import check_trusted_sources
from ledger.errors import PortTakenError, RootCostError, SettingsError
from rootcost.service.dashboard import Dashboard, NotHealthyError
from rootcost.terminal.console import log_to, out, say, tell_of_privacy

if TYPE_CHECKING:
    from ledger.books import Books
    from ledger.settings import Settings

log = logging.getLogger("rootcost.service.serve")

START_SECONDS = 60.0
"""How long API and dashboard may take until they are healthy."""
STOP_SECONDS = 10.0
"""How long a shutdown may take."""


_ON_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 — all addresses, and the one among them that is this machine's own


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where API and dashboard listen."""

    host: str
    port: int
    ui_port: int | None

    @property
    def api(self) -> str:
        """URL of the API, as this machine reaches it."""
        return f"http://{_in_url(_ON_THIS_MACHINE.get(self.host, self.host))}:{self.port}"

    @property
    def dashboard(self) -> str:
        """URL of the dashboard, as this machine reaches it."""
        return f"http://{_in_url(_ON_THIS_MACHINE.get(self.host, self.host))}:{self.ui_port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def serve(home: Path | None, *, port: int | None = None, ui_port: int | None = None, ui: bool = True) -> int:
    """Serves `home` until a signal comes; returns the exit code. Arguments override the settings."""
    from ledger.books import Books
    from ledger.locks import serve_lock
    from ledger.settings import load

    settings = load(home)
    check_trusted_sources(settings.ingest)
    addresses = _addresses(settings, port, ui_port, ui=ui)
    with contextlib.ExitStack() as stack:
        # Checked before the port, so that the error names the other server; a home that does not exist yet has none.
        if settings.home.exists():
            stack.enter_context(serve_lock(settings.home, addresses.api))
        listening = stack.enter_context(_bound(addresses.host, addresses.port, flag="--port", setting="serve.port"))
        if addresses.ui_port is not None:
            with _bound(addresses.host, addresses.ui_port, flag="--ui-port", setting="serve.ui_port"):
                pass  # free; the dashboard will bind it itself
        if not settings.home.exists():
            stack.enter_context(serve_lock(settings.home, addresses.api))
        log_to(settings.home)
        books = stack.enter_context(Books(settings))
        _check_reach(books)
        tell_of_privacy(settings.home)
        return _Service(books, addresses, listening).run()


def _addresses(settings: Settings, port: int | None, ui_port: int | None, *, ui: bool) -> Addresses:
    addresses = Addresses(settings.serve.host, port or settings.serve.port, (ui_port or settings.serve.ui_port) if ui else None)
    if addresses.port == addresses.ui_port:
        raise SettingsError(
            f"API and dashboard cannot both listen on port {addresses.port}",
            where="--port, --ui-port",
            remedy="give them two ports",
        )
    return addresses


def _check_reach(books: Books) -> None:
    """Raises `SettingsError` where others would reach a ledger that nobody is set up for."""
    from ledger.access.keys import list_keys
    from ledger.access.users import has_people
    from ledger.settings_sections import is_loopback

    host = books.settings.serve.host
    if is_loopback(host) or books.settings.access.providers or has_people(books):
        return
    if not any(key.state == "active" for key in list_keys(books)):
        raise SettingsError(
            f"{host!r} is reached from other machines, and neither people nor keys are set up",
            where="serve.host",
            remedy="first `rootcost users add NAME --role admin` or `rootcost keys create NAME --role ROLE`; or serve.host = 127.0.0.1",
        )


@contextlib.contextmanager
def _bound(host: str, port: int, *, flag: str, setting: str) -> Iterator[socket.socket]:
    """A listening socket; raises `PortTakenError` that names the port and the ways to choose another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop sends what it has at once: else every answer with a body waits 40 ms for an acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            raise PortTakenError(
                f"port {port} cannot be used: {error.strerror}",
                where=f"{host}:{port}",
                remedy=f"stop what listens there, or choose another: {flag} (setting {setting})",
            ) from error
        yield listening


def token_of(home: Path) -> tuple[str, bool]:
    """The token that write requests need, and whether it is new. It is stored in HOME/token, readable by its owner only."""
    path = home / "token"
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        token = secrets.token_urlsafe(32)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token + "\n")
        return token, True
    token = path.read_text(encoding="ascii").strip()
    if not token:
        raise SettingsError("is empty", where=str(path), remedy="delete it; the next start makes a new token")
    return token, False


class _Service:
    """API, scheduler and dashboard of one home, from start to stop."""

    def __init__(self, books: Books, addresses: Addresses, listening: socket.socket) -> None:
        from api.access.hosts import Site
        from api.app import create_app
        from api.mcp.server import add_mcp
        from rootcost.operations import all_operations
        from rootcost.service.grpc_server import GrpcReceiver
        from rootcost.service.receivers import Parsers, SpoolingReceiver
        from rootcost.service.schedule import Schedule

        self._where = addresses
        self._books, self._home = books, books.home
        self._token, self._token_is_new = token_of(books.home)
        self._stop = threading.Event()
        self._porch = spool = SpoolingReceiver(books.home / "spool", books.settings.ingest)
        serve, doors = books.settings.serve, Parsers(books.settings.ingest)
        site = Site.of(serve, port=addresses.port, ui_port=addresses.ui_port, ui=addresses.ui_port is not None)
        app = create_app(
            books, receivers=doors, operations=all_operations(drain=spool.drain), token=self._token, spool=spool, site=site
        )
        add_mcp(app, books)
        self._api = _Api(app, listening)
        self._grpc = (
            GrpcReceiver(
                doors,
                app.state.keep,
                address=f"{_in_url(addresses.host)}:{serve.grpc_port}",
                identify=app.state.authenticator.of_header,
                max_body_mb=serve.max_body_mb,
            )
            if serve.grpc_port
            else None
        )
        self._schedule = Schedule(books, spool, address=addresses.api)
        app.state.evaluator_delay = self._schedule.evaluator_delay
        self._dashboard = (
            Dashboard(
                books.home,
                addresses.host,
                addresses.ui_port,
                addresses.api,
                hosts=sorted(site.hosts),
                public_api_url=serve.public_url,
            )
            if addresses.ui_port is not None
            else None
        )

    def run(self) -> int:
        """Starts everything, waits for a signal or for something to break, stops everything."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        code = 0
        try:
            self._api.start()
            if self._grpc is not None:
                self._grpc.start()
            if self._dashboard is not None:
                self._dashboard.start()
            self._until_healthy()
            if not self._stop.is_set():
                self._schedule.start()
                self._announce()
            while not self._stop.wait(0.25):
                if not self._api.alive:
                    raise NotHealthyError(
                        "the API has stopped", where=self._where.api, remedy=f"see {self._home / 'rootcost.log'}"
                    )
                if self._schedule.error is not None:
                    raise self._schedule.error
                if self._dashboard is not None:
                    self._dashboard.keep_up()
        except RootCostError as error:
            say(f"rootcost: {error}")
            code = error.exit_code
        finally:
            in_time = self._shut_down()
        if not in_time:
            # An attribution is still running in a thread; none of it is published, so it can be interrupted.
            logging.shutdown()
            os._exit(code)
        return code

    def _until_healthy(self) -> None:
        import httpx

        # Loopback only: proxies of the environment do not apply.
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            pending_urls = [f"{self._where.api}/health"]
            if self._dashboard is not None:
                pending_urls.append(f"{self._where.dashboard}/_stcore/health")
            deadline = time.monotonic() + START_SECONDS
            while pending_urls and not self._stop.is_set():
                pending_urls = [url for url in pending_urls if not _answers(client, url)]
                if not pending_urls:
                    return
                if self._dashboard is not None and self._dashboard.code is not None:
                    raise NotHealthyError(
                        f"the dashboard ended with code {self._dashboard.code}", remedy=f"see {self._dashboard.log}"
                    )
                if not self._api.alive:
                    raise NotHealthyError("the API did not start", remedy=f"see {self._home / 'rootcost.log'}")
                if time.monotonic() > deadline:
                    raise NotHealthyError(
                        f"no answer within {START_SECONDS:.0f} s",
                        where=", ".join(pending_urls),
                        remedy=f"see {self._home / 'rootcost.log'}",
                    )
                self._stop.wait(0.1)

    def _announce(self) -> None:
        if self._dashboard is not None:
            out(f"Dashboard  {self._where.dashboard}")
        out(f"API        {self._where.api}   (described in {self._where.api}/openapi.json)")
        out(f"OTLP       {self._where.api}/v1/traces      LiteLLM  {self._where.api}/v1/litellm")
        if self._grpc is not None:
            out(f"OTLP/gRPC  {self._grpc.address}")
        if self._token_is_new:
            out(f"Token      {self._token}   (needed to write; kept in {self._home / 'token'})")
        else:
            out(f"Token      in {self._home / 'token'} (needed to write)")
        self._announce_first_admin()
        out("Ctrl-C stops.")

    def _announce_first_admin(self) -> None:
        """The link of the first administrator: at the first start, also of an upgraded home, and later on a terminal only."""
        from ledger.access.links import first_admin_link, was_first_admin_link_made

        if not sys.stdout.isatty() and was_first_admin_link_made(self._books):
            return
        token = first_admin_link(self._books)
        if token is not None:
            out(f"People     {self._books.settings.serve.public_url or self._where.api}/setup?token={token}")
            out(
                "           makes the first administrator, within 15 minutes and once; until then whoever is on this machine reads"
            )

    def _shut_down(self) -> bool:
        say("Stopping …")
        began = time.monotonic()
        self._api.stop()
        if self._grpc is not None:
            self._grpc.stop(patience_seconds=1.0)
        in_time = self._schedule.stop(patience_seconds=STOP_SECONDS - 4 - (time.monotonic() - began))
        self._porch.close()
        if self._dashboard is not None:
            self._dashboard.stop()
        say("Stopped." if in_time else "Stopped; what was being attributed will be done again at the next start.")
        return in_time


def _answers(client: Any, url: str) -> bool:
    import httpx

    try:
        return bool(client.get(url).status_code == 200)
    except httpx.HTTPError:
        return False


class _Api:
    """Uvicorn on a bound socket, in a thread: signals are handled by the main thread."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        import uvicorn

        from rootcost.service.http_protocol import TimedProtocol

        config = uvicorn.Config(
            app,
            http=TimedProtocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            server_header=False,
            proxy_headers=False,  # api.access.hosts believes serve.trusted_proxies, and uvicorn would believe this machine
        )
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listening])
        except BaseException:  # nothing else would report an error in this thread
            log.exception("the API stopped")

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts answering requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stops accepting requests and lets running ones finish."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(3)
