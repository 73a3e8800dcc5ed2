"""Addresses: secrets in them, which are never shown or stored, and whether one lies under another.

Secrets are recognised by the names of query parameters and by the user part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_NAME: Final = r"[\w.-]*(?:key|token|secret|password|passwd|pwd|signature|authorization|credentials?)|(?:[\w.-]*[_.-])?(?:sig|code|auth|pass|jwt|sas)"
_NO_REFERENCE: Final = r"(?!\$\{\w+\}(?:[&;#@\s'\"]|$))"
_PARAMETER: Final = re.compile(rf"([?&;#](?:{_NAME})=){_NO_REFERENCE}([^&;#\s'\"]+)", re.IGNORECASE)
_PASSWORD: Final = re.compile(rf"(://[^\s/?#@:]*:){_NO_REFERENCE}([^\s/?#@]+)(?=@)")
_USER: Final = re.compile(rf"(\bhttps?://){_NO_REFERENCE}([^\s/?#@:]+)(?=@)", re.IGNORECASE)
_HIDDEN: Final = "…"
_PATTERNS: Final = (_PARAMETER, _PASSWORD, _USER)


def masked(text: str) -> str:
    """A text with the secrets of the addresses in it replaced; without any it is as it was.

    >>> masked("https://h/v1?api_key=s3cr3t&page=2: no answer"), masked("postgresql://me:pw@host/db")
    ('https://h/v1?api_key=…&page=2: no answer', 'postgresql://me:…@host/db')
    >>> masked("https://h/f?code=abc&country=de"), masked("https://token@host/x"), masked("s3://bucket/a=b")
    ('https://h/f?code=…&country=de', 'https://…@host/x', 's3://bucket/a=b')
    >>> masked("https://h/x?key=${ACME_KEY}&sig=abc"), masked("https://me:${PASSWORD}@h/")  # a variable of the environment is named
    ('https://h/x?key=${ACME_KEY}&sig=…', 'https://me:${PASSWORD}@h/')
    """
    if "://" not in text:
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
    return text


def holds_secret(uri: str) -> bool:
    """Whether an address holds a secret.

    >>> [holds_secret(f"https://h/?{name}=1") for name in ("apikey", "X-Api-Key", "sig", "auth", "access_token", "month", "author")]
    [True, True, True, True, True, False, False]
    """
    return masked(uri) != uri


def is_under(uri: str, places: Iterable[str]) -> bool:
    """Whether an address lies under one of these folders or beginnings of addresses; links of folders are followed.

    >>> hosts = ["s3://", "https://api.openai.com", "https://h/exports"]
    >>> [is_under(uri, hosts) for uri in ("s3://b/x", "https://api.openai.com#emea", "https://h/exports/2026")]
    [True, True, True]
    >>> [is_under(uri, hosts) for uri in ("https://api.openai.com.evil/", "https://api.openai.com@evil/", "https://h/exports2", "https://h/exports/../x")]
    [False, False, False, False]
    >>> is_under("/srv/bills/../../etc/passwd", ["/srv/bills"]), is_under("bills/a.csv", ["bills"]), is_under("/srv/bills/*.csv", ["/srv/bills"])
    (False, False, True)
    """
    return any(_is_under(uri, place) for place in places)


def _is_under(uri: str, place: str) -> bool:
    if "://" not in uri:
        folder = re.split(r"[*?\[]", uri, maxsplit=1)[0]  # what stands before the first wildcard
        folder = folder if folder == uri else os.path.dirname(folder)
        if "://" in place or not os.path.isabs(uri) or ".." in uri.split("/"):
            return False
        allowed_folder = os.path.realpath(place)
        return os.path.commonpath([allowed_folder, os.path.realpath(folder)]) == allowed_folder
    if "://" not in place:
        return False
    address, beginning = urlsplit(uri), urlsplit(place)
    if address.scheme != beginning.scheme or (beginning.netloc and address.netloc != beginning.netloc):
        return False
    folder = beginning.path.rstrip("/")
    return ".." not in address.path.split("/") and (address.path == folder or address.path.startswith(f"{folder}/"))


def lacks_secret(uri: str) -> bool:
    """Whether a secret of an address was replaced (`masked`), so that nothing can be read from it.

    >>> lacks_secret("https://h/?key=…"), lacks_secret("https://h/?key=abc")
    (True, False)
    """
    return "://" in uri and _HIDDEN in uri
