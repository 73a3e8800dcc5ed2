"""AWS Cost and Usage Reports: CUR 2.0 Data Exports and the legacy report, Parquet and CSV.

A folder or prefix is read by its manifests: for each export and month the newest run, all of its files or nothing, in both
overwrite modes. A single file is its own dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import polars as pl

from ingest import policies
from ingest.addresses import is_the_file
from ingest.bills import charges, manifests, reader, tags
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading
from ingest.sources.aws_cur import columns
from ingest.sources.aws_cur.columns import MAPS, PLAIN, Layout
from ingest.sources.aws_cur.costs import IS_KNOWN, IS_USED, categories, commitments_priced, costs, needs_arithmetic, net
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
    patterns: tuple[str, ...] = (
        "*manifest.json",
        "*.parquet",
        "*.csv.gz",
        "*.csv.zst",
        "*.csv.xz",
        "*.csv",
        "*.csv.zip",
        "*.zip",
    )
    access = Access(
        needs=policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=36),
        cron="7 */6 * * *",
        addresses=("cur/report.csv", "s3://bucket/exports/company-cur2/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The months of the exports below `uri`, or the single file it names."""
        listing = fetcher.list(uri)
        single = is_the_file(listing[0], uri, listing)
        if single and manifests.is_manifest(uri):
            manifest_uri = listing[0].uri
            listing = [
                e for e in fetcher.list(_export_root(manifest_uri)) if e.uri == manifest_uri or not manifests.is_manifest(e.uri)
            ]
        if any(manifests.is_manifest(entry.uri) for entry in listing):
            batches = list(manifests.plan(fetcher, self.name, listing))
            if batches:
                yield from batches
                return
        if not single and not any(mark in uri for mark in "*?["):
            raise FormatError(
                "no manifest says which of these files make a month, and reading them all could count a month twice",
                where=uri,
                remedy="name the export's own folder, the one that holds data/ and metadata/, or name single files",
            )
        yield from (self._single(fetcher, entry) for entry in listing)

    def _single(self, fetcher: Fetcher, entry: ListedObject) -> Batch | Problem:
        try:
            return Batch(scope=entry.uri.rsplit("/", 1)[-1], objects=(fetcher.get(entry.uri),), location=entry.uri)
        except SourceError as error:
            return Problem(self.name, entry.uri, "file", "", error.what, error.remedy or "try again")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The lines in FOCUS terms; lines that cannot be booked are problems."""
        counter = ProblemCounter(self.name, item.uri)
        layouts: list[Layout] = []
        counts = {"split": 0, "savings plans": 0, "reservations": 0}

        def choose(header: list[str]) -> ColumnSelection:
            layouts.append(columns.layout(header, location=item.uri))
            return layouts[0].selection

        for part in reader.batches(item, choose, counter):
            layout = layouts[0]
            unsplit = _without_splits(part, layout, counts)
            _count_unpriced(unsplit, layout, counts)
            for batch in _by_arithmetic(_rename_columns(unsplit, layout, counter)):
                charge_batch = charges.to_charges(_book(batch, layout, counter))
                yield Reading(charge_batch.rows, counter.drain(), charge_batch.dimensions)
        _report_counts(counts, counter)
        yield charges.last_reading(counter)


def _export_root(uri: str) -> str:
    """The folder of the export a manifest belongs to."""
    return uri.rsplit("/metadata/", 1)[0] if "/metadata/" in uri else uri.rsplit("/", 1)[0]


def _without_splits(part: BillBatch, layout: Layout, counts: dict[str, int]) -> BillBatch:
    """Lines of split cost allocation are shares of a parent line that the report also contains: only the parent is kept."""
    name = layout.headers.get("split_line_item_parent_resource_id")
    if name is None or part.dimensions[name].null_count() == part.dimensions.height:
        return part
    whole = part.filter(part.expand(pl.col(name).is_null()))
    counts["split"] += part.rows.height - whole.rows.height
    return whole


def _count_unpriced(part: BillBatch, layout: Layout, counts: dict[str, int]) -> None:
    for commitment, is_priced in commitments_priced(layout).items():
        if not is_priced:
            kinds = [k for k in _COMMITTED if k.startswith("SavingsPlan") == (commitment == "savings plans")]
            counts[commitment] += int(part.expand(pl.col(layout.headers["line_item_line_item_type"]).is_in(kinds)).sum())


def _by_arithmetic(batch: BillBatch) -> Iterator[BillBatch]:
    """The lines; those whose costs are computed come separately, as text with all digits."""
    if pl.Float64 in batch.rows.dtypes:
        is_computed = needs_arithmetic(batch)
        if is_computed.any():
            few = batch.filter(is_computed)
            yield BillBatch(few.rows.with_columns(pl.col(pl.Float64).cast(pl.String)), few.dimensions)
            batch = batch.filter(~is_computed)
    if batch.rows.height:
        yield batch


def _report_counts(counts: dict[str, int], counter: ProblemCounter) -> None:
    if counts["split"]:
        counter.add_summed(
            "split_line_item_parent_resource_id",
            "rows of split cost allocation were left out; their parent rows have the same cost",
            "nothing to do; or export without split cost allocation data",
            counts["split"],
        )
    for commitment in ("savings plans", "reservations"):
        if counts[commitment]:
            counter.add_summed(
                "effective_cost",
                f"the report lacks the amortisation columns of {commitment}; effective cost is as billed",
                f"add the {'savings_plan_' if commitment == 'savings plans' else 'reservation_'}* columns to the export",
                counts[commitment],
            )


def _rename_columns(part: BillBatch, layout: Layout, counter: ProblemCounter) -> BillBatch:
    """The report's dimensions under the names of `charges`, in addition to their own."""
    measures, unit = layout.selection.measures, _column(layout, "pricing_unit")
    dimensions = part.dimensions.with_columns(
        _column(layout, report_column).alias(column)
        for column, report_column in PLAIN.items()
        if layout.headers.get(report_column) not in measures
    )
    dimensions = dimensions.with_columns(
        __plan=_column(layout, "savings_plan_savings_plan_a_r_n"),
        __reserved_by=net(layout, "reservation_reservation_a_r_n"),
        __term=_column(layout, "pricing_term"),
        **{name: pl.when(IS_USED).then(unit) for name in ("consumed_unit", "pricing_unit")},
        contracted_unit_price=net(layout, "line_item_unblended_rate"),
        region_id=pl.coalesce(_column(layout, "product_region_code"), _column(layout, "product_region")),
        provider_name=pl.lit("AWS"),
        service_name=_service(part.dimensions, layout),
        final=pl.col("invoice_id").is_not_null(),
        tags=_tags(part, layout, counter),
    )
    return BillBatch(part.rows, dimensions.with_columns(**categories()))


def _book(batch: BillBatch, layout: Layout, counter: ProblemCounter) -> BillBatch:
    names = {column: layout.headers[report_column] for column, report_column in PLAIN.items() if report_column in layout.headers}
    batch = costs(batch, layout)
    quantity = pl.when(batch.expand(IS_USED)).then(_column(layout, "line_item_usage_amount"))
    rows = batch.rows.with_columns(
        *(pl.col(report_column).alias(column) for column, report_column in names.items() if report_column in batch.rows.columns),
        consumed_quantity=quantity,
        pricing_quantity=quantity,
    )
    batch = charges.parse_types(BillBatch(rows, batch.dimensions))
    names["billed_cost"] = layout.headers["line_item_unblended_cost"]
    if batch.dimensions.select((~IS_KNOWN).any()).item():
        strange = batch.filter(batch.expand(~IS_KNOWN))
        reason, remedy = (
            "is an unknown line item type; booked as an Adjustment",
            "report it, so that it gets its own category",
        )
        kinds = strange.expand(pl.col("line_item_type"))
        counter.add_rows(strange.rows["__line"], kinds, names["line_item_type"], reason, remedy, severity="warning")
    return charges.check_required(batch, names, counter)


def _column(layout: Layout, name: str) -> pl.Expr:
    return pl.col(layout.headers[name]) if name in layout.headers else pl.lit(None, dtype=pl.String)


def _service(dimensions: pl.DataFrame, layout: Layout) -> pl.Series:
    """The product's own name; a Marketplace model has no other. Else the known name of the product code, else the code."""
    code = _column(layout, "line_item_product_code")
    names = [_column(layout, "product_product_name"), _column(layout, "product_servicename")]
    product = layout.headers.get("product")
    if product is not None and dimensions.schema[product].is_nested():
        dimensions = dimensions.with_columns(__product=_entry(dimensions[product], "product_name"))
        names.insert(0, pl.col("__product"))
    elif product is not None:
        names.insert(0, pl.col(product).str.json_path_match("$.product_name"))
    return dimensions.select(
        service_name=pl.coalesce(*names, code.replace_strict(_SERVICES, default=None, return_dtype=pl.String), code)
    )["service_name"]


def _entry(column: pl.Series, key: str) -> pl.Series:
    entries = tags.entries_of(column).filter(pl.col("key") == key).unique("row", keep="first")
    numbers = pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32)})
    return numbers.join(entries, on="row", how="left", maintain_order="left")["value"]


def _tags(part: BillBatch, layout: Layout, counter: ProblemCounter) -> pl.Series:
    """Maps, JSON text and one-tag columns combined, with the report's keys."""
    dimensions, entries = part.dimensions, []
    for name, prefix in MAPS.items():
        header = layout.headers.get(name)
        if header is None:
            continue
        column = dimensions[header]
        if column.dtype == pl.String:
            column, wrong = charges.canonical_tags(column)
            consequence, remedy = "the row was kept without these tags", "fetch the file again"
            charges.report_bad_tags(part, wrong, header, header, consequence, remedy, counter)
            entries.append(_json_pairs(column, prefix))
        elif column.null_count() < len(column):
            entries.append(tags.entries_of(column, prefix=prefix))
    if layout.tag_columns:
        wide = dimensions.select(pl.col(header).alias(key) for header, key in layout.tag_columns.items())
        entries.append(tags.entries_of(wide.select(tags=pl.struct(pl.all()))["tags"]))
    return tags.objects(pl.concat(entries) if entries else pl.DataFrame(), dimensions.height)


def _json_pairs(column: pl.Series, prefix: str) -> pl.DataFrame:
    import json

    distinct = column.unique().drop_nulls()
    pairs = [(text, prefix + key, _plain(value)) for text in distinct for key, value in json.loads(text).items()]
    book = pl.DataFrame(pairs, schema={"text": pl.String, "key": pl.String, "value": pl.String}, orient="row")
    numbered_texts = pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32), "text": column}).drop_nulls()
    return (
        numbered_texts.join(book, on="text", how="inner", maintain_order="left")
        .select("row", "key", "value")
        .filter(pl.col("value") != "")
    )


def _plain(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


SOURCE = AwsCur()
