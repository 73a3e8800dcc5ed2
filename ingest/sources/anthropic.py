"""Anthropic's organisation bill: the cost report, with the usage report for its quantities.

Amounts are decimal text in cents. A month is read whole each time and replaced, because Anthropic restates up to thirty days
back. Costs are requested in groups (workspace, description) and without groups; the difference between the groups and the total
becomes a row of its own. The cost report leaves out the priority tier: its tokens are reported as a problem.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, Literal

from ingest.bills import paged_api, paged_rows
from ingest.bills.paged_api import Page, PageFormat
from ingest.bills.paged_rows import COSTS, TOTALS, USAGE, BillMonth, JsonObject, number, plain_text, text
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading, Request
from ledger import money
from ledger.money import ZERO
from ledger.problems import Problem
from ledger.settings import IngestSettings

_KEYS: Final = ("ANTHROPIC_ADMIN_KEY", "ANTHROPIC_ADMIN_API_KEY")
_COSTS_BY: Final = ("workspace_id", "description")
_USAGE_BY: Final = ("workspace_id", "model", "service_tier", "context_window", "inference_geo")
_CENTS: Final = {"USD": 2}
"""Decimal places of the currency's smallest unit, which amounts count. Anthropic bills in no other so far."""
_UNKNOWN_GEO = (None, "not_available")
_TOKEN_TYPES: Final = (
    "uncached_input_tokens",
    "cache_read_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "output_tokens",
)


def _is_usage(result: JsonObject) -> bool:
    return "uncached_input_tokens" in result


_FORMAT: Final = PageFormat(
    source="anthropic",
    start_field="starting_at",
    end_field="ending_at",
    parse_time=paged_api.parse_utc,
    format_time=lambda instant: instant.strftime("%Y-%m-%dT%H:%M:%SZ"),
    group_fields=_COSTS_BY,
    is_usage=_is_usage,
)


class Anthropic:
    """The `anthropic` source."""

    name = "anthropic"
    kind: Literal["bill", "log"] = "bill"
    title = "Anthropic costs of an organisation: its cost and usage reports"
    patterns: tuple[str, ...] = ("*.json", "*.jsonl")
    access = Access(
        needs="an admin key of the organisation (sk-ant-admin…) in ANTHROPIC_ADMIN_KEY; a workspace's key cannot read costs",
        policy="console.anthropic.com, Settings, Admin keys: a member with the admin role creates the key; it has no narrower rights",
        lag=timedelta(hours=36),
        cron="29 */6 * * *",
        addresses=("https://api.anthropic.com", "saved-pages/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The months that may have changed, newest first; of a folder, its saved pages."""
        for month_plan in paged_api.plan_months(
            fetcher,
            _FORMAT,
            uri,
            key_names=_KEYS,
            costs_path="/v1/organizations/cost_report",
            read_pages=partial(self._read_month, fetcher),
        ):
            yield Batch(
                scope=f"{self.name}.{month_plan.label}" if month_plan.label else self.name,
                objects=(month_plan.item,),
                billing_month=month_plan.month,
                problems=tuple(month_plan.problems),
                checkpoints=month_plan.checkpoints,
            )

    def _read_month(self, fetcher: Fetcher, base: str, key: str, month: str) -> tuple[list[Page], Sequence[Problem]]:
        def request_pages(endpoint: str, kind: str, group: Sequence[str]) -> list[Page]:
            url = f"{base}/v1/organizations/{endpoint}"
            return paged_api.follow_pages(fetcher, kind, partial(_request, url, key, month, group))

        return paged_api.read_month(
            _FORMAT,
            self.name,
            base,
            month,
            totals=lambda: request_pages("cost_report", TOTALS, ()),
            groups=lambda: request_pages("cost_report", COSTS, _COSTS_BY),
            usage=lambda: request_pages("usage_report/messages", USAGE, _USAGE_BY),
            without_usage=(
                "its costs are booked without quantities",
                "calls share these costs by their own tokens until the usage can be read",
            ),
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """One row per group and day, and one for the difference between a day's groups and its total."""
        month = paged_api.open_month(_FORMAT, item)
        counter = ProblemCounter(self.name, item.uri, place="result")
        usage = month.buckets.get(USAGE, {})
        rows: list[dict[str, str | None]] = []
        for start, results in sorted(month.buckets.get(COSTS, {}).items()):
            quantities = _quantities(results, usage.get(start, ()))
            rows += [_row(start, result, quantity) for result, quantity in zip(results, quantities, strict=True)]
        remainder_rows = _remainders(month)
        paged_rows.report_remainders(counter, "amount", "Anthropic", len(remainder_rows))
        _report_priority_tier(month, counter)
        yield from paged_rows.readings(
            month, rows + remainder_rows, {"billed_cost": "amount", "billing_currency": "currency"}, counter
        )


def _request(url: str, key: str, month: str, group: Sequence[str], cursor: str | None) -> Request:
    query = paged_api.daily_query(_FORMAT, month, group, cursor)
    return Request(url, query=query, headers={"anthropic-version": "2023-06-01"}, secrets={"x-api-key": key})


def _quantities(costs: Sequence[JsonObject], usage: Sequence[JsonObject]) -> list[Decimal | None]:
    """The tokens each cost of a day pays for; None where the usage report is not grouped as finely as the costs.

    >>> cost = {"model": "claude-sonnet-4-6", "token_type": "output_tokens", "service_tier": "standard", "workspace_id": None}
    >>> used = [cost | {"output_tokens": "30", "inference_geo": "us"}, cost | {"output_tokens": "12", "inference_geo": "global"}]
    >>> _quantities([cost, {"cost_type": "web_search"}], used)
    [Decimal('42'), None]
    """
    geo = any(text(cost.get("inference_geo")) not in _UNKNOWN_GEO for cost in costs)
    names = ("workspace_id", "model", "service_tier", "context_window", *(("inference_geo",) if geo else ()))

    def key(result: JsonObject, token_type: str) -> tuple[str | None, ...]:
        return (token_type, *(text(result.get(name)) for name in names))

    tokens_by_key: dict[tuple[str | None, ...], Decimal] = defaultdict(Decimal)
    for result in usage:
        for token_type in _TOKEN_TYPES:
            whole, _, part = token_type.partition(".")
            value = result.get(whole)
            tokens = number(value.get(part) if part and isinstance(value, dict) else value)
            if tokens is not None:
                tokens_by_key[key(result, token_type)] += tokens
    cost_keys = [key(cost, kind) if (kind := text(cost.get("token_type"))) else None for cost in costs]
    return [tokens_by_key.get(one) if one is not None and cost_keys.count(one) == 1 else None for one in cost_keys]


def _row(start: datetime, result: JsonObject, quantity: Decimal | None) -> dict[str, str | None]:
    """A result as a charge."""
    model, token_type, description = (text(result.get(name)) for name in ("model", "token_type", "description"))
    tier, context, geo = (text(result.get(name)) for name in ("service_tier", "context_window", "inference_geo"))
    special = (tier if tier != "standard" else None, context if context != "0-200k" else None, _speed(result))
    meter = ", ".join(filter(None, (model, token_type, *special))) if model and token_type else None
    list_cost = _in_dollars(result, "list_amount")
    return _charge(start, _in_dollars(result, "amount"), text(result.get("currency"))) | {
        "list_cost": list_cost,
        "charge_description": description,
        "sku_id": meter or description,
        "sku_meter": meter or description or text(result.get("cost_type")),
        "sub_account_id": text(result.get("workspace_id")) or "default",
        "sub_account_name": None if text(result.get("workspace_id")) else "Default workspace",
        "region_id": None if geo in (*_UNKNOWN_GEO, "global") else geo,
        "consumed_quantity": plain_text(quantity),
        "consumed_unit": "Tokens" if quantity is not None else None,
    }


def _speed(result: JsonObject) -> str | None:
    return "fast mode" if text(result.get("speed")) == "fast" else None


_charge = partial(paged_rows.usage_charge, provider="Anthropic", service="Claude API")


def _in_dollars(result: JsonObject, name: str) -> str | None:
    """An amount of cents in whole units of its currency; where its cents are unknown, text that says so.

    >>> _in_dollars({"amount": "123.78912", "currency": "USD"}, "amount"), _in_dollars({"amount": "5", "currency": "JPY"}, "amount")
    ('1.2378912', '5 (smallest units of JPY)')
    """
    raw_amount, currency = result.get(name), (text(result.get("currency")) or "").upper()
    amount = number(raw_amount)
    if amount is None:
        return text(raw_amount)
    if currency not in _CENTS:
        return f"{text(raw_amount)} (smallest units of {currency or 'an unstated currency'})"
    return plain_text(paged_rows.shift_decimal(amount, _CENTS[currency]))


def _amount(result: JsonObject) -> tuple[str, Decimal] | None:
    dollars = number(_in_dollars(result, "amount"))
    return None if dollars is None else ((text(result.get("currency")) or "").upper(), dollars)


def _remainders(month: BillMonth) -> list[dict[str, str | None]]:
    """One row for each day and currency whose groups do not add up to its total."""
    nobody: dict[str, str | None] = {"sub_account_id": None, "sub_account_name": None}
    return [
        _row(start, {}, None) | _charge(start, plain_text(remainder), currency) | paged_rows.remainder_labels() | nobody
        for start, currency, remainder, _ in paged_rows.remainders(month, _amount)
    ]


def _report_priority_tier(month: BillMonth, counter: ProblemCounter) -> None:
    """Reports the usage that the cost report leaves out: the priority tier's, which is sold by commitment."""
    tokens: dict[str, Decimal] = defaultdict(Decimal)
    for results in month.buckets.get(USAGE, {}).values():
        for result in results:
            if (text(result.get("service_tier")) or "").startswith("priority"):
                for token_type in _TOKEN_TYPES:
                    whole, _, part = token_type.partition(".")
                    value = result.get(whole)
                    token_count = number(value.get(part) if part and isinstance(value, dict) else value)
                    tokens[text(result.get("model")) or "unnamed model"] += token_count or ZERO
    for model, count in sorted(tokens.items()):
        if count:
            counter.add(
                model,
                "service_tier",
                f"{money.text(count)} tokens of the priority tier are in the usage report, and never in the cost report",
                "import the cost of the commitment from its invoice, as a FOCUS file",
                severity="warning",
            )


SOURCE = Anthropic()
