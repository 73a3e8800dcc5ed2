"""OpenAI's organisation bill: the costs API, with the usage API for quantities the costs leave out and as a check.

A month is read whole each time and replaced, for OpenAI restates days it has told before. Costs are asked in groups (project, line
item, key) and without; what the groups lack of the total becomes a row of its own.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, Literal
from urllib.parse import urldefrag

from ingest.bills import paged_api, paged_rows
from ingest.bills.paged_api import Page, PageFormat
from ingest.bills.paged_rows import COSTS, TOTALS, USAGE, BillMonth, JsonObject, number, plain_text, text
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading, Request
from ledger import money
from ledger.errors import StoreUnreachable
from ledger.money import ZERO
from ledger.periods import month_start
from ledger.problems import Problem
from ledger.settings import IngestSettings

_KEYS: Final = ("OPENAI_ADMIN_KEY",)
_GROUPS: Final = (("project_id", "line_item", "api_key_id"), ("project_id", "line_item"))
"""Finest first: an organisation may not be allowed to group by key."""
_USAGE_BY: Final = ("project_id", "api_key_id", "model", "batch", "service_tier")
_PLAIN_TIERS: Final = (None, "default", "standard", "auto")
_LIMIT_DAYS = 31
_TOKENS = re.compile(r"^(?P<model>[^,|]+), (?P<words>cached input|input|output)$")
"""Line items of plain text tokens, those that the usage API counts by model."""
_AGREE = Decimal("0.005")


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _page_kind(page: JsonObject) -> str | None:
    """What a saved page is of: its results say it, as far as there are any."""
    results = [r for b in page.get("data") or () if isinstance(b, dict) for r in b.get("results") or () if isinstance(r, dict)]
    if any(str(r.get("object")).startswith("organization.usage") for r in results):
        return USAGE
    has_groups = any(r.get(name) is not None for r in results for name in _GROUPS[0])
    return TOTALS if results and not has_groups else COSTS


_SHAPE: Final = PageFormat("openai", "start_time", _moment, _page_kind)


class OpenAi:
    """The `openai` source."""

    name = "openai"
    kind: Literal["bill", "log"] = "bill"
    title = "OpenAI costs of an organisation: its costs and usage APIs"
    patterns: tuple[str, ...] = ("*.json", "*.jsonl")
    access = Access(
        needs="an admin key of the organisation in OPENAI_ADMIN_KEY; a project's key cannot read costs",
        policy="platform.openai.com, Settings, Organization, Admin keys: create a key with the permission api.usage.read, and no other",
        lag=timedelta(hours=36),
        cron="23 */6 * * *",
        addresses=("https://api.openai.com", "saved-pages/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The months that may have changed, newest first; of a folder, what its saved pages tell."""
        if not uri.startswith(("http://", "https://")):
            for item, stated_month in paged_api.saved_months(fetcher, _SHAPE, uri):
                yield self._slice(item, stated_month, {})
            return
        base, label = urldefrag(uri)
        base = base.rstrip("/")
        secret = {"authorization": f"Bearer {paged_api.api_key(_KEYS, label)}"}
        for month, read_at in paged_api.months_to_read(fetcher, uri):
            pages, problems = self._read_month(fetcher, base, secret, month)
            item = paged_api.store_pages(fetcher, _SHAPE, month, pages, f"{base}/v1/organization/costs?month={month}")
            yield self._slice(item, month, {f"{uri}|{month}": read_at}, problems)

    def _slice(
        self, item: RawObject, month: str | None, checkpoints: Mapping[str, str], problems: Sequence[Problem] = ()
    ) -> Batch:
        bill_month = paged_api.open_month(_SHAPE, item)
        organisation = next((o for r in _results(bill_month) if (o := text(r.get("organization_id")))), None)
        return Batch(
            scope=f"openai.{organisation}" if organisation else "openai",
            objects=(item,),
            billing_month=month,
            problems=tuple(problems),
            checkpoints=checkpoints,
        )

    def _read_month(
        self, fetcher: Fetcher, base: str, secret: Mapping[str, str], month: str
    ) -> tuple[list[Page], Sequence[Problem]]:
        def asked(endpoint: str, kind: str, group: Sequence[str]) -> list[Page]:
            return paged_api.follow_pages(
                fetcher, kind, partial(_request, f"{base}/v1/organization/{endpoint}", secret, month, group)
            )

        def grouped() -> list[Page]:
            for finest in _GROUPS[:-1]:
                try:
                    return asked("costs", COSTS, finest)
                except StoreUnreachable as error:
                    if not error.what.startswith("400"):
                        raise
            return asked("costs", COSTS, _GROUPS[-1])

        return paged_api.read_month(
            _SHAPE,
            self.name,
            base,
            month,
            totals=lambda: asked("costs", TOTALS, ()),
            groups=grouped,
            usage=lambda: asked("usage/completions", USAGE, _USAGE_BY),
            without_usage=(
                "its costs are booked",
                "nothing is lost but a check of the quantities; give the key the right to read usage",
            ),
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """A row a group and day, and a row for what the groups of a day lack of its total."""
        month = paged_api.open_month(_SHAPE, item)
        counter = ProblemCounter(self.name, item.uri, place="result")
        usage = _usage_by_key(month)
        rows = []
        for start, results in sorted(month.buckets.get(COSTS, {}).items()):
            keys = [_key(start, result) for result in results]
            rows += [
                _row(start, r, usage.get(key) if key and keys.count(key) == 1 else None)
                for key, r in zip(keys, results, strict=True)
            ]
        remainder_rows = _remainders(month)
        paged_rows.report_remainders(counter, "amount.value", "OpenAI", len(remainder_rows))
        _compare(month, counter)
        yield from paged_rows.readings(
            month, rows + remainder_rows, {"billed_cost": "amount.value", "billing_currency": "amount.currency"}, counter
        )


def _request(url: str, secret: Mapping[str, str], month: str, group: Sequence[str], cursor: str | None) -> Request:
    query = [
        ("start_time", str(int(month_start(month).timestamp()))),
        ("end_time", str(int(paged_api.readable_until(month).timestamp()))),
        ("bucket_width", "1d"),
        ("limit", str(_LIMIT_DAYS)),
        *(("group_by[]", name) for name in group),
    ]
    return Request(url, query=[*query, ("page", cursor)] if cursor else query, secrets=secret)


def _results(month: BillMonth) -> Iterator[JsonObject]:
    for of in (COSTS, TOTALS):
        for results in month.buckets.get(of, {}).values():
            yield from results


_Key = tuple[datetime, str | None, str | None, str, str]
"""Day, project, key, model, and what is counted."""


def _key(start: datetime, result: JsonObject) -> _Key | None:
    """What the usage of a cost is found by; None where it is not of plain tokens."""
    item = _TOKENS.match(text(result.get("line_item")) or "")
    return (start, text(result.get("project_id")), text(result.get("api_key_id")), item["model"], item["words"]) if item else None


def _usage_by_key(month: BillMonth) -> dict[_Key, Decimal]:
    """Tokens as the usage API counts them, in the terms of line items. Batches and other tiers have line items of other names."""
    by_key = any(text(result.get("api_key_id")) for result in _results(month))
    usage: dict[_Key, Decimal] = defaultdict(Decimal)
    for start, results in month.buckets.get(USAGE, {}).items():
        for result in results:
            model = text(result.get("model"))
            if model is None or result.get("batch") is True or text(result.get("service_tier")) not in _PLAIN_TIERS:
                continue
            input_tokens, cached_tokens, output = (
                number(result.get(n)) for n in ("input_tokens", "input_cached_tokens", "output_tokens")
            )
            cache_write_tokens, uncached_tokens = (
                number(result.get(n)) for n in ("input_cache_write_tokens", "input_uncached_tokens")
            )
            if uncached_tokens is None and input_tokens is not None:
                uncached_tokens = input_tokens - (cached_tokens or ZERO) - (cache_write_tokens or ZERO)
            for words, tokens in (("input", uncached_tokens), ("cached input", cached_tokens), ("output", output)):
                if tokens is not None:
                    key = text(result.get("api_key_id")) if by_key else None
                    usage[start, text(result.get("project_id")), key, model, words] += tokens
    return usage


def _row(start: datetime, result: JsonObject, usage_quantity: Decimal | None) -> dict[str, str | None]:
    """A result as a charge; `usage_quantity` is the quantity if the result tells none."""
    line_item, amount = text(result.get("line_item")), result.get("amount")
    value = amount.get("value") if isinstance(amount, dict) else None
    quantity = plain_text(number(result.get("quantity")) if result.get("quantity") is not None else usage_quantity)
    unit = text(result.get("quantity_unit")) or ("Tokens" if _is_tokens(line_item) else None)
    user = text(result.get("user_id"))
    cost = plain_text(number(value), value)
    return _charge(start, cost, text(amount.get("currency")) if isinstance(amount, dict) else None) | {
        "charge_description": line_item,
        "sku_id": line_item,
        "sku_meter": line_item,
        "billing_account_id": text(result.get("organization_id")),
        "billing_account_name": text(result.get("organization_name")),
        "sub_account_id": text(result.get("project_id")),
        "sub_account_name": text(result.get("project_name")),
        "principal": text(result.get("api_key_id")),
        "consumed_quantity": quantity,
        "consumed_unit": unit if quantity is not None else None,
        "tags": json.dumps({"user_id": user}, separators=(",", ":")) if user else None,
    }


def _charge(start: datetime, cost: str | None, currency: str | None) -> dict[str, str | None]:
    return paged_rows.day_period(start) | {
        "billed_cost": cost,
        "effective_cost": cost,
        "list_cost": None,
        "contracted_cost": cost,
        "billing_currency": currency.upper() if currency else None,
        "charge_category": "Usage",
        "charge_frequency": "Usage-Based",
        "provider_name": "OpenAI",
        "publisher_name": "OpenAI",
        "invoice_issuer_name": "OpenAI",
        "service_name": "OpenAI API",
        "service_category": "AI and Machine Learning",
    }


def _is_tokens(line_item: str | None) -> bool:
    return line_item is not None and re.search(r"(?:^|[\s,])(?:input|output)(?: tokens)?(?:, [\w ]+)?$", line_item) is not None


def _amount(result: JsonObject) -> tuple[str, Decimal] | None:
    amount = result.get("amount")
    value = number(amount.get("value")) if isinstance(amount, dict) else None
    currency = text(amount.get("currency")) if isinstance(amount, dict) else None
    return None if value is None or currency is None else (currency.upper(), value)


def _remainders(month: BillMonth) -> list[dict[str, str | None]]:
    """A row for each day and currency whose groups are not its total."""
    rows = []
    for start, currency, remainder, total in paged_rows.remainders(month, _amount):
        organisation = {name: total.get(name) for name in ("organization_id", "organization_name")}
        rows.append(
            _row(start, organisation, None) | _charge(start, plain_text(remainder), currency) | paged_rows.remainder_labels()
        )
    return rows


def _compare(month: BillMonth, counter: ProblemCounter) -> None:
    """Says of which models the bill counts other quantities than the usage API, over the month."""
    billed_tokens: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    used_tokens: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for start, results in month.buckets.get(COSTS, {}).items():
        for result in results:
            key, quantity = _key(start, result), number(result.get("quantity"))
            if key is not None and quantity is not None:
                billed_tokens[key[3:]] += quantity
    for usage_key, tokens in _usage_by_key(month).items():
        used_tokens[usage_key[3:]] += tokens
    for model, words in sorted(billed_tokens.keys() & used_tokens.keys()):
        billed_count, used_count = billed_tokens[model, words], used_tokens[model, words]
        if abs(billed_count - used_count) > _AGREE * max(billed_count, used_count):
            counter.add(
                f"{model}, {words}",
                "quantity",
                f"{money.text(billed_count)} tokens are billed and {money.text(used_count)} were used",
                "the bill counts; OpenAI may restate either within days",
                severity="warning",
            )


SOURCE = OpenAi()
