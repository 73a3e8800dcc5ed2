"""Manifests of exports: which files make a month.

Data folders are never globbed: they may hold all earlier runs.

AWS Data Exports and legacy Cost and Usage Reports, in both overwrite modes, and Azure Cost Management exports. Manifests are
read tolerantly: `dataFiles`, `reportKeys` or `blobs`, as full addresses or as keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.source import Batch, Fetcher, ListedObject
from ledger.errors import FormatError, ObjectMissingError, SourceError
from ledger.problems import Problem

_PARTITION = re.compile(r"BILLING_PERIOD=(\d{4})-(\d{2})")
_PERIOD = re.compile(r"(?:\A|/)(\d{4})(\d{2})\d{2}-\d{8}(?:/|\Z)")
_RUN = re.compile(r"(\d{4}-?\d{2}-?\d{2}T\d{2}:?\d{2}:?\d{2}(?:\.\d+)?Z)")
_ANCHORS = (re.compile(r"\Adata\Z"), re.compile(r"\A\d{8}-\d{8}\Z"))
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One run of one export for one month; the newest run is in force. `declared` is the run's own time, as written."""

    uri: str
    scope: str
    billing_month: str
    version: str
    files: tuple[str, ...]
    declared: str
    modified: datetime
    depth: int


def is_manifest(uri: str) -> bool:
    """Whether a file name is an exporter's manifest."""
    return uri.lower().endswith("manifest.json")


def plan(fetcher: Fetcher, source: str, listing: Sequence[ListedObject]) -> Iterator[Batch | Problem]:
    """One batch per (export, month): the newest run's files, all of them, or a problem and no slice."""
    newest: dict[tuple[str, str], Manifest] = {}
    for listed_entry in listing:
        if not is_manifest(listed_entry.uri):
            continue
        try:
            manifest = read(fetcher, listed_entry)
        except SourceError as error:
            yield Problem(
                source,
                listed_entry.uri,
                "manifest",
                "",
                error.what,
                error.remedy or "wait for the next delivery, or fetch the manifest again",
            )
            continue
        if manifest is not None:
            key = (manifest.scope, manifest.billing_month)
            newest[key] = _newer_of(newest[key], manifest) if key in newest else manifest
    listed_uris = {entry.uri for entry in listing}
    for manifest in sorted(newest.values(), key=lambda m: (m.scope, m.billing_month)):
        yield _batch(fetcher, source, manifest, listed_uris)


def read(fetcher: Fetcher, entry: ListedObject) -> Manifest | None:
    """The parsed manifest; None for a JSON file that is no manifest of data files. Raises `FormatError`."""
    item = fetcher.get(entry.uri)
    try:
        manifest = json.loads(item.path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"the manifest is no JSON: {error}", where=entry.uri, remedy="fetch it again") from error
    if not isinstance(manifest, dict):
        raise FormatError("the manifest is no JSON object", where=entry.uri, remedy="name the folder of an export")
    files = manifest.get("dataFiles") or manifest.get("reportKeys") or _blobs(manifest)
    if not files and not any(key in manifest for key in ("dataFiles", "reportKeys", "blobs")):
        return None
    if not isinstance(files, list) or not all(isinstance(name, str) and name for name in files):
        raise FormatError("the manifest's list of files is no list of names", where=entry.uri, remedy="fetch it again")
    month = _month(manifest, entry.uri)
    if month is None:
        raise FormatError(
            "the manifest does not say which month it is", where=entry.uri, remedy="it should hold billingPeriod.start"
        )
    run = _dict(manifest, "runInfo")
    return Manifest(
        uri=entry.uri,
        scope=_scope(manifest, entry.uri),
        billing_month=month,
        version=str(manifest.get("executionId") or manifest.get("assemblyId") or run.get("runId") or item.version or item.raw_id),
        files=tuple(files),
        declared=str(run.get("submittedTime") or "")
        or (run_times[-1] if (run_times := _RUN.findall(entry.uri.rsplit("/", 1)[0])) else ""),
        modified=entry.modified or _NEVER,
        depth=entry.uri.count("/"),
    )


def _newer_of(one: Manifest, other: Manifest) -> Manifest:
    if one.declared and other.declared:
        return max(one, other, key=lambda m: (re.sub(r"[-:]", "", m.declared), m.modified, m.uri))
    if one.version == other.version:  # the legacy report repeats its newest manifest above the runs
        return min(one, other, key=lambda m: m.depth)
    return max(one, other, key=lambda m: (m.modified, -m.depth, m.uri))


def _batch(fetcher: Fetcher, source: str, manifest: Manifest, listed_uris: set[str]) -> Batch | Problem:
    objects = []
    for name in manifest.files:
        try:
            objects.append(fetcher.get(_resolve(name, manifest.uri, listed_uris, fetcher.manifest_locations)))
        except SourceError as error:
            missing = isinstance(error, ObjectMissingError)
            return Problem(
                source,
                manifest.uri,
                name,
                "reportKeys" if "data/" not in name else "dataFiles",
                f"the manifest names {name}, which is missing" if missing else f"{name} cannot be fetched: {error.what}",
                f"{manifest.billing_month} was left as it was; wait for the exporter to deliver again, or restore the object"
                if missing
                else f"{manifest.billing_month} was left as it was; {error.remedy or 'try again'}",
            )
    month, version = manifest.billing_month, manifest.version
    return Batch(scope=manifest.scope, objects=tuple(objects), billing_month=month, version=version, exclusive=True)


def _resolve(name: str, manifest_uri: str, listed_uris: set[str], other_locations: Sequence[str]) -> str:
    """The address of a manifest's file: as it is named, or at the same place in a copy of the export.

    Whoever can write a manifest must not have this machine's credentials read anything else: raises `FormatError` for an object that lies
    neither below what was listed, nor below the export's own prefix, nor in one of `other_locations`.
    """
    if name in listed_uris:
        return name
    bucket = "/".join(manifest_uri.split("/", 3)[:3]) if manifest_uri.startswith("s3://") else None
    if bucket and f"{bucket}/{name.lstrip('/')}" in listed_uris:
        return f"{bucket}/{name.lstrip('/')}"
    parts = name.split("/")
    anchors = [i for i, part in enumerate(parts[:-1]) if any(a.match(part) for a in _ANCHORS)]
    ending = "/" + "/".join(parts[anchors[-1] :]) if anchors else None
    copies = sorted(uri for uri in listed_uris if ending and uri.endswith(ending))
    sibling = f"{manifest_uri.rsplit('/', 1)[0]}/{parts[-1]}"
    if len(copies) == 1:
        return copies[0]
    if not anchors and sibling in listed_uris:
        return sibling
    if bucket:
        address = name if name.startswith("s3://") else f"{bucket}/{name.lstrip('/')}"
        if not any(address.startswith(f"{place.rstrip('/')}/") for place in (_export_prefix(manifest_uri), *other_locations)):
            raise FormatError(
                f"the manifest names {name}, which lies outside of its own bucket and prefix",
                where=manifest_uri,
                remedy="if it is right to read it, add its prefix to ingest.manifest_locations",
            )
        return address
    raise ObjectMissingError("no such file in this copy of the export", where=name)


def _export_prefix(manifest_uri: str) -> str:
    """The prefix of the export that a manifest belongs to: above its folder of metadata or of a period.

    >>> _export_prefix("s3://b/cur/company/metadata/BILLING_PERIOD=2026-10/Manifest.json"), _export_prefix("s3://b/cur/Manifest.json")
    ('s3://b/cur/company', 's3://b/cur')
    """
    folders = manifest_uri.split("/")[:-1]
    for position, folder in enumerate(folders):
        if folder == "metadata" or _ANCHORS[1].match(folder):
            return "/".join(folders[:position])
    return "/".join(folders)


def _month(manifest: dict[str, Any], uri: str) -> str | None:
    start = str(_dict(manifest, "billingPeriod").get("start") or _dict(manifest, "runInfo").get("startDate") or "")
    match = re.match(r"(\d{4})-?(\d{2})", start) or _PARTITION.search(uri) or _PERIOD.search(uri)
    return f"{match[1]}-{match[2]}" if match and "01" <= match[2] <= "12" else None


def _scope(manifest: dict[str, Any], uri: str) -> str:
    """The export's name with the account that owns it: two accounts may both have an export `cur`."""
    arn = str(manifest.get("exportArn") or "")
    if arn.count(":") >= 5:
        return f"{arn.split(':')[4]}.{arn.rsplit('/', 1)[-1]}"
    if manifest.get("reportName"):
        return ".".join(str(part) for part in (manifest.get("account"), manifest["reportName"]) if part)
    export_name = _dict(manifest, "exportConfig").get("exportName")
    if export_name:
        return str(export_name)
    folders = uri.split("/")[:-1]
    for i, folder in enumerate(folders):
        if folder == "metadata" or _ANCHORS[1].match(folder):
            return folders[i - 1] if i else folder
    return folders[-1] if folders else uri


def _blobs(manifest: dict[str, Any]) -> list[str] | None:
    blobs = manifest.get("blobs")
    return [str(blob.get("blobName") or "") for blob in blobs if isinstance(blob, dict)] if isinstance(blobs, list) else None


def _dict(value_map: dict[str, Any], key: str) -> dict[str, Any]:
    value = value_map.get(key)
    return value if isinstance(value, dict) else {}
