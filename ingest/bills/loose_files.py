"""Bill files without a manifest: which files of a folder are read, and which dataset each belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

from ingest.addresses import folder_address, folder_name, is_the_file
from ingest.source import Batch, Fetcher, ListedObject
from ledger.errors import ObjectMissingError, SourceError
from ledger.problems import Problem


def plan(
    fetcher: Fetcher, uri: str, *, source: str, patterns: Sequence[str], listing: Sequence[ListedObject] | None = None
) -> Iterator[Batch | Problem]:
    """One batch for each file that fits a pattern. A single file or a glob: each file is its own dataset; a folder is one dataset. What
    they bill says which dataset that is (`ingest.bills.datasets`).

    `listing` is what `uri` holds, if the caller has listed it already. Raises `ObjectMissingError` where no file fits.
    """
    entries = fetcher.list(uri) if listing is None else listing
    single = [entry for entry in entries if is_the_file(entry, uri, entries)]
    files = single or [entry for entry in entries if _fits(entry, patterns)]
    if not files:
        raise ObjectMissingError(
            "nothing here looks like a table", where=uri, remedy=f"files should end in {', '.join(patterns)}"
        )
    folder_scope = None if any(character in uri for character in "*?[") or single else folder_name(uri)
    for entry in files:
        try:
            item = fetcher.get(entry.uri)
        except SourceError as error:
            yield Problem(source, entry.uri, "file", "", error.what, error.remedy or "try again")
            continue
        location = folder_address(uri) if folder_scope else entry.uri
        yield Batch(scope=folder_scope or entry.uri.rsplit("/", 1)[-1], objects=(item,), location=location)


def _fits(entry: ListedObject, patterns: Sequence[str]) -> bool:
    name = entry.uri.rsplit("/", 1)[-1].lower()
    return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in patterns)
