"""AWS Cost and Usage Reports: CUR 2.0 Data Exports and the legacy report, Parquet and CSV.

A folder or prefix is read as its manifests say: for each export and month the newest run, all of its files or nothing, in both
overwrite modes. A file named singly is its own dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import polars as pl

from ingest.normalise import charge_rows, cur_columns, manifests, rows, tag_maps
from ingest.normalise.cur_columns import MAPS, PLAIN, Layout
from ingest.normalise.cur_costs import IS_KNOWN, IS_USED, categories, commitments_priced, costs, net
from ingest.normalise.places import is_the_file
from ingest.normalise.tally import Tally
from ingest.source import Fetcher, Listed, RawObject, Reading, Slice
from ledger.errors import FormatError, SourceError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_SERVICES = {
    "AmazonBedrock": "Amazon Bedrock",
    "AmazonBedrockService": "Amazon Bedrock",
    "AmazonBedrockFoundationModels": "Amazon Bedrock",
    "AmazonBedrockAgentCore": "Amazon Bedrock AgentCore",
    "AmazonSageMaker": "Amazon SageMaker",
    "AmazonEC2": "Amazon Elastic Compute Cloud",
    "AmazonS3": "Amazon Simple Storage Service",
    "AWSLambda": "AWS Lambda",
}
_COMMITTED = (
    "DiscountedUsage",
    "RIFee",
    "SavingsPlanCoveredUsage",
    "SavingsPlanNegation",
    "SavingsPlanUpfrontFee",
    "SavingsPlanRecurringFee",
)


class AwsCur:
    """The `aws-cur` source."""

    name = "aws-cur"
    kind: Literal["bill", "log"] = "bill"
    title = "AWS Cost and Usage Report (CUR 2.0 and legacy), Parquet or CSV"
    patterns: tuple[str, ...] = ("*manifest.json", "*.parquet", "*.csv.gz", "*.csv", "*.csv.zip", "*.zip")

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Slice | Problem]:
        """The months of the exports below `uri`, or the single file it names."""
        listing = fetcher.list(uri)
        single = is_the_file(listing[0], uri, listing)
        if single and manifests.is_manifest(uri):
            named = listing[0].uri
            listing = [e for e in fetcher.list(_export_root(named)) if e.uri == named or not manifests.is_manifest(e.uri)]
        if any(manifests.is_manifest(entry.uri) for entry in listing):
            planned = list(manifests.plan(fetcher, self.name, listing))
            if planned:
                yield from planned
                return
        if not single and not any(mark in uri for mark in "*?["):
            raise FormatError(
                "no manifest says which of these files make a month, and reading them all could count a month twice",
                where=uri,
                remedy="name the export's own folder, the one that holds data/ and metadata/, or name single files",
            )
        yield from (self._single(fetcher, entry) for entry in listing)

    def _single(self, fetcher: Fetcher, entry: Listed) -> Slice | Problem:
        try:
            return Slice(scope=entry.uri.rsplit("/", 1)[-1], objects=(fetcher.get(entry.uri),))
        except SourceError as fault:
            return Problem(self.name, entry.uri, "file", "", fault.what, fault.remedy or "try again")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The lines in FOCUS terms; lines that cannot be booked are problems."""
        tally = Tally(self.name, item.uri)
        known: list[Layout] = []
        told = {"split": 0, "savings plans": 0, "reservations": 0}

        def choose(header: list[str]) -> list[str]:
            known.append(cur_columns.layout(header, where=item.uri))
            return known[0].read

        for batch in rows.batches(item, choose, tally):
            layout = known[0]
            whole = _without_splits(batch, layout, told)
            _count_unpriced(whole, layout, told)
            yield Reading(charge_rows.charges(_book(whole, layout, tally)), tally.drain())
        _tell(told, tally)
        yield Reading(charge_rows.empty(), [*tally.drain(), *tally.sums()])


def _export_root(uri: str) -> str:
    """The folder of the export a manifest belongs to."""
    return uri.rsplit("/metadata/", 1)[0] if "/metadata/" in uri else uri.rsplit("/", 1)[0]


def _without_splits(batch: pl.DataFrame, layout: Layout, told: dict[str, int]) -> pl.DataFrame:
    """Lines of split cost allocation describe a share of a parent line that is in the report too: the parent is kept."""
    name = layout.found.get("split_line_item_parent_resource_id")
    if name is None:
        return batch
    whole = batch.filter(pl.col(name).is_null())
    told["split"] += batch.height - whole.height
    return whole


def _count_unpriced(batch: pl.DataFrame, layout: Layout, told: dict[str, int]) -> None:
    for what, priced in commitments_priced(layout).items():
        if not priced:
            kinds = [k for k in _COMMITTED if k.startswith("SavingsPlan") == (what == "savings plans")]
            told[what] += batch.select(pl.col(layout.found["line_item_line_item_type"]).is_in(kinds).sum()).item()


def _tell(told: dict[str, int], tally: Tally) -> None:
    if told["split"]:
        tally.whole(
            "split_line_item_parent_resource_id",
            "rows of split cost allocation were left aside; their parent rows carry the same cost",
            "nothing to do; or export without split cost allocation data",
            told["split"],
        )
    for what in ("savings plans", "reservations"):
        if told[what]:
            tally.whole(
                "effective_cost",
                f"the report lacks the amortisation columns of {what}; effective cost is as billed",
                f"add the {'savings_plan_' if what == 'savings plans' else 'reservation_'}* columns to the export",
                told[what],
            )


def _book(batch: pl.DataFrame, layout: Layout, tally: Tally) -> pl.DataFrame:
    frame = batch.with_columns(_column(layout, theirs).alias(ours) for ours, theirs in PLAIN.items())
    frame = costs(frame, layout)
    quantity, unit = _column(layout, "line_item_usage_amount"), _column(layout, "pricing_unit")
    frame = frame.with_columns(
        __plan=_column(layout, "savings_plan_savings_plan_a_r_n"),
        __term=_column(layout, "pricing_term"),
        **{name: pl.when(IS_USED).then(quantity) for name in ("consumed_quantity", "pricing_quantity")},
        **{name: pl.when(IS_USED).then(unit) for name in ("consumed_unit", "pricing_unit")},
        contracted_unit_price=net(layout, "line_item_unblended_rate"),
        region_id=pl.coalesce(_column(layout, "product_region_code"), _column(layout, "product_region")),
        provider_name=pl.lit("AWS"),
        service_name=_service(batch, layout),
        final=pl.col("invoice_id").is_not_null(),
        tags=_tags(batch, layout, tally),
    )
    frame = charge_rows.typed(frame.with_columns(**categories()))
    names = {ours: layout.found[theirs] for ours, theirs in PLAIN.items() if theirs in layout.found}
    names["billed_cost"] = layout.found["line_item_unblended_cost"]
    strange = frame.filter(~IS_KNOWN)
    if strange.height:
        reason, remedy = (
            "is no line item type known here; booked as an Adjustment",
            "tell us of it, so that it gets its own category",
        )
        tally.rows(strange["__line"], strange["line_item_type"], names["line_item_type"], reason, remedy, severity="warning")
    return charge_rows.checked(frame, names, tally)


def _column(layout: Layout, name: str) -> pl.Expr:
    return pl.col(layout.found[name]) if name in layout.found else pl.lit(None, dtype=pl.String)


def _service(batch: pl.DataFrame, layout: Layout) -> pl.Series:
    """The product's own name; a Marketplace model has no other. Else the known name of the product code, else the code."""
    code = _column(layout, "line_item_product_code")
    named = [_column(layout, "product_product_name"), _column(layout, "product_servicename")]
    product = layout.found.get("product")
    if product is not None and batch.schema[product].is_nested():
        batch = batch.with_columns(__product=_entry(batch[product], "product_name"))
        named.insert(0, pl.col("__product"))
    elif product is not None:
        named.insert(0, pl.col(product).str.json_path_match("$.product_name"))
    return batch.select(
        service_name=pl.coalesce(*named, code.replace_strict(_SERVICES, default=None, return_dtype=pl.String), code)
    )["service_name"]


def _entry(column: pl.Series, key: str) -> pl.Series:
    found = tag_maps.pairs(column).filter(pl.col("key") == key).unique("row", keep="first")
    numbers = pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32)})
    return numbers.join(found, on="row", how="left", maintain_order="left")["value"]


def _tags(batch: pl.DataFrame, layout: Layout, tally: Tally) -> pl.Series:
    """All tags of a row as one JSON object. Rows repeat each other's tags: every distinct set is spelt once."""
    maps = [layout.found[name] for name in MAPS if name in layout.found]
    if not maps and not layout.tag_columns:
        return pl.Series("tags", [None], dtype=pl.String).new_from_index(0, batch.height)
    told = [batch[n] if batch.schema[n] == pl.String else tag_maps.spelt_out(batch[n]) for n in maps]
    told += [batch[n].cast(pl.String) for n in layout.tag_columns]
    looks = (
        pl.DataFrame([s.alias(str(i)) for i, s in enumerate(told)])
        .with_row_index("__at")
        .with_columns(pl.exclude("__at").fill_null("\x00"))
    )
    first = looks.select(pl.col("__at").first().over([name for name in looks.columns if name != "__at"]))["__at"]
    distinct = first.unique().sort()
    spelt = _spelt_tags(batch[distinct], layout, tally)
    return first.replace_strict(distinct, spelt, return_dtype=pl.String).alias("tags")


def _spelt_tags(batch: pl.DataFrame, layout: Layout, tally: Tally) -> pl.Series:
    """Maps, JSON text and one-tag columns together, keys as the report has them."""
    entries = []
    for name, prefix in MAPS.items():
        spelt = layout.found.get(name)
        if spelt is None:
            continue
        column = batch[spelt]
        if column.dtype == pl.String:
            column, wrong = charge_rows.canonical_tags(column)
            if wrong.any():
                bad = batch.filter(wrong)
                reason, remedy = "is no JSON object; the row was kept without these tags", "fetch the file again"
                tally.rows(bad["__line"], bad[spelt], spelt, reason, remedy, severity="warning")
            entries.append(_json_pairs(column, prefix))
        elif column.null_count() < len(column):
            entries.append(tag_maps.pairs(column, prefix=prefix))
    if layout.tag_columns:
        wide = batch.select(pl.col(spelt).cast(pl.String).alias(key) for spelt, key in layout.tag_columns.items())
        entries.append(tag_maps.pairs(wide.select(tags=pl.struct(pl.all()))["tags"]))
    return tag_maps.objects(pl.concat(entries) if entries else pl.DataFrame(), batch.height)


def _json_pairs(column: pl.Series, prefix: str) -> pl.DataFrame:
    import json

    distinct = column.unique().drop_nulls()
    pairs = [(text, prefix + key, _plain(value)) for text in distinct for key, value in json.loads(text).items()]
    book = pl.DataFrame(pairs, schema={"text": pl.String, "key": pl.String, "value": pl.String}, orient="row")
    numbered = pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32), "text": column}).drop_nulls()
    return (
        numbered.join(book, on="text", how="inner", maintain_order="left")
        .select("row", "key", "value")
        .filter(pl.col("value") != "")
    )


def _plain(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


SOURCE = AwsCur()
