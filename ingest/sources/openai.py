"""OpenAI's organisation bill: the costs API, with the usage API for quantities the costs leave out and as a check.

A month is read whole each time and replaced, because OpenAI restates earlier days. Costs are requested in groups (project,
line item, key) and without groups; the difference between the groups and the total becomes a row of its own.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, Literal

from ingest.bills import paged_api, paged_rows
from ingest.bills.paged_api import Page, PageFormat
from ingest.bills.paged_rows import COSTS, TOTALS, USAGE, BillMonth, JsonObject, number, plain_text, text
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading, Request
from ledger import money
from ledger.errors import StoreUnreachable
from ledger.money import ZERO
from ledger.problems import Problem
from ledger.settings import IngestSettings

_KEYS: Final = ("OPENAI_ADMIN_KEY",)
_GROUPS: Final = (("project_id", "line_item", "api_key_id"), ("project_id", "line_item"))
"""Finest first: an organisation may not be allowed to group by key."""
_USAGE_BY: Final = ("project_id", "api_key_id", "model", "batch", "service_tier")
_PLAIN_TIERS: Final = (None, "default", "standard", "auto")
_TOKENS = re.compile(r"^(?P<model>[^,|]+), (?P<words>cached input|input|output)$")
"""Line items of plain text tokens, which the usage API counts by model."""
_AGREE = Decimal("0.005")


def _moment(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _is_usage(result: JsonObject) -> bool:
    return str(result.get("object")).startswith("organization.usage")


_FORMAT: Final = PageFormat(
    source="openai",
    start_field="start_time",
    end_field="end_time",
    parse_time=_moment,
    format_time=lambda instant: str(int(instant.timestamp())),
    group_fields=_GROUPS[0],
    is_usage=_is_usage,
)


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
        """The months that may have changed, newest first; of a folder, its saved pages."""
        for month_plan in paged_api.plan_months(
            fetcher,
            _FORMAT,
            uri,
            key_names=_KEYS,
            costs_path="/v1/organization/costs",
            read_pages=partial(self._read_month, fetcher),
        ):
            bill_month = paged_api.open_month(_FORMAT, month_plan.item)
            organisation = next((name for r in _results(bill_month) if (name := text(r.get("organization_id")))), None)
            yield Batch(
                scope=f"openai.{organisation}" if organisation else "openai",
                objects=(month_plan.item,),
                billing_month=month_plan.month,
                problems=tuple(month_plan.problems),
                checkpoints=month_plan.checkpoints,
            )

    def _read_month(self, fetcher: Fetcher, base: str, key: str, month: str) -> tuple[list[Page], Sequence[Problem]]:
        def request_pages(endpoint: str, kind: str, group: Sequence[str]) -> list[Page]:
            url = f"{base}/v1/organization/{endpoint}"
            return paged_api.follow_pages(fetcher, kind, partial(_request, url, key, month, group))

        def request_groups() -> list[Page]:
            for finest in _GROUPS[:-1]:
                try:
                    return request_pages("costs", COSTS, finest)
                except StoreUnreachable as error:
                    if not error.what.startswith("400"):
                        raise
            return request_pages("costs", COSTS, _GROUPS[-1])

        return paged_api.read_month(
            _FORMAT,
            self.name,
            base,
            month,
            totals=lambda: request_pages("costs", TOTALS, ()),
            groups=request_groups,
            usage=lambda: request_pages("usage/completions", USAGE, _USAGE_BY),
            without_usage=(
                "its costs are booked",
                "nothing is lost but a check of the quantities; give the key the right to read usage",
            ),
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """One row per group and day, and one for the difference between a day's groups and its total."""
        month = paged_api.open_month(_FORMAT, item)
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


def _request(url: str, key: str, month: str, group: Sequence[str], cursor: str | None) -> Request:
    query = paged_api.daily_query(_FORMAT, month, group, cursor)
    return Request(url, query=query, secrets={"authorization": f"Bearer {key}"})


def _results(month: BillMonth) -> Iterator[JsonObject]:
    for of in (COSTS, TOTALS):
        for results in month.buckets.get(of, {}).values():
            yield from results


_Key = tuple[datetime, str | None, str | None, str, str]
"""Day, project, API key, model, and the kind of token."""


def _key(start: datetime, result: JsonObject) -> _Key | None:
    """The key that joins a cost with its usage; None where the cost is not for plain tokens."""
    item = _TOKENS.match(text(result.get("line_item")) or "")
    return (start, text(result.get("project_id")), text(result.get("api_key_id")), item["model"], item["words"]) if item else None


def _usage_by_key(month: BillMonth) -> dict[_Key, Decimal]:
    """Tokens by the usage API, keyed like line items. Batches and other tiers have line items with other names, and are left out."""
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
    """A result as a charge; `usage_quantity` is the quantity if the result states none."""
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


_charge = partial(paged_rows.usage_charge, provider="OpenAI", service="OpenAI API")


def _is_tokens(line_item: str | None) -> bool:
    return line_item is not None and re.search(r"(?:^|[\s,])(?:input|output)(?: tokens)?(?:, [\w ]+)?$", line_item) is not None


def _amount(result: JsonObject) -> tuple[str, Decimal] | None:
    amount = result.get("amount")
    value = number(amount.get("value")) if isinstance(amount, dict) else None
    currency = text(amount.get("currency")) if isinstance(amount, dict) else None
    return None if value is None or currency is None else (currency.upper(), value)


def _remainders(month: BillMonth) -> list[dict[str, str | None]]:
    """One row for each day and currency whose groups do not add up to its total."""
    rows = []
    for start, currency, remainder, total in paged_rows.remainders(month, _amount):
        organisation = {name: total.get(name) for name in ("organization_id", "organization_name")}
        rows.append(
            _row(start, organisation, None) | _charge(start, plain_text(remainder), currency) | paged_rows.remainder_labels()
        )
    return rows


def _compare(month: BillMonth, counter: ProblemCounter) -> None:
    """Reports the models whose billed quantity in the month differs from the usage API's."""
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
                "the billed quantity is used; OpenAI may restate either within days",
                severity="warning",
            )


SOURCE = OpenAi()
