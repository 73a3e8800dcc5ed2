"""AWS Cost and Usage Reports: CUR 2.0 Data Exports and the legacy report, Parquet and CSV.

A folder or prefix is read as its manifests say: for each export and month the newest run, all of its files or nothing, in both
overwrite modes. A file named singly is its own dataset.
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
    patterns: tuple[str, ...] = ("*manifest.json", "*.parquet", "*.csv.gz", "*.csv", "*.csv.zip", "*.zip")
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

    def _single(self, fetcher: Fetcher, entry: ListedObject) -> Batch | Problem:
        try:
            return Batch(scope=entry.uri.rsplit("/", 1)[-1], objects=(fetcher.get(entry.uri),))
        except SourceError as fault:
            return Problem(self.name, entry.uri, "file", "", fault.what, fault.remedy or "try again")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The lines in FOCUS terms; lines that cannot be booked are problems."""
        tally = ProblemCounter(self.name, item.uri)
        known: list[Layout] = []
        told = {"split": 0, "savings plans": 0, "reservations": 0}

        def choose(header: list[str]) -> ColumnSelection:
            known.append(columns.layout(header, where=item.uri))
            return known[0].read

        for part in reader.batches(item, choose, tally):
            layout = known[0]
            whole = _without_splits(part, layout, told)
            _count_unpriced(whole, layout, told)
            for some in _by_arithmetic(_rename_columns(whole, layout, tally)):
                booked = charges.to_charges(_book(some, layout, tally))
                yield Reading(booked.rows, tally.drain(), booked.words)
        _report_counts(told, tally)
        yield Reading(charges.empty(), [*tally.drain(), *tally.sums()])


def _export_root(uri: str) -> str:
    """The folder of the export a manifest belongs to."""
    return uri.rsplit("/metadata/", 1)[0] if "/metadata/" in uri else uri.rsplit("/", 1)[0]


def _without_splits(part: BillBatch, layout: Layout, told: dict[str, int]) -> BillBatch:
    """Lines of split cost allocation describe a share of a parent line that is in the report too: the parent is kept."""
    name = layout.found.get("split_line_item_parent_resource_id")
    if name is None or part.words[name].null_count() == part.words.height:
        return part
    whole = part.where(part.spoken(pl.col(name).is_null()))
    told["split"] += part.rows.height - whole.rows.height
    return whole


def _count_unpriced(part: BillBatch, layout: Layout, told: dict[str, int]) -> None:
    for what, priced in commitments_priced(layout).items():
        if not priced:
            kinds = [k for k in _COMMITTED if k.startswith("SavingsPlan") == (what == "savings plans")]
            told[what] += int(part.spoken(pl.col(layout.found["line_item_line_item_type"]).is_in(kinds)).sum())


def _by_arithmetic(lines: BillBatch) -> Iterator[BillBatch]:
    """The lines, those apart whose costs are computed: they go as text, with every digit."""
    if pl.Float64 in lines.rows.dtypes:
        computed = needs_arithmetic(lines)
        if computed.any():
            few = lines.where(computed)
            yield BillBatch(few.rows.with_columns(pl.col(pl.Float64).cast(pl.String)), few.words)
            lines = lines.where(~computed)
    if lines.rows.height:
        yield lines


def _report_counts(told: dict[str, int], tally: ProblemCounter) -> None:
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


def _rename_columns(part: BillBatch, layout: Layout, tally: ProblemCounter) -> BillBatch:
    """The report's words under the names of `charges`, beside their own."""
    apart, unit = layout.read.apart, _column(layout, "pricing_unit")
    words = part.words.with_columns(
        _column(layout, theirs).alias(ours) for ours, theirs in PLAIN.items() if layout.found.get(theirs) not in apart
    )
    words = words.with_columns(
        __plan=_column(layout, "savings_plan_savings_plan_a_r_n"),
        __reserved_by=net(layout, "reservation_reservation_a_r_n"),
        __term=_column(layout, "pricing_term"),
        **{name: pl.when(IS_USED).then(unit) for name in ("consumed_unit", "pricing_unit")},
        contracted_unit_price=net(layout, "line_item_unblended_rate"),
        region_id=pl.coalesce(_column(layout, "product_region_code"), _column(layout, "product_region")),
        provider_name=pl.lit("AWS"),
        service_name=_service(part.words, layout),
        final=pl.col("invoice_id").is_not_null(),
        tags=_tags(part, layout, tally),
    )
    return BillBatch(part.rows, words.with_columns(**categories()))


def _book(lines: BillBatch, layout: Layout, tally: ProblemCounter) -> BillBatch:
    names = {ours: layout.found[theirs] for ours, theirs in PLAIN.items() if theirs in layout.found}
    lines = costs(lines, layout)
    quantity = pl.when(lines.spoken(IS_USED)).then(_column(layout, "line_item_usage_amount"))
    rows = lines.rows.with_columns(
        *(pl.col(theirs).alias(ours) for ours, theirs in names.items() if theirs in lines.rows.columns),
        consumed_quantity=quantity,
        pricing_quantity=quantity,
    )
    lines = charges.parse_types(BillBatch(rows, lines.words))
    names["billed_cost"] = layout.found["line_item_unblended_cost"]
    if lines.words.select((~IS_KNOWN).any()).item():
        strange = lines.where(lines.spoken(~IS_KNOWN))
        reason, remedy = (
            "is no line item type known here; booked as an Adjustment",
            "tell us of it, so that it gets its own category",
        )
        kinds = strange.spoken(pl.col("line_item_type"))
        tally.rows(strange.rows["__line"], kinds, names["line_item_type"], reason, remedy, severity="warning")
    return charges.check_required(lines, names, tally)


def _column(layout: Layout, name: str) -> pl.Expr:
    return pl.col(layout.found[name]) if name in layout.found else pl.lit(None, dtype=pl.String)


def _service(words: pl.DataFrame, layout: Layout) -> pl.Series:
    """The product's own name; a Marketplace model has no other. Else the known name of the product code, else the code."""
    code = _column(layout, "line_item_product_code")
    named = [_column(layout, "product_product_name"), _column(layout, "product_servicename")]
    product = layout.found.get("product")
    if product is not None and words.schema[product].is_nested():
        words = words.with_columns(__product=_entry(words[product], "product_name"))
        named.insert(0, pl.col("__product"))
    elif product is not None:
        named.insert(0, pl.col(product).str.json_path_match("$.product_name"))
    return words.select(
        service_name=pl.coalesce(*named, code.replace_strict(_SERVICES, default=None, return_dtype=pl.String), code)
    )["service_name"]


def _entry(column: pl.Series, key: str) -> pl.Series:
    found = tags.entries_of(column).filter(pl.col("key") == key).unique("row", keep="first")
    numbers = pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32)})
    return numbers.join(found, on="row", how="left", maintain_order="left")["value"]


def _tags(part: BillBatch, layout: Layout, tally: ProblemCounter) -> pl.Series:
    """Maps, JSON text and one-tag columns together, keys as the report has them."""
    words, entries = part.words, []
    for name, prefix in MAPS.items():
        spelt = layout.found.get(name)
        if spelt is None:
            continue
        column = words[spelt]
        if column.dtype == pl.String:
            column, wrong = charges.canonical_tags(column)
            kept, remedy = "the row was kept without these tags", "fetch the file again"
            charges.report_bad_tags(part, wrong, spelt, spelt, kept, remedy, tally)
            entries.append(_json_pairs(column, prefix))
        elif column.null_count() < len(column):
            entries.append(tags.entries_of(column, prefix=prefix))
    if layout.tag_columns:
        wide = words.select(pl.col(spelt).alias(key) for spelt, key in layout.tag_columns.items())
        entries.append(tags.entries_of(wide.select(tags=pl.struct(pl.all()))["tags"]))
    return tags.objects(pl.concat(entries) if entries else pl.DataFrame(), words.height)


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
