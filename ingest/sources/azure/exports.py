"""Azure Cost Management exports: selects the run of a month, and its view of cost.

Each run has a manifest that names its blobs. The newest run of an export is the month; all of its blobs are there, as large as the
manifest says, or the month stays as it was. Of one scope and month either a FOCUS export is read, or actual and amortised cost beside
each other, or one of the two: the runs that would count twice are left out and reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from ingest.source import Batch, ListedObject, RawObject
from ingest.sources.azure.rows import View
from ledger.errors import FormatError, SourceError
from ledger.problems import Problem

Get = Callable[[ListedObject], RawObject]
RunsRead = Callable[[str], str | None]

FOCUS, ACTUAL, AMORTISED = "focuscost", "actualcost", "amortizedcost"
_TYPES: Final = {FOCUS: FOCUS, ACTUAL: ACTUAL, AMORTISED: AMORTISED, "usage": ACTUAL}
"""Types of exports that are bills. Price sheets, reservation details and recommendations are not."""
_EXPORT = re.compile(r"/providers/microsoft\.costmanagement/exports/[^/]+/?$", re.IGNORECASE)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a run, as its manifest says."""

    name: str
    size: int | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one export for one month."""

    uri: str
    scope: str
    export: str
    type: str
    month: str
    run_id: str
    submitted: str
    modified: datetime
    blobs: tuple[Blob, ...]

    @property
    def age(self) -> tuple[str, datetime, str]:
        """What tells newer from older."""
        return re.sub(r"[^0-9T.]", "", self.submitted), self.modified, self.uri


def is_manifest(uri: str) -> bool:
    """Whether a name is a manifest's."""
    return uri.rsplit("/", 1)[-1].lower() in ("manifest.json", "_manifest.json")


def batches(source: str, listing: Sequence[ListedObject], get: Get, runs_read: RunsRead) -> Iterator[Batch | Problem]:
    """A batch for each scope and month, or the problem why there is none; and the exports that were left out.

    `runs_read` returns the runs that a stored scope and month was read from: those are not fetched again.
    """
    newest: dict[tuple[str, str, str, str], Run] = {}
    for entry in listing:
        if not is_manifest(entry.uri):
            continue
        try:
            run = read(entry, get(entry))
        except SourceError as error:
            yield Problem(source, entry.uri, "manifest", "", error.what, error.remedy or "run the export again")
            continue
        if run is not None:
            key = (run.scope, run.month, run.type, run.export)
            newest[key] = max(newest.get(key, run), run, key=lambda r: r.age)
    months: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(newest.values(), key=lambda r: (r.scope, r.month, r.export)):
        months.setdefault((run.scope, run.month), []).append(run)
    for runs in months.values():
        chosen, aside = _choose(runs)
        yield from (_skipped_export(source, run, chosen) for run in aside)
        version = " ".join(run.run_id for run in chosen)
        if runs_read(_checkpoint_key(chosen[0])) != version:
            yield from _batches(source, chosen, version, listing, get)


def read(entry: ListedObject, item: RawObject) -> Run | None:
    """The run a manifest describes; None for an export that is no bill. Raises `FormatError`."""
    remedy = "wait for the next run, or run the export again"
    try:
        manifest = json.loads(item.path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the manifest is no JSON: {str(error)[:120]}", where=entry.uri, remedy=remedy) from error
    config, run = _dict(manifest, "exportConfig"), _dict(manifest, "runInfo")
    kind = _TYPES.get(str(config.get("type") or "").lower())
    blobs = manifest.get("blobs") if isinstance(manifest, dict) else None
    if not config or not isinstance(blobs, list):
        raise FormatError(
            "the manifest is not of a Cost Management export", where=entry.uri, remedy="name the export's own folder"
        )
    if kind is None:
        return None
    files = [_blob(blob) for blob in blobs if isinstance(blob, dict) and blob.get("blobName")]
    count = manifest.get("blobCount")
    if len(files) != len(blobs) or (isinstance(count, int) and count != len(blobs)):
        raise FormatError(
            f"the manifest names {len(files)} blobs of {count if isinstance(count, int) else len(blobs)}",
            where=entry.uri,
            remedy=remedy,
        )
    if len(files) == 1 and files[0].rows is None:
        files = [replace(files[0], rows=_count(manifest.get("dataRowCount")))]
    return Run(
        uri=entry.uri,
        scope=_scope(config),
        export=str(config.get("exportName") or ""),
        type=kind,
        month=_month(run, entry.uri),
        run_id=str(run.get("runId") or item.raw_id),
        submitted=str(run.get("submittedTime") or ""),
        modified=entry.modified or _NEVER,
        blobs=tuple(files),
    )


def _choose(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """FOCUS has both views and is preferred. Of several exports of one type the one that ran last."""
    best: dict[str, Run] = {}
    for run in runs:
        best[run.type] = max(best.get(run.type, run), run, key=lambda r: r.age)
    kinds = (FOCUS,) if FOCUS in best else (ACTUAL, AMORTISED)
    chosen = [best[kind] for kind in kinds if kind in best]
    return chosen, [run for run in runs if run not in chosen]


def _skipped_export(source: str, run: Run, chosen: Sequence[Run]) -> Problem:
    read_instead = " and ".join(repr(other.export) for other in chosen)
    return Problem(
        source,
        run.uri,
        "manifest",
        "exportConfig.type",
        f"the export {run.export!r} also covers {run.month} of {run.scope}; {read_instead} is read instead",
        "nothing to do; or stop the export that is not needed",
        severity="warning",
    )


def _checkpoint_key(run: Run) -> str:
    return f"{run.scope}|{run.month}"


def _batches(
    source: str, runs: Sequence[Run], version: str, listing: Sequence[ListedObject], get: Get
) -> Iterator[Batch | Problem]:
    objects_by_type: dict[str, list[RawObject]] = {}
    for run in runs:
        objects = _objects(source, run, listing, get)
        if isinstance(objects, Problem):
            yield objects
            return  # one view without the other is a different bill
        objects_by_type[run.type] = objects
    if FOCUS in objects_by_type:
        objects = objects_by_type[FOCUS]
    elif {item.raw_id for item in objects_by_type.get(ACTUAL, ())} == {
        item.raw_id for item in objects_by_type.get(AMORTISED, ())
    }:
        objects = [replace(item, view=View.ACTUAL) for item in objects_by_type[ACTUAL]]  # without commitments both are equal
    elif len(objects_by_type) == 2:
        objects = [replace(item, view=View.BILLED) for item in objects_by_type[ACTUAL]]
        objects += [replace(item, view=View.EFFECTIVE) for item in objects_by_type[AMORTISED]]
    else:
        objects = [
            replace(i, view=View.ACTUAL if kind == ACTUAL else View.AMORTISED)
            for kind in objects_by_type
            for i in objects_by_type[kind]
        ]
    first = runs[0]
    # Two resource groups of one subscription buy the same SKUs; two exports of larger scopes that do are one too many.
    is_exclusive = ".resourcegroups." not in first.scope
    yield Batch(
        first.scope,
        tuple(objects),
        first.month,
        version=version,
        exclusive=is_exclusive,
        checkpoints={_checkpoint_key(first): version},
    )


def _objects(source: str, run: Run, listing: Sequence[ListedObject], get: Get) -> list[RawObject] | Problem:
    """All blobs of a run, as large as it says."""
    objects = []
    for blob in run.blobs:
        entry = _find_blob(blob.name, run.uri, listing)
        message, remedy = "", f"{run.month} was left as it was; wait for the next run, or run the export again"
        if entry is None:
            message = f"the manifest names {blob.name}, which is missing"
        else:
            try:
                item = get(entry)
            except SourceError as error:
                return Problem(
                    source, entry.uri, "blob", "", error.what, f"{run.month} was left as it was; {error.remedy or 'try again'}"
                )
            if blob.size is not None and blob.size != item.size:
                message = f"{blob.name} has {item.size} bytes, and the manifest says {blob.size}"
            objects.append(replace(item, rows=blob.rows))
        if message:
            return Problem(source, run.uri, blob.name, "blobs", message, remedy)
    return objects


def _find_blob(name: str, manifest: str, listing: Sequence[ListedObject]) -> ListedObject | None:
    """The address of a run's blob: next to its manifest, or, in a copy of the container, by the end of its name."""
    sibling = f"{manifest.rsplit('/', 1)[0]}/{name.rsplit('/', 1)[-1]}"
    by_uri = {entry.uri: entry for entry in listing}
    if sibling in by_uri:
        return by_uri[sibling]
    copies = [entry for entry in listing if entry.uri.endswith(f"/{name.lstrip('/')}")]
    return copies[0] if len(copies) == 1 else None


def _scope(config: dict[str, Any]) -> str:
    """The scope of the export: its subscription or account, not the export's name, so that both views have one scope.

    >>> _scope({"resourceId": "/subscriptions/1A/providers/Microsoft.CostManagement/exports/daily", "exportName": "daily"})
    'azure.subscriptions.1a'
    """
    resource = str(config.get("resourceId") or "")
    owner = _EXPORT.sub("", resource).strip("/").lower().removeprefix("providers/microsoft.billing/")
    return f"azure.{(owner or str(config.get('exportName') or 'export')).replace('/', '.')}"


def _month(run: dict[str, Any], uri: str) -> str:
    """The one month a run covers, from its first day on. Raises `FormatError`."""
    first, last = (re.match(r"(\d{4})-(\d{2})-(\d{2})", str(run.get(name) or "")) for name in ("startDate", "endDate"))
    if first is None:
        raise FormatError("the manifest does not say which days it covers", where=uri, remedy="it should hold runInfo.startDate")
    if first[3] != "01":
        raise FormatError(
            f"the run begins on {first[0]}, and a month is replaced whole", where=uri, remedy="export the month to date"
        )
    if last is not None and last[0][:7] != first[0][:7] and last[0] != _next_month(first[0]):
        raise FormatError(
            f"the run covers {first[0]} to {last[0]}, more than a month", where=uri, remedy="export each month by itself"
        )
    return f"{first[1]}-{first[2]}"


def _next_month(first: str) -> str:
    """The day after a month, given its first.

    >>> _next_month("2026-12-01")
    '2027-01-01'
    """
    year, month = int(first[:4]), int(first[5:7])
    return f"{year + month // 12}-{month % 12 + 1:02d}-01"


def _blob(entry: dict[str, Any]) -> Blob:
    return Blob(str(entry["blobName"]), _count(entry.get("byteCount")), _count(entry.get("dataRowCount")))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _dict(value_map: object, name: str) -> dict[str, Any]:
    value = value_map.get(name) if isinstance(value_map, dict) else None
    return value if isinstance(value, dict) else {}
