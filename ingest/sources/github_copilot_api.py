"""GitHub Copilot's bill from the billing API: AI credits by day, SKU and model, of an organisation, an enterprise or a user.

The API has no page of days: each day is a request, and so is the month, whose amounts the days must sum to. It has no currency, and
GitHub bills in dollars; it names no users, whom only the CSV report of `github-copilot` has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, Literal

from ingest.bills import api_months, paged_api, paged_rows
from ingest.bills.paged_api import Page, PageFormat
from ingest.bills.paged_rows import COSTS, TOTALS, BillMonth, JsonObject, number, plain_text, text
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading, Request
from ledger import periods
from ledger.errors import FormatError, ObjectMissingError, SourceError, StoreUnreachable
from ledger.problems import Problem
from ledger.settings import IngestSettings

_KEYS: Final = ("GITHUB_BILLING_TOKEN", "GITHUB_TOKEN")
_PATH: Final = "/settings/billing/ai_credit/usage"
_ACCOUNT = re.compile(r"/(?:organizations|enterprises|users)/(?P<name>[^/?#]+)/?$")
_ACCOUNT_FIELDS: Final = ("organization", "enterprise", "user")
_OF_DAY, _ACCOUNT_FIELD, _NET = "of_day", "account", "netAmount"
_REMAINDER: Final = "Part of the month's total that is in no day"
_HEADERS: Final = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


def _period(page: JsonObject) -> tuple[str, bool] | None:
    """The first day a page covers, and whether it covers no other; None where it states no month.

    >>> _period({"timePeriod": {"year": "2026", "month": "10", "day": "5"}}), _period({"timePeriod": {"year": "2026", "month": "9"}})
    (('2026-10-05', True), ('2026-09-01', False))
    """
    period = page.get("timePeriod")
    year, month, day = (text(period.get(name)) if isinstance(period, dict) else None for name in ("year", "month", "day"))
    if year is None or month is None:
        return None
    return f"{year}-{month.zfill(2)}-{(day or '1').zfill(2)}", day is not None


def _buckets(page: JsonObject) -> object:
    """A page as one bucket. Each result carries the page's account and, on the page of a day, that it is a part of the month."""
    period, items = _period(page), page.get("usageItems")
    if period is None or not isinstance(items, list):
        return None
    day, is_day = period
    of_page = {_ACCOUNT_FIELD: _account(page), _OF_DAY: day if is_day else None}
    return [{"day": day, "results": [item | of_page if isinstance(item, dict) else item for item in items]}]


def _account(page: JsonObject) -> str | None:
    return next(filter(None, (text(page.get(name)) for name in _ACCOUNT_FIELDS)), None)


_FORMAT: Final = PageFormat(
    source="github-copilot-api",
    start_field="day",
    end_field="day",
    parse_time=paged_api.parse_utc,
    format_time=lambda instant: instant.strftime("%Y-%m-%d"),
    group_fields=(_OF_DAY,),
    is_usage=lambda result: False,
    buckets=_buckets,
)


class GithubCopilotApi:
    """The `github-copilot-api` source."""

    name = "github-copilot-api"
    kind: Literal["bill", "log"] = "bill"
    title = "GitHub Copilot's AI credits from the billing API, by day and model"
    patterns: tuple[str, ...] = ("*.json", "*.jsonl")
    access = Access(
        needs="a token of an owner or billing manager in GITHUB_BILLING_TOKEN (else GITHUB_TOKEN)",
        policy="github.com, Settings, Developer settings, Fine-grained tokens: organisation permission Administration, read; of a user: Plan, read",
        lag=timedelta(hours=36),
        cron="37 */6 * * *",
        addresses=("https://api.github.com/organizations/acme", "saved-pages/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The months that may have changed, newest first; of a folder, its saved pages."""
        if uri.startswith(("http://", "https://")) and not _ACCOUNT.search(uri.partition("#")[0]):
            raise SourceError(
                "the address names no account",
                where=uri,
                remedy="name https://api.github.com/organizations/NAME, …/enterprises/NAME or …/users/NAME",
            )
        read_pages = partial(_read_month, fetcher)
        months = paged_api.plan_months(fetcher, _FORMAT, uri, key_names=_KEYS, costs_path=_PATH, read_pages=read_pages)
        for month_plan in months:
            account = _account_of(month_plan.item)
            yield Batch(
                scope=f"{self.name}.{account}" if account else self.name,
                objects=(month_plan.item,),
                billing_month=month_plan.month,
                problems=tuple(month_plan.problems),
                checkpoints=month_plan.checkpoints,
                exclusive=True,
            )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """One row per day, SKU and model, and one for what the days lack of their month."""
        month = paged_api.open_month(_FORMAT, item)
        counter = ProblemCounter(self.name, item.uri, place="result")
        days = month.buckets.get(COSTS, {})
        _check_days(month, item.uri)
        rows = [_row(start, result) for start, results in sorted(days.items()) for result in results]
        remainder_rows = _remainders(month)
        if remainder_rows:
            counter.add_summed(
                _NET,
                "the days of a month are not its total; the difference is a row of its own",
                "nothing to do: GitHub states the total, but not the day of the remainder",
                len(remainder_rows),
            )
        yield from paged_rows.readings(month, rows + remainder_rows, {"billed_cost": _NET, "list_cost": "grossAmount"}, counter)


def _read_month(fetcher: Fetcher, base: str, key: str, month: str) -> tuple[list[Page], Sequence[Problem]]:
    def request_period(kind: str, day: datetime | None) -> list[Page]:
        return _request_period(fetcher, f"{base}{_PATH}", key, month, kind, day)

    def request_days() -> list[Page]:
        start = periods.month_start(month)
        count = (api_months.readable_until(month) - start).days
        return [page for number in range(count) for page in request_period(COSTS, start + timedelta(days=number))]

    pages, is_consistent = paged_api.read_consistently(_FORMAT, lambda: request_period(TOTALS, None), request_days)
    problems = () if is_consistent else (paged_api.inconsistent_month_problem(_FORMAT.source, base, month),)
    return pages, problems


def _request_period(fetcher: Fetcher, url: str, key: str, month: str, kind: str, day: datetime | None) -> list[Page]:
    """The page of a day, or of the whole month. Raises `FormatError` where GitHub answers for another period."""
    year, month_number = month.split("-")
    query = [("year", year), ("month", str(int(month_number))), *([("day", str(day.day))] if day else [])]
    request = Request(url, query=query, headers=_HEADERS, secrets={"authorization": f"Bearer {key}"})
    try:
        pages = paged_api.follow_pages(fetcher, kind, lambda cursor: request)
    except ObjectMissingError as error:
        raise StoreUnreachable(
            error.what,
            where=error.where or url,
            remedy="check the account's name and that the token may read its billing: GitHub answers 404 to both",
        ) from error
    period = (day or periods.month_start(month)).strftime("%Y-%m-%d"), day is not None
    for page in pages:
        page_period = _period(paged_api.parse_page(page.content, page.uri))
        if page_period != period:
            raise FormatError(
                f"the answer's timePeriod is {page_period[0] if page_period else 'no month'}, not {period[0]} as requested",
                where=page.uri,
                remedy="try again; the response is not as documented, and nothing was booked",
            )
    return pages


def _account_of(item: RawObject) -> str | None:
    """The account of a stored month, in small letters as GitHub compares them. Raises `FormatError` where it is of several."""
    accounts = set()
    for line in item.path.read_bytes().splitlines()[1:]:
        page = paged_api.parse_page(line, item.uri).get("page")
        name = _account(page) if isinstance(page, dict) else None
        accounts.add(name.lower() if name else None)
    if len(accounts) > 1:
        raise FormatError(
            "the pages are of several accounts", where=item.uri, remedy="save the pages of each in a folder of its own"
        )
    return next(iter(accounts), None)


def _check_days(month: BillMonth, uri: str) -> None:
    """Checks that a month without a total, which would tell what a missing day cost, has every day up to its last."""
    totals = month.buckets.get(TOTALS, {})
    last_days: dict[datetime, int] = {}
    for day in sorted(month.buckets.get(COSTS, {})):
        start = day.replace(day=1)
        if start not in totals and day.day != last_days.get(start, 0) + 1:
            missing = start + timedelta(days=last_days.get(start, 0))
            raise FormatError(
                f"the page of {missing.date()} is missing", where=uri, remedy="save the page of each day, or the month's page too"
            )
        last_days[start] = day.day


def _row(start: datetime, result: JsonObject) -> dict[str, str | None]:
    """A result as a charge."""
    model, sku, product, account = (text(result.get(name)) for name in ("model", "sku", "product", _ACCOUNT_FIELD))
    meter = ", ".join(filter(None, (model.removeprefix("Auto: ") if model else None, _sku_code(sku))))
    return _charge(start, _amount_text(result, _NET), "USD") | {
        "list_cost": _amount_text(result, "grossAmount"),
        "charge_description": ", ".join(filter(None, (model, sku))) or None,
        "sku_id": sku,
        "sku_meter": meter or None,
        "product_code": product.lower() if product else None,
        "sub_account_id": account,
        "sub_account_name": account,
        "consumed_quantity": _amount_text(result, "grossQuantity"),
        "consumed_unit": text(result.get("unitType")),
        "list_unit_price": _amount_text(result, "pricePerUnit"),
    }


_charge = partial(paged_rows.usage_charge, provider="GitHub", service="GitHub Copilot")


def _sku_code(sku: str | None) -> str | None:
    """A SKU as the CSV report writes it, so that a month in both is seen to be one bill.

    >>> _sku_code("Copilot AI Credits"), _sku_code("coding_agent_ai_credit")
    ('copilot_ai_credit', 'coding_agent_ai_credit')
    """
    return sku.lower().replace(" ", "_").removesuffix("s") if sku else None


def _amount_text(result: JsonObject, name: str) -> str | None:
    return plain_text(number(result.get(name)), result.get(name))


def _amount(result: JsonObject) -> tuple[str, Decimal] | None:
    amount = number(result.get(_NET))
    return None if amount is None else ("USD", amount)


def _remainders(month: BillMonth) -> list[dict[str, str | None]]:
    """A row of the whole month for what its days lack of its total; a month without a result costs nothing."""
    rows: list[dict[str, str | None]] = []
    for start, totals in month.buckets.get(TOTALS, {}).items():
        in_days = [result for day, results in month.buckets.get(COSTS, {}).items() if _is_in(start, day) for result in results]
        account = next((result.get(_ACCOUNT_FIELD) for result in [*totals, *in_days]), None)
        whole_month = BillMonth(month.month, month.settled, {COSTS: {start: in_days}, TOTALS: {start: [*totals, {_NET: "0"}]}})
        for _, currency, remainder, _ in paged_rows.remainders(whole_month, _amount):
            rows.append(
                _row(start, {_ACCOUNT_FIELD: account})
                | _charge(start, plain_text(remainder), currency)
                | {"charge_period_end": periods.month_end(f"{start:%Y-%m}").isoformat()}
                | paged_rows.remainder_labels(_REMAINDER)
            )
    return rows


def _is_in(month_start: datetime, day: datetime) -> bool:
    return (day.year, day.month) == (month_start.year, month_start.month)


SOURCE = GithubCopilotApi()
