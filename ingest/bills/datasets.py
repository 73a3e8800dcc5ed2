"""Which dataset a month of a bill belongs to, and what it replaces: one bill is booked once. (RA-1e)

A loose file's name says nothing about what it bills. The same address with the same payer is the same dataset. What bills the same
payer, account, SKU and period as another dataset restates it, if it repeats or corrects all of its rows; else it is refused by both
names, and `--replaces` or `--beside` decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ingest.bills import bill_overlap, repeats
from ingest.bills import month as bill_months
from ingest.bills.bill_overlap import Overlap
from ingest.bills.month import MonthBuffer
from ingest.source import Batch
from ledger.errors import UsageError
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import CHARGES, IMPORT_TOTALS, RAW_FILES


@dataclass(frozen=True, slots=True)
class Decisions:
    """The user's word on bills that meet: datasets to replace, datasets that bill something else, and whether the files are parts of one."""

    replaces: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    parts: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a month is booked. `withdrawn` are datasets whose month it takes over; not `booked`: nothing is written."""

    scope: str
    withdrawn: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    booked: bool = True

    @property
    def refused(self) -> bool:
        """Whether the month is left as it was because of an error."""
        return not self.booked and any(problem.severity == "error" for problem in self.problems)


def check_decisions(store: Store, decisions: Decisions) -> None:
    """Raises `UsageError` where a decision names a dataset that does not exist."""
    existing = {scope for scopes in _scopes_by_month(store).values() for scope in scopes}
    for option, names in (("--replaces", decisions.replaces), ("--beside", decisions.beside)):
        for name in names:
            if name not in existing:
                dataset_list = ", ".join(repr(scope) for scope in sorted(existing)) or "none"
                raise UsageError(
                    f"{option} {name!r}: there is no such dataset", remedy=f"name one of the datasets: {dataset_list}"
                )


def place(
    store: Store,
    source: str,
    batch: Batch,
    buffer: MonthBuffer,
    decisions: Decisions,
    placed_months: Collection[tuple[str, str]],
    siblings: Collection[str] = (),
) -> Placement:
    """The dataset of a batch's month. `siblings` are the datasets of other months of the same files.

    `placed_months` are the datasets and months booked by the same command: two of its files that bill the same cannot be put in order, and the
    second is refused, unless it goes on longer.
    """
    month = buffer.month
    other_scopes = _scopes_by_month(store).get(month, set())
    own = _own_scope(store, batch, buffer, other_scopes) if batch.location else batch.scope
    same_files = bill_months.files_in_other_datasets(store, own or batch.scope, month, buffer.raw_ids)
    if same_files and not any(_holds_more(store, other, buffer) for other in same_files.values()):
        return Placement(own or batch.scope)  # the same bytes twice are refused as such
    replaced_scopes = tuple(name for name in decisions.replaces if name in other_scopes and name != own)
    if replaced_scopes and batch.location and own is None:
        own, replaced_scopes = replaced_scopes[0], replaced_scopes[1:]
    decided_scopes = {own, *decisions.beside, *decisions.replaces}
    overlaps = _overlaps(store, batch, buffer, own, other_scopes - decided_scopes)
    withdrawn, problems = list(replaced_scopes), []
    uri = batch.objects[0].uri if batch.objects else batch.scope
    for other, overlap in overlaps.items():
        subject = _Subject(source, uri, own or batch.scope, other, month)
        if batch.location and (overlap.is_part or _is_superseded(store, source, other, buffer.raw_ids)):
            return Placement(own or batch.scope, (), (subject.repeated(overlap),), booked=False)
        is_later = (other, month) not in placed_months or (overlap.is_restatement and not _covers_back(store, other, buffer))
        if batch.location and overlap.is_restatement and is_later:
            withdrawn.append(other)
            problems.append(subject.restated())
        else:
            problems.append(subject.refused(overlap))
    if any(problem.severity == "error" for problem in problems):
        return Placement(own or batch.scope, (), tuple(p for p in problems if p.severity == "error"), booked=False)
    scope = own or (withdrawn.pop(0) if withdrawn else _free_name(store, batch, buffer, siblings))
    return Placement(scope, tuple(withdrawn), tuple(problems))


def withdraw(store: Store, scope: str, month: str) -> None:
    """Empties the month of the dataset."""
    partition = {"billing_month": month, "scope": scope}
    store.replace(CHARGES, CHARGES.empty(), partition, note=f"{scope} {month} withdrawn")
    store.replace(IMPORT_TOTALS, IMPORT_TOTALS.empty(), partition)


def lost_months(
    store: Store, batch: Batch, read_uris: Collection[str], buffers: Mapping[str, MonthBuffer]
) -> list[tuple[str, str]]:
    """Datasets and months that the re-read files held and hold no more: they still hold another of its months, or its rows in another.

    A file that holds the next month only, under an old name, is the next month's dataset: the earlier month stays.
    """
    if not batch.location or not buffers:
        return []
    scopes_here = _scopes_at(store, batch.location)
    by_month = {month: scopes & scopes_here for month, scopes in _scopes_by_month(store).items()}
    own_scopes = {scope for month in buffers for scope in by_month.get(month, ()) if _is_at(store, scope, month, batch.location)}
    withdrawals = []
    for month, scopes in sorted(by_month.items()):
        for scope in sorted(scopes) if month not in buffers else ():
            uris = bill_months.uris_of(store, scope, month)
            if not uris or not uris <= set(read_uris):
                continue
            stored_rows = bill_months.stored_rows(store, scope, month)
            if scope in own_scopes or any(_shares_rows(stored_rows, buffer.lazy()) for buffer in buffers.values()):
                withdrawals.append((scope, month))
    return withdrawals


def withdrawn_problem(source: str, uri: str, scope: str, month: str) -> Problem:
    """The report of a month that its file no longer holds."""
    reason = f"holds no row of {month} any more; that month of {scope!r} was withdrawn"
    return Problem(
        source, uri, month, "billing_month", reason, "nothing to do; or restore the file, and ingest again", 1, "warning"
    )


def breaks(store: Store, scope: str, buffer: MonthBuffer, broken_off: Mapping[str, str]) -> dict[str, str]:
    """The files of a month in force that broke off in this delivery, with the reason: it may not replace the month.

    `broken_off` maps addresses to reasons. A first import is kept as far as it goes, and the same bytes change nothing. Where the month
    in force ends in the same way, that is how its sender writes files, and as many rows or more replace it.
    """
    rows = bill_months.stored_rows(store, scope, buffer.month)
    raw_ids = set(rows.select("raw_id").unique().collect()["raw_id"])
    if not broken_off or not raw_ids or buffer.raw_ids <= raw_ids:
        return {}
    files = store.scan(RAW_FILES).filter(pl.col("raw_id").is_in(sorted(raw_ids)), pl.col("broken_off").is_not_null())
    earlier_reasons = set(files.select("broken_off").collect()["broken_off"])
    is_habit = rows.select(pl.len()).collect().item() <= buffer.rows
    return {uri: reason for uri, reason in broken_off.items() if not (is_habit and reason in earlier_reasons)}


def broken_off_problem(source: str, uri: str, scope: str, month: str, reason: str) -> Problem:
    """The report of a delivery that ends before its end over a month in force."""
    reason_text = f"the file breaks off ({reason}); {month} of {scope!r} was left as it was"
    return Problem(source, uri, "end of file", "", reason_text, "fetch the file again, whole, and ingest it")


@dataclass(frozen=True, slots=True)
class FolderRepeats:
    """Files of one folder that bill the same. `copies` (raw ids) are left out, months with others are refused; `problems` say so."""

    copies: frozenset[str] = frozenset()
    refused_months: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


def repeated_files(
    source: str, group: Sequence[Batch], buffers: Mapping[str, MonthBuffer], decisions: Decisions
) -> FolderRepeats:
    """The files of a folder without a manifest that are one bill twice: none of its money may count twice, as if they were parts."""
    names = {item.raw_id: item.uri for batch in group for item in batch.objects}
    if len(names) < 2 or decisions.parts or any(batch.billing_month for batch in group):
        return FolderRepeats()
    by_month = {
        month: repeats.find(buffer.lazy(), buffer.rows) for month, buffer in sorted(buffers.items()) if len(buffer.raw_ids) > 1
    }
    months_of = {raw_id: {m for m, buffer in buffers.items() if raw_id in buffer.raw_ids} for raw_id in names}
    copies: dict[str, str] = {}
    for raw_id in names:
        originals = {file.other for files in by_month.values() for file in files if file.raw_id == raw_id and file.is_copy}
        months = {month for month, files in by_month.items() if any(f.raw_id == raw_id and f.is_copy for f in files)}
        if months == months_of[raw_id] and originals:
            copies[raw_id] = min(originals)
    problems = [_copy_problem(source, names[raw_id], names[original]) for raw_id, original in sorted(copies.items())]
    refused_months = set()
    for month, files in by_month.items():
        for file in files:
            if file.raw_id not in copies and file.other not in copies:
                refused_months.add(month)
                problems.append(_same_bill_problem(source, names[file.raw_id], names[file.other], month))
    return FolderRepeats(frozenset(copies), frozenset(refused_months), tuple(problems))


def _copy_problem(source: str, uri: str, original: str) -> Problem:
    reason = f"all of its rows are in {original.rsplit('/', 1)[-1]!r} too; it was not booked again"
    return Problem(source, uri, "file", "billing_account_id", reason, "nothing to do; or take one of the two away", 1, "warning")


def _same_bill_problem(source: str, uri: str, other: str, month: str) -> Problem:
    name, other_name = (address.rsplit("/", 1)[-1] for address in (uri, other))
    reason = f"{name!r} and {other_name!r} of one folder bill the same rows of {month} with other amounts; the month was left as it was"
    remedy = "take the older of the two away; if they are parts of one bill, name it: --scope NAME"
    return Problem(source, uri, month, "billing_account_id", reason, remedy)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A delivery and the dataset it meets, for the reports."""

    source: str
    uri: str
    scope: str
    other: str
    month: str

    def repeated(self, overlap: Overlap) -> Problem:
        subject = "all of its rows are" if overlap.is_part else "a later file restated it, and is"
        reason = f"{subject} in force for {self.month} as {self.other!r}; it was not booked again"
        remedy = f"nothing to do; or --replaces {self.other!r}, if this file is the right one"
        return Problem(self.source, self.uri, self.month, "billing_account_id", reason, remedy, 1, "warning")

    def restated(self) -> Problem:
        reason = f"bills the same payer, accounts, SKUs and period as {self.other!r}, and replaced it for {self.month}"
        remedy = f"nothing to do; or --beside {self.other!r}, if the two bill different things"
        return Problem(self.source, self.uri, self.month, "billing_account_id", reason, remedy, 1, "warning")

    def refused(self, overlap: Overlap) -> Problem:
        reason = (
            f"{self.other!r} is in force for {self.month} and bills the same payer, accounts, SKUs and period "
            f"({overlap.covered} of its {overlap.total}); beside it, {self.scope!r} would count twice"
        )
        remedy = f"--replaces {self.other!r} puts this one in its place; --beside {self.other!r} books both, if they bill different things"
        return Problem(self.source, self.uri, self.month, "billing_account_id", reason, remedy)


def _scopes_by_month(store: Store) -> dict[str, set[str]]:
    table = store.delta(CHARGES)
    scopes: dict[str, set[str]] = {}
    for partition in [] if table is None else table.partitions():
        scopes.setdefault(str(partition["billing_month"]), set()).add(str(partition["scope"]))
    return scopes


def _own_scope(store: Store, batch: Batch, buffer: MonthBuffer, scopes: Collection[str]) -> str | None:
    """The dataset in force that was read from the batch's address and bills a payer or a SKU's period of the buffer."""
    for scope in sorted(_scopes_at(store, batch.location) & set(scopes), key=lambda name: (name != batch.scope, name)):
        if not _is_at(store, scope, buffer.month, batch.location):
            continue
        stored_rows, new_rows = bill_months.stored_rows(store, scope, buffer.month), buffer.lazy()
        if bill_overlap.payers(stored_rows) & bill_overlap.payers(new_rows) or _shares_rows(stored_rows, new_rows):
            return scope
    return None


def _shares_rows(stored_rows: pl.LazyFrame, new_rows: pl.LazyFrame) -> bool:
    """Whether a SKU's period costs the same in both, whoever the payer is: then the payer was corrected."""
    keys = ["sku_meter", "sku_id", "sub_account_id", "charge_period_start", "billed_cost"]
    stored_rows = stored_rows.filter(pl.col("billed_cost") != 0, pl.coalesce("sku_meter", "sku_id").is_not_null())
    return (
        stored_rows.select(keys).join(new_rows.select(keys), on=keys, how="semi", nulls_equal=True).limit(1).collect().height > 0
    )


def _scopes_at(store: Store, location: str) -> set[str]:
    """The datasets of loose files that were ever read from an address."""
    is_here = (pl.col("uri") == location) | pl.col("uri").str.starts_with(f"{location}/")
    is_here &= pl.col("version").is_null() | pl.col("uri").str.starts_with("s3://")  # a local file with a version is an export's
    return set(store.scan(RAW_FILES).filter(is_here).select("scope").unique().collect()["scope"])


def _is_at(store: Store, scope: str, month: str, location: str) -> bool:
    """Whether all rows of the month were read from the address: a part of an export is not the export."""
    uris = bill_months.uris_of(store, scope, month)
    return bool(uris) and all(uri == location or uri.startswith(f"{location}/") for uri in uris)


def _overlaps(
    store: Store, batch: Batch, buffer: MonthBuffer, own: str | None, other_scopes: Collection[str]
) -> dict[str, Overlap]:
    """The datasets that bill what the buffer bills, unless the own dataset in force does so already."""
    if not batch.location:
        return {}
    overlaps: dict[str, Overlap] = {}
    for other in sorted(other_scopes):
        stored_rows = bill_months.stored_rows(store, other, buffer.month)
        overlap = bill_overlap.compare(stored_rows, buffer.lazy())
        if overlap is None:
            continue
        in_force = bill_months.stored_rows(store, own, buffer.month) if own else None
        if in_force is None or bill_overlap.compare(stored_rows, in_force) is None:
            overlaps[other] = overlap
    return overlaps


def _holds_more(store: Store, other: str, buffer: MonthBuffer) -> bool:
    """Whether the buffer was read from all files of the dataset and more: a folder that was moved and grew."""
    stored_rows = bill_months.stored_rows(store, other, buffer.month).select("raw_id").unique().collect()
    return set(stored_rows["raw_id"]) < buffer.raw_ids


def _is_superseded(store: Store, source: str, other: str, raw_ids: Collection[str]) -> bool:
    """Whether these bytes were booked in the dataset before, and are no longer in force there."""
    files = store.scan(RAW_FILES, {"source": [source]}).filter(pl.col("scope") == other).select("raw_id").collect()
    return set(raw_ids) <= set(files["raw_id"])


def _covers_back(store: Store, other: str, buffer: MonthBuffer) -> bool:
    """Whether the dataset bills all that the buffer bills: then neither goes on longer."""
    overlap = bill_overlap.compare(buffer.lazy(), bill_months.stored_rows(store, other, buffer.month))
    return overlap is not None and overlap.is_restatement


def _free_name(store: Store, batch: Batch, buffer: MonthBuffer, siblings: Collection[str]) -> str:
    """The file's name; with its folder where another file's dataset has that name; with the payer where this very address bills two.

    A name is free if no dataset has it, or if all its months were read from this address and bill this payer.
    """
    by_month = _scopes_by_month(store)
    name = batch.location.rstrip("/").rsplit("/", 1)[-1]
    folder = batch.location.rstrip("/").rsplit("/", 2)[-2] if batch.location.count("/") > 1 else ""
    payers = bill_overlap.payers(buffer.lazy())
    payer = " ".join(str(part) for part in min(payers, key=str) if part) if payers else ""
    candidates = [batch.scope, f"{folder}/{name}", f"{name} ({payer})", f"{folder}/{name} ({payer})", batch.location]
    for candidate in candidates:
        months = [month for month, scopes in by_month.items() if candidate in scopes]
        if candidate in siblings and buffer.month not in months:
            return candidate
        if all(_is_alike(store, candidate, month, batch.location, payers, buffer.month) for month in months):
            return candidate
    return f"{batch.location} ({payer})"


def _is_alike(
    store: Store, scope: str, month: str, location: str, payers: set[tuple[str, str | None]], buffer_month: str
) -> bool:
    rows = bill_months.stored_rows(store, scope, month)
    return month != buffer_month and _is_at(store, scope, month, location) and bool(bill_overlap.payers(rows) & payers)
