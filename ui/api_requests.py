"""Requests to the API through its client, cached for a few seconds, each with its URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx
import streamlit as st

from api.client import ApiProblem, Client

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8787"
TIMEOUT_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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


def api_url() -> str:
    """Where the API listens: `ROOTCOST_API_URL`, or the port of `rootcost serve`."""
    return (os.environ.get("ROOTCOST_API_URL") or DEFAULT_URL).rstrip("/")


@st.cache_resource(show_spinner=False)
def _wire(direct: bool) -> httpx.Client:
    # A proxy of the environment must not be used for a service on this machine.
    return httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=not direct)


@st.cache_data(ttl=5, max_entries=200, show_spinner=False)
def _fetch(url: str, accept: str) -> tuple[int, list[tuple[str, str]], bytes]:
    answer = _wire(httpx.URL(url).host in _LOOPBACK).get(url, headers={"Accept": accept})
    headers = [(k, v) for k, v in answer.headers.items() if k.lower() == "content-type"]
    if not answer.is_success:
        raise _ErrorAnswer(answer.status_code, headers, answer.content)
    return answer.status_code, headers, answer.content


class _CachingTransport(httpx.BaseTransport):
    """Sends GET requests through the cache and others directly; keeps the URL of the last GET."""

    def __init__(self) -> None:
        self.address = ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            headers = {
                k: v for k, v in request.headers.items() if k.lower() in ("authorization", "content-type", "content-encoding")
            }
            wire = _wire(request.url.host in _LOOPBACK)
            sent = wire.request(request.method, request.url, content=request.read(), headers=headers)
            return httpx.Response(
                sent.status_code, headers={"content-type": sent.headers.get("content-type", "")}, content=sent.content
            )
        self.address = str(request.url)
        try:
            status, answer_headers, content = _fetch(self.address, request.headers.get("accept", "*/*"))
        except _ErrorAnswer as refusal:
            status, answer_headers, content = refusal.status, refusal.headers, refusal.content
        return httpx.Response(status, headers=answer_headers, content=content)


def request(question: Callable[[Client], T]) -> Answer[T]:
    """Sends one read request to the API, e.g. ``request(lambda api: api.overview())``; raises `ApiProblem`."""
    transport = _CachingTransport()
    with httpx.Client(base_url=api_url(), transport=transport) as http:
        value = question(Client(api_url(), http=http))
    return Answer(value, transport.address)


def send_change(token: str, change: Callable[[Client], T]) -> T:
    """Sends one write request with `token`; raises `ApiProblem`. Clears the cache."""
    with httpx.Client(base_url=api_url(), transport=_CachingTransport()) as http:
        result = change(Client(api_url(), token, http=http))
    _fetch.clear()
    return result


def try_request(question: Callable[[Client], T]) -> Answer[T] | ApiProblem:
    """As `request`, for an optional part of a page: returns the problem instead of raising it."""
    try:
        return request(question)
    except ApiProblem as problem:
        return problem
