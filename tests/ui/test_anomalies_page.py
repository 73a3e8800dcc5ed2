"""The page of anomalies: its list, and one with its drivers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI

from tests.support import ui_fake_api as fake

LABELS = ["Download CSV", "Download Parquet", "Download JSON"]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return fake.make_app(further_anomalies=fake.EXPLAINED)


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with fake.serving(app) as address:
        yield address


def test_the_list_tells_each_cause_once_with_its_impact(visit: Any, url: str) -> None:
    page = visit(url, "anomalies")
    assert page.rows("Anomalies") == [
        ["coder", "Spike", "2026-10-21", "(no team)", "US$ 204.50", "US$ 51.02", "+US$ 153.48"],
        ["support-bot open", "Spike", "2026-10-12", "Care", "US$ 90.25", "US$ 40.25", "+US$ 50.00"],
    ]
    assert page.links("Anomalies") == ["", "anomalies?anomaly=a2"]
    assert page.grids["Anomalies"]["caption"] == "2 of 3; others are parts of these"
    assert [row[0] for row in visit(url, "anomalies", parts="yes").rows("Anomalies")][2:] == ["Care open"]


def test_what_is_kept_is_in_the_url_and_in_the_files(visit: Any, url: str, app: FastAPI) -> None:
    page = visit(url, "anomalies", month="2026-10", scope="agent", kind="spike", open="yes")
    query = "month=2026-10&scope=agent&kind=spike&open=true"
    assert [row[0] for row in page.rows("Anomalies")] == ["support-bot open"]
    assert page.grids["Anomalies"]["address"].startswith(f"{url}/v1/anomalies?{query}&limit=")
    files = {b.proto.label: b.proto.url for b in page.at.get("link_button")}
    assert list(files) == LABELS
    assert files["Download CSV"] == f"{url}/v1/anomalies?{query}&format=csv"
    assert "month=2026-10" in page.links("Anomalies")[0]
    assert "Choose others above" in visit(url, "anomalies", month="2026-09").words


def test_one_has_its_sentence_and_drivers_that_sum_to_its_impact(visit: Any, url: str) -> None:
    page = visit(url, "anomalies", anomaly="a2")
    assert (
        "Spike: agent support-bot cost US$ 90.25, where US$ 40.25 was expected: +US$ 50.00. It began on 2026-10-12, goes on, and is over by "
        "2026-10-17 00:00 UTC at the latest. Its owner is Care. Three chains of 60 to 72 calls instead of 10 to 20."
    ) in page.words
    exact = [row["cells"][1]["title"] for row in page.grids["Drivers"]["rows"]]
    amounts = [Decimal(text.replace("US$\xa0", "").replace("−", "-")) for text in exact]
    assert sum(amounts) == Decimal(50)
    assert page.grids["Drivers"]["footer"][0]["cells"][1]["text"].replace("\xa0", " ") == "+US$ 50.00"
    bars = json.loads(page.at.get("vega_lite_chart")[0].proto.spec)
    assert bars["encoding"]["y"]["sort"] == ["retries", "volume"]
    assert page.links("Dearest chains") == ["chains?chain=4bf92f3577b34da6a3ce929d0e0e4736%3A00f067aa0ba902b7"]
    assert page.addresses == [f"{url}/v1/anomalies?anomaly=a2&limit=100&offset=0"]


def test_what_is_not_there_is_said(visit: Any, url: str, empty_url: str) -> None:
    assert "No such anomaly" in visit(url, "anomalies", anomaly="none").words
    with fake.serving(fake.make_app(further_anomalies=[fake.RETRIES.model_copy(update={"drivers": {}})])) as older:
        assert "Attribute its month again" in visit(older, "anomalies", anomaly="a2").words
    assert "rootcost demo" in visit(empty_url, "anomalies").words


def test_others_lead_to_it(visit: Any, url: str) -> None:
    assert "anomalies?anomaly=a2" in visit(url).links("Unusual days")
    links = [one.proto.page for one in visit(url, "alerts", alert="a2").at.get("page_link")]
    assert links == ["anomalies"]
