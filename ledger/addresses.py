"""Secrets in addresses: recognised by the names of query parameters and by the user part, and never shown or stored."""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = r"[\w.-]*(?:key|token|secret|password|passwd|pwd|signature|authorization|credentials?)|(?:[\w.-]*[_.-])?(?:sig|code|auth|pass|jwt|sas)"
_PARAMETER: Final = re.compile(rf"([?&;#](?:{_NAME})=)([^&;#\s'\"]+)", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(://[^\s/?#@:]*:)([^\s/?#@]+)(?=@)")
_USER: Final = re.compile(r"(\bhttps?://)([^\s/?#@:]+)(?=@)", re.IGNORECASE)
_HIDDEN: Final = "…"
_PATTERNS: Final = (_PARAMETER, _PASSWORD, _USER)


def masked(text: str) -> str:
    """A text with the secrets of the addresses in it replaced; without any it is as it was.

    >>> masked("https://h/v1?api_key=s3cr3t&page=2: no answer"), masked("postgresql://me:pw@host/db")
    ('https://h/v1?api_key=…&page=2: no answer', 'postgresql://me:…@host/db')
    >>> masked("https://h/f?code=abc&country=de"), masked("https://token@host/x"), masked("s3://bucket/a=b")
    ('https://h/f?code=…&country=de', 'https://…@host/x', 's3://bucket/a=b')
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
