"""Requests to the API through its client, cached for a few seconds and then asked for by their tag, each with its URL.

Every request carries the identity of its tab, and so does every key of the cache: what one person was answered reaches nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import httpx
import streamlit as st

from api.client import ApiProblem, Client
from api.models import Me
from ui import identity
from ui.addresses import LOOPBACK, api_url, public_address
from ui.identity import Identity
from ui.tagged_answers import Place, TaggedAnswer, TaggedAnswers

T = TypeVar("T")

TIMEOUT_SECONDS = 30.0
_TAGGED = TaggedAnswers()
_SENT_ON = ("authorization", "content-type", "content-encoding", "if-match")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer and the URL of the GET request that returned it."""

    value: T
    address: str


class _ErrorAnswer(Exception):
    """An error answer, which is not cached."""

    def __init__(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content
        super().__init__(status)


@st.cache_resource(show_spinner=False)
def _wire(direct: bool) -> httpx.Client:
    # A proxy of the environment must not be used for a service on this machine. All tabs share the connections, so these keep no cookie:
    # one that an answer set would go out with the next person's request.
    nothing_kept = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=not direct, cookies=nothing_kept)


def _send(method: str, url: httpx.URL, tab: Identity, headers: Mapping[str, str], content: bytes | None = None) -> httpx.Response:
    cookie = {"Cookie": tab.cookie} if tab.cookie else {}
    return _wire(url.host in LOOPBACK).request(method, url, content=content, headers={**headers, **cookie})


@st.cache_data(ttl=5, max_entries=200, show_spinner=False)
def _fetch(url: str, accept: str, identity_key: str, _identity: Identity) -> tuple[int, list[tuple[str, str]], bytes]:
    # `_identity` is left out of the cache's key, so that no cookie is kept in it: `identity_key`, a hash, stands for it.
    place = Place(url, accept, identity_key)
    former = _TAGGED.get(place)
    condition = {"If-None-Match": former.tag} if former else {}
    answer = _send("GET", httpx.URL(url), _identity, {"Accept": accept, **condition})
    if former and answer.status_code == HTTPStatus.NOT_MODIFIED:
        return HTTPStatus.OK, former.headers, former.content
    headers = [(k, v) for k, v in answer.headers.items() if k.lower() == "content-type"]
    if not answer.is_success:
        raise _ErrorAnswer(answer.status_code, headers, answer.content)
    if tag := answer.headers.get("etag"):
        _TAGGED.put(place, TaggedAnswer(tag, headers, answer.content))
    return answer.status_code, headers, answer.content


class _CachingTransport(httpx.BaseTransport):
    """Sends GET requests through the cache and others directly; keeps the URL of the last GET."""

    def __init__(self, tab: Identity) -> None:
        self.address = ""
        self._identity = tab

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            return self._change(request)
        self.address = str(request.url)
        try:
            status, answer_headers, content = _fetch(
                self.address, request.headers.get("accept", "*/*"), self._identity.key, self._identity
            )
        except _ErrorAnswer as refusal:
            status, answer_headers, content = refusal.status, refusal.headers, refusal.content
        return httpx.Response(status, headers=answer_headers, content=content)

    def _change(self, request: httpx.Request) -> httpx.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() in _SENT_ON}
        if "authorization" in headers:
            tab = Identity("")  # one credential, not two that may disagree
        else:
            # The tab's socket has checked its Origin; the API takes a cookie for changes only from pages of its own host.
            tab, headers = self._identity, {**headers, "Sec-Fetch-Site": "same-origin", "Origin": _origin(request.url)}
        sent = _send(request.method, request.url, tab, headers, request.read())
        return httpx.Response(
            sent.status_code, headers={"content-type": sent.headers.get("content-type", "")}, content=sent.content
        )


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def request(question: Callable[[Client], T]) -> Answer[T]:
    """Sends one read request to the API, e.g. ``request(lambda api: api.overview())``; raises `ApiProblem`."""
    transport = _CachingTransport(identity.of_tab())
    with httpx.Client(base_url=api_url(), transport=transport) as http:
        value = question(Client(api_url(), http=http))
    return Answer(value, _public(transport.address))


def file_address(question: Callable[[Client], bytes]) -> str:
    """The URL of a file, e.g. ``file_address(lambda api: api.costs_file("csv"))``, to be fetched from the API by the browser.

    Nothing is sent here. A file that the dashboard held would be open to whoever learns its URL; the API asks for the session.
    """
    urls: list[str] = []

    def note(sent: httpx.Request) -> httpx.Response:
        urls.append(str(sent.url))
        return httpx.Response(200)

    with httpx.Client(base_url=api_url(), transport=httpx.MockTransport(note)) as http:
        question(Client(api_url(), http=http))
    return _public(urls[-1])


def _public(address: str) -> str:
    return public_address(address, api=api_url(), host=urlsplit(st.context.url or "").hostname or "")


def ask_who() -> Me | ApiProblem:
    """Who the API takes the tab's identity for; asked anew each time."""
    tab = identity.of_tab()
    transport = httpx.MockTransport(lambda sent: _send("GET", sent.url, tab, {}))
    try:
        with httpx.Client(base_url=api_url(), transport=transport) as http:
            return Client(api_url(), http=http).me()
    except ApiProblem as problem:
        return problem


def log_out() -> None:
    """Ends the session of the tab, and with it every tab that has it."""
    send_change(lambda api: api.log_out())


def send_change(change: Callable[[Client], T], *, token: str = "") -> T:
    """Sends one write request with `token`, or as who is logged in without one; raises `ApiProblem`. Clears the cache."""
    with httpx.Client(base_url=api_url(), transport=_CachingTransport(identity.of_tab())) as http:
        result = change(Client(api_url(), token, http=http))
    _fetch.clear()
    return result


def try_request(question: Callable[[Client], T]) -> Answer[T] | ApiProblem:
    """As `request`, for an optional part of a page: returns the problem instead of raising it."""
    try:
        return request(question)
    except ApiProblem as problem:
        return problem
