"""Routes of log-in and log-out, and of one-time links. They answer with pages, not with JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from api.access import cookies, pages
from api.access.forms import read_form
from api.access.hosts import Site
from ledger.access import links, passwords, sessions, users
from ledger.access.attempts import AttemptLimiter, TooManyAttemptsError
from ledger.access.principals import Principal
from ledger.books import Books
from ledger.errors import UsageError

_MAX_WAITING = 20
_BUSY_SECONDS = 5.0
T = TypeVar("T")


class LoginService:
    """What the routes of log-in share: limits of attempts, and threads of their own for passwords, which are slow to check."""

    def __init__(self, books: Books, site: Site) -> None:
        self.books, self.site = books, site
        self.providers = {provider.name: provider.title or provider.name for provider in books.settings.access.providers}
        self.attempts = AttemptLimiter()
        self._threads = anyio.CapacityLimiter(passwords.MAX_CHECKS)

    async def check(self, work: Callable[[], T]) -> T:
        """Runs a check of a password. Two run at once and twenty wait; raises `TooManyAttemptsError` beyond that."""
        if self._threads.statistics().tasks_waiting >= _MAX_WAITING:
            raise TooManyAttemptsError(_BUSY_SECONDS)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def logged_in(self, request: Request, token: str, return_to: str, *, page: Response | None = None) -> Response:
        """The answer that sets the cookie of a new session, and leads on unless there is a page. The browser's earlier session ends."""
        await self.end_session(request)
        request.app.state.authenticator.forget_people()
        address = self.site.return_address(return_to, request.scope)
        answer = page or RedirectResponse(address, 303, {"Cache-Control": "no-store"})
        hours = self.books.settings.access.session_hours
        answer.headers.append("Set-Cookie", cookies.set_session(request.scope, token, hours=hours))
        return answer

    async def end_session(self, request: Request) -> None:
        """Ends the session that the request's cookie has, if any."""
        token = cookies.session_cookie(request.scope)
        if token:
            await run_in_threadpool(partial(sessions.log_out, self.books, token, address=address_of(request)))
            request.app.state.authenticator.forget_session(token)

    async def deny(self, request: Request, status: int, reason: str) -> None:
        """Records a failed log-in."""
        denials, subject = request.app.state.denials, f"{request.method} {request.url.path}"
        await run_in_threadpool(partial(denials.note, subject, status=status, reason=reason, address=address_of(request)))


def router(service: LoginService) -> APIRouter:
    """/login, /logout and /setup."""
    routes = APIRouter(include_in_schema=False)
    _login(routes, service)
    _logout(routes, service)
    _links(routes, service)
    return routes


def _login(routes: APIRouter, service: LoginService) -> None:
    @routes.get("/login")
    def show_login(request: Request, return_to: str = "") -> Response:
        """The form; for who is logged in, the way on."""
        address = service.site.return_address(return_to, request.scope)
        principal: Principal = request.state.principal
        if principal.kind == "user":
            return pages.logged_in_page(principal.name, address)
        return pages.login_page(address, providers=service.providers)

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        """Checks name and password and opens a session."""
        form = await read_form(request)
        name, password, return_to = form.get("name", ""), form.get("password", ""), form.get("return_to", "")
        account, address = name.strip().lower(), address_of(request)
        refuse = partial(
            pages.login_page, service.site.return_address(return_to, request.scope), providers=service.providers, name=name[:200]
        )
        try:
            service.attempts.admit(account, address)
            token = await service.check(partial(users.log_in, service.books, name[:200], password, address=address))
        except TooManyAttemptsError as error:
            await service.deny(request, 429, "too many attempts to log in")
            return refuse(error=f"Too many attempts. {error.remedy.capitalize()}.", status=429, seconds=error.retry_seconds)
        if token is None:
            await service.deny(request, 401, "name or password is wrong")
            return refuse(error="Name or password is wrong.", status=401)
        service.attempts.forgive(account, address)
        return await service.logged_in(request, token, return_to)


def _logout(routes: APIRouter, service: LoginService) -> None:
    @routes.get("/logout")
    def show_logout(request: Request) -> Response:
        """The button: a link alone, which other pages could hold, ends nothing."""
        principal: Principal = request.state.principal
        if principal.kind != "user":
            return RedirectResponse("/login", 303)
        return pages.logged_in_page(principal.name, service.site.dashboard(request.scope))

    @routes.post("/logout")
    async def log_out(request: Request) -> Response:
        """Ends the session, here and in every tab. Browsers are led to the log-in, programs get 204."""
        await service.end_session(request)
        is_page = "text/html" in request.headers.get("accept", "")
        headers = {"Cache-Control": "no-store"}
        answer = RedirectResponse("/login", 303, headers) if is_page else Response(status_code=204, headers=headers)
        answer.headers.append("Set-Cookie", cookies.set_session(request.scope, "", hours=0))
        return answer


def _links(routes: APIRouter, service: LoginService) -> None:
    def gone(error: links.LinkError) -> Response:
        return pages.message_page("This link does not hold", f"{error.what.capitalize()}. {error.remedy}", status=410)

    @routes.get("/setup")
    def show_link(request: Request, token: str = "") -> Response:
        """The form of a one-time link, which does not use it."""
        try:
            return pages.password_page(links.look_at(service.books, token), token, service.site.dashboard(request.scope))
        except links.LinkError as error:
            return gone(error)

    @routes.post("/setup")
    async def use_link(request: Request) -> Response:
        """Sets the password, and so uses the link, and opens a session."""
        form = await read_form(request)
        token, name, password = form.get("token", ""), form.get("name", ""), form.get("password", "")
        address = address_of(request)
        try:
            service.attempts.admit("", address)
            link = await run_in_threadpool(links.look_at, service.books, token)
            return_to = service.site.dashboard(request.scope)
            refuse = partial(pages.password_page, link, token, return_to, name=name[:200], status=400)
            if password != form.get("repeated", password):
                return refuse(error="The two passwords differ.")
            try:
                use = partial(links.use, service.books, token, name=name, password=password, address=address)
                session_token = await service.check(use)
            except UsageError as error:
                return refuse(error=f"{error.what.capitalize()}. {error.remedy.capitalize()}.")
        except links.LinkError as error:
            await service.deny(request, 410, error.what)
            return gone(error)
        except TooManyAttemptsError as error:
            await service.deny(request, 429, "too many attempts to use a link")
            answer = pages.message_page("Too many attempts", f"{error.remedy.capitalize()}.", status=429)
            answer.headers["Retry-After"] = str(error.retry_seconds)
            return answer
        return await service.logged_in(request, session_token, "")


def address_of(request: Request) -> str:
    """The network address of the sender; behind a trusted proxy, what that says."""
    return request.client.host if request.client else ""
