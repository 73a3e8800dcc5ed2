"""Ids by which other sources name the same request: headers that a gateway passes on, message and response ids. (CA-1a)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice

from ingest.logs.json_fields import text

HEADERS = ("x-amzn-requestid", "x-amzn-request-id", "apim-request-id", "x-request-id", "request-id")
"""Headers in which providers answer with the id of the request; gateways pass them on under prefixes of their own."""

MAX_IDS = 16
"""Further ids of one request that are kept, the first in order of text: more are no evidence but noise."""

MAX_HEADERS = 512
"""Headers of one answer that are looked at."""


def header_ids(headers: Mapping[str, object]) -> list[str]:
    """The request ids in the headers of an answer, under whatever prefix.

    >>> header_ids({"llm_provider-x-amzn-requestid": "0b1c", "date": "Tue", "REQUEST-ID": ["req_1"], "x-no-request-idea": "7"})
    ['0b1c', 'req_1']
    """
    ids: list[str] = []
    for name, value in islice(headers.items(), MAX_HEADERS):
        if _is_request_id(str(name)[-64:]):
            values = value[:MAX_IDS] if isinstance(value, (list, tuple)) else [value]
            ids += [request_id for request_id in map(text, values) if request_id]
    return ids


@lru_cache(maxsize=4096)
def _is_request_id(name: str) -> bool:
    header = name.lower().replace("_", "-")
    return any(header == header_name or header.endswith((f"-{header_name}", f".{header_name}")) for header_name in HEADERS)


def id_list(request_ids: Iterable[str | None], *, besides: Iterable[str | None] = ()) -> str | None:
    """The distinct ids as the JSON list of the column `request_ids`; None where there is none that the other id columns lack.

    >>> id_list(["req_1", None, "msg_2", "req_1"], besides=["msg_2"])
    '["req_1"]'
    """
    distinct = sorted(
        {request_id for request_id in request_ids if request_id} - {request_id for request_id in besides if request_id}
    )
    return json.dumps(distinct[:MAX_IDS], ensure_ascii=False) if distinct else None
