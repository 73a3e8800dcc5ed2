"""Routes of log-in at a provider of OpenID Connect: on the way there, and back. They answer with pages, not with JSON."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from api.access import cookies, pages
from api.access.hosts import origin_of
from api.routes.login import LoginService, address_of
from ledger.access import pending_logins, provider_logins
from ledger.access.attempts import DEPARTURES, AttemptLimiter, TooManyAttemptsError
from ledger.access.pending_logins import PendingRow
from ledger.access.provider_logins import ProviderIdentity
from ledger.errors import DeniedError

if TYPE_CHECKING:
    from api.access.oidc import OidcClient

_FAILED: Final = "You are not logged in"
_SHOWN_GROUPS: Final = 20
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


def router(service: LoginService) -> APIRouter:
    """/login/{provider} and /login/{provider}/callback; both unknown where no provider is set up."""
    routes = APIRouter(include_in_schema=False)
    clients = _clients(service)
    departures = AttemptLimiter(address_limit=DEPARTURES)

    @routes.get("/login/{provider}")
    async def depart(request: Request, provider: str, return_to: str = "") -> Response:
        """Sends the browser to the provider."""
        if (client := clients.get(provider)) is None:
            return pages.message_page(_FAILED, "There is no such provider.", status=404)
        try:
            departures.admit("", address_of(request))
            return await _departure(service, client, request, return_to)
        except TooManyAttemptsError as error:
            return await _refuse(service, request, 429, f"{error.remedy.capitalize()}.", seconds=error.retry_seconds)

    @routes.get("/login/{provider}/callback")
    async def come_back(request: Request, provider: str) -> Response:
        """Checks what the provider sends with the browser, and opens a session."""
        if (client := clients.get(provider)) is None:
            return pages.message_page(_FAILED, "There is no such provider.", status=404)
        return await _return(service, client, request)

    return routes


def _clients(service: LoginService) -> dict[str, OidcClient]:
    providers = service.books.settings.access.providers
    if not providers:
        return {}
    from api.access.oidc import OidcClient

    return {provider.name: OidcClient(provider) for provider in providers}


async def _departure(service: LoginService, client: OidcClient, request: Request, return_to: str) -> Response:
    from api.access.oidc import ProviderError

    try:
        departure = await client.depart(_redirect_uri(client, request))
    except ProviderError as error:
        return await _refuse(service, request, 502, str(error))
    seconds = int(pending_logins.LIFE.total_seconds())
    browser, header = cookies.set_login_secret(request.scope, seconds=seconds)
    row = PendingRow(departure.nonce, departure.verifier, service.site.return_address(return_to, request.scope))
    keep = partial(pending_logins.keep_login, service.books, client.provider.name, row, state=departure.state, browser=browser)
    await run_in_threadpool(keep)
    answer = RedirectResponse(departure.url, 302, {"Cache-Control": "no-store"})
    answer.headers.append("Set-Cookie", header)
    return answer


async def _return(service: LoginService, client: OidcClient, request: Request) -> Response:
    from api.access.oidc import ProviderError

    query, browser = request.query_params, cookies.login_secret(request.scope)
    take = partial(pending_logins.take_login, service.books, client.provider.name, state=query.get("state", ""), browser=browser)
    pending = await run_in_threadpool(take)
    if pending is None:
        sentence = "This log-in was used, has expired, or was begun in another browser. Log in again."
        return await _refuse(service, request, 400, sentence)
    if "error" in query or not client.is_issuer(query.get("iss", client.provider.issuer)):
        code = query.get("error", "the answer is of another provider")
        reason = f": {code}" if _ERROR_CODE.fullmatch(code) else ""
        return await _refuse(service, request, 403, f"{client.title} did not log you in{reason}.")
    try:
        identity = await client.identify(
            query.get("code", ""), redirect_uri=_redirect_uri(client, request), nonce=pending.nonce, verifier=pending.verifier
        )
        log_in = partial(provider_logins.log_in, service.books, identity, address=address_of(request))
        login = await run_in_threadpool(log_in)
    except ProviderError as error:
        return await _refuse(service, request, 403 if error.is_refusal else 502, str(error))
    except DeniedError as error:
        return await _refuse(service, request, 403, f"{error.what}: {error.remedy}.")
    page = None
    if not login.has_roles:
        address = service.site.return_address(pending.return_to, request.scope)
        page = pages.no_roles_page(login.name, _why_nothing(client, identity), address)
    return await service.logged_in(request, login.token, pending.return_to, page=page)


def _why_nothing(client: OidcClient, identity: ProviderIdentity) -> str:
    if identity.are_groups_missing:
        return (
            f"{client.title} did not say which groups are yours: they are more than it sends. Ask an administrator there to send "
            "only those of this application, or an administrator here for a role of your own."
        )
    if not identity.groups:
        return f"{client.title} named no group of yours. Ask an administrator for a role."
    names = ", ".join(identity.groups[:_SHOWN_GROUPS])
    more = f" and {len(identity.groups) - _SHOWN_GROUPS} more" if len(identity.groups) > _SHOWN_GROUPS else ""
    return f"No role belongs to your groups at {client.title}: {names}{more}. Ask an administrator to map one."


async def _refuse(service: LoginService, request: Request, status: int, sentence: str, *, seconds: int = 0) -> Response:
    await service.deny(request, status, sentence)
    answer = pages.message_page(_FAILED, sentence, status=status)
    if seconds:
        answer.headers["Retry-After"] = str(seconds)
    return answer


def _redirect_uri(client: OidcClient, request: Request) -> str:
    return f"{origin_of(request.scope)}/login/{client.provider.name}/callback"
