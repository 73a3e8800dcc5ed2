"""Every type of problem that the API answers with (RFC 9457): what it means, and what to do. `/problems/{type}` and docs/problems.md show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PATH: Final = "/problems/"
"""Where the page of a type is; the type of a problem document is its address there."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type: the statuses it comes with, its title, what it means, what to do."""

    statuses: tuple[int, ...]
    title: str
    meaning: str
    remedy: str


def _type(*statuses: int, title: str, meaning: str, remedy: str) -> ProblemType:
    return ProblemType(statuses, title, meaning, remedy)


PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {
    "answer-not-kept": _type(
        409,
        title="The answer is not kept",
        meaning="The change with this `Idempotency-Key` was made. Its answer held a secret, which is shown once and stored nowhere.",
        remedy="Look whether what was made is there; if its secret is lost, make a new one and end the old one.",
    ),
    "body-too-slow": _type(
        408,
        title="The body did not arrive in time",
        meaning="The body of the request took longer than `serve.request_seconds`.",
        remedy="Send smaller bodies, or raise the setting.",
    ),
    "budget-exceeded": _type(
        402,
        title="A budget has too little left",
        meaning="A hard budget has less left than the reservation asks for. `detail` names the budget, what is left of what, and what was asked.",
        remedy="Ask for less, wait for the next period, or have the budget raised by who `remedy` names. Sent again as it is, it is refused again.",
    ),
    "busy": _type(
        409,
        429,
        title="It is busy",
        meaning="A source of that kind is being read (409), or the bodies that are being received hold more memory than `serve.max_waiting_mb` (429).",
        remedy="Send the same again when the run has ended, or after the seconds in `Retry-After`.",
    ),
    "changed-meanwhile": _type(
        412,
        title="It has changed meanwhile",
        meaning="The change was made from a version that is no longer in force: `expected` is that one, `current` the one in force.",
        remedy="Look at `current`, and send the change again with its ETag as `If-Match`, if it is still wanted.",
    ),
    "cross-site": _type(
        403,
        title="A change from another site",
        meaning="A change with the cookie of a log-in was not made by a page of this server.",
        remedy="Programs send `Authorization: Bearer <key>` instead of a cookie.",
    ),
    "cursor": _type(
        400,
        title="The cursor is of another query",
        meaning="A cursor is taken back only as it was given out, with the same query, by the same key or person.",
        remedy="Ask again without `cursor`, from the first page on.",
    ),
    "cursor-replaced": _type(
        410,
        title="The pages were replaced",
        meaning="The page before was read from runs that have been replaced since; the next one would not fit it.",
        remedy="Ask again without `cursor`, from the first page on.",
    ),
    "denied": _type(
        403,
        title="That is not allowed",
        meaning="The roles of the key or person do not allow it. The denial is in the audit log.",
        remedy="Ask an administrator for a role that has the permission; `GET /v1/me` tells which there are.",
    ),
    "disk-full": _type(
        429,
        507,
        title="The disk is full",
        meaning="Nothing can be written. Telemetry is refused with 429, so that senders keep it and send it again.",
        remedy="Free space on the disk that is named; then nothing else needs to be done.",
    ),
    "encoding": _type(
        415,
        title="The encoding of the body is not known",
        meaning="`Content-Encoding` names a compression that is not accepted.",
        remedy="Send gzip, deflate, or no compression.",
    ),
    "exists": _type(
        409,
        title="The name is taken",
        meaning="Something of that name is in force.",
        remedy="Change it, or choose another name.",
    ),
    "format": _type(
        400,
        413,
        415,
        title="The body cannot be read",
        meaning="The body is not of the format that its type says: JSON, OTLP, CSV or a form.",
        remedy="Correct what `where` and `detail` name.",
    ),
    "http": _type(
        title="The request cannot be answered",
        meaning="What the status says; there is no more to it.",
        remedy="`/openapi.json` describes what is accepted.",
    ),
    "idempotency-key-reused": _type(
        422,
        title="The key belongs to another request",
        meaning="An `Idempotency-Key` is for one request and its repetitions; this one was sent with another body within a day.",
        remedy="Send a new key for each change.",
    ),
    "in-flight": _type(
        409,
        title="The request is being answered",
        meaning="A request with the same `Idempotency-Key` has no answer yet.",
        remedy="Send it again after the seconds in `Retry-After`; then its answer is there.",
    ),
    "internal": _type(
        500,
        title="Something is wrong inside RootCost",
        meaning="A defect. The log of `rootcost serve` has the error.",
        remedy="Please report it.",
    ),
    "invalid": _type(
        422,
        title="The request is not valid",
        meaning="A parameter or a field is unknown, missing, or not of its type; `errors` lists each of them.",
        remedy="Correct the fields that are named; `/openapi.json` describes what is accepted.",
    ),
    "login-needed": _type(
        401,
        title="Nobody is logged in",
        meaning="People are set up, and the request has neither a key nor a session that is in force.",
        remedy="Log in at `/login`, or send `Authorization: Bearer <key>`.",
    ),
    "media-type": _type(
        415,
        title="The body is of another type",
        meaning="`Content-Type` is none of those that the route takes.",
        remedy="Send a type that `remedy` names.",
    ),
    "method-not-allowed": _type(
        405,
        title="There is no such method here",
        meaning="The path exists, and does not have this method.",
        remedy="The `Allow` header names the methods there are.",
    ),
    "misdirected": _type(
        421,
        title="The request is for another host",
        meaning="The Host header is not a name of this machine, which stops pages of other sites from reading it by a name of theirs.",
        remedy="Use `http://127.0.0.1` or `http://localhost`; other names are set in `serve.allowed_hosts`.",
    ),
    "not-acceptable": _type(
        406,
        title="No accepted type is there",
        meaning="The answer is there in none of the types of the Accept header. Lists have five, other documents are JSON.",
        remedy="Accept one of the types that `remedy` names.",
    ),
    "not-found": _type(
        404,
        title="There is no such thing",
        meaning="Nothing has that name or id, or it belongs to others: what one may not see is not there.",
        remedy="Check the name; `/openapi.json` lists the paths.",
    ),
    "not-ready": _type(
        503,
        title="The service is not ready",
        meaning="The store, the database, the disk or the spool does not answer; `where` names which.",
        remedy="See the log of `rootcost serve`.",
    ),
    "precondition-needed": _type(
        428,
        title="A change says which version it changes",
        meaning="What can be changed has an ETag, and a change without `If-Match` could undo what somebody else did meanwhile.",
        remedy="Send the ETag as `If-Match`; `If-Match: *` changes whatever is there, `If-None-Match: *` makes something new.",
    ),
    "rate-limited": _type(
        429,
        title="Too many requests",
        meaning="The key or person has made `serve.requests_per_minute` requests within a minute. `RateLimit` tells with every answer how many are left.",
        remedy="Ask again after the seconds in `Retry-After`. Telemetry is never counted.",
    ),
    "spool-full": _type(
        429,
        503,
        title="The spool is full",
        meaning="Telemetry arrives faster than it is stored. Nothing that was acknowledged is lost.",
        remedy="Senders keep what they have and send it again after the seconds in `Retry-After`.",
    ),
    "store-unreachable": _type(
        503,
        title="The store does not answer",
        meaning="Tables or database cannot be reached.",
        remedy="Ask again after the seconds in `Retry-After`; `where` names the address.",
    ),
    "token-needed": _type(
        401,
        title="A key is needed",
        meaning="The key is missing or wrong.",
        remedy="Send `Authorization: Bearer <key>`: one of `rootcost keys create`, or the token of the first start in HOME/token.",
    ),
    "too-large": _type(
        413,
        title="The body is too large",
        meaning="The body is larger than `serve.max_body_mb`, after decompression.",
        remedy="Send it in parts, or raise the setting.",
    ),
    "unreachable": _type(
        title="RootCost does not answer",
        meaning="Made by the Python client, with status 0: nothing answered at the address.",
        remedy="Start `rootcost serve`, or correct the address.",
    ),
    "usage": _type(
        400,
        title="The request cannot mean anything",
        meaning="Every part is of its type, and together they mean nothing: an empty range, an unknown dimension, a currency without rates.",
        remedy="Correct what `where` names.",
    ),
}


def type_uri(kind: str) -> str:
    """The type of a problem document, which is the address of its page.

    >>> type_uri("denied")
    '/problems/denied'
    """
    return f"{PATH}{kind}"
