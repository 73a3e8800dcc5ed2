"""Files below an address, alike for a folder and for a prefix of a bucket: what tables consist of, and where backups are kept.

A file is written whole or not at all. What was written is on disk when `sync` has returned; an object is durable when it is uploaded.
Symbolic links below a folder are neither read nor followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ledger import disk
from ledger.errors import FormatError, ObjectMissingError, StoreUnreachable, UsageError
from ledger.filesystem import make_folder, sync_folder
from ledger.s3 import s3_client
from ledger.scratch import PART_PREFIX, part_file, remove_abandoned

_CHUNK_BYTES: Final = 1 << 20
_IN_MEMORY_BYTES: Final = 16 << 20
_S3: Final = "s3://"
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


class DigestDiffersError(FormatError):
    """The bytes of a file are not those that its checksum is of."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: SHA-256 and size."""

    digest: str
    size_bytes: int


class Location(Protocol):
    """Files below an address, by their path there."""

    address: str

    def sizes(self, below: str = "") -> dict[str, int]:
        """The files below a folder of it, and their sizes; empty where there is nothing."""
        ...

    def read(self, path: str) -> Iterator[bytes]:
        """The content of a file. Raises `ObjectMissingError` if there is none."""
        ...

    def write(self, path_of: Callable[[str], str], chunks: Iterable[bytes], *, digest: str = "") -> Written:
        """Writes a file to the path that `path_of` makes of its SHA-256.

        Raises `DigestDiffersError`, and writes nothing, if `digest` is given and differs.
        """
        ...

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""
        ...

    def sync(self) -> None:
        """Returns when everything that was written or removed is durable."""
        ...


def location(address: str, options: Mapping[str, str] | None = None) -> Location:
    """A folder, or ``s3://bucket/prefix``; `options` as those of the store.

    >>> location("/backups/").address, location("s3://bucket/rootcost/").address
    ('/backups', 's3://bucket/rootcost')
    """
    if address.startswith(_S3):
        return BucketLocation(address, options or {})
    if "://" in address:
        raise UsageError(
            "is neither a folder nor s3://bucket/prefix", where=address, remedy="name a folder or s3://bucket/prefix"
        )
    return FolderLocation(Path(address).expanduser().absolute())


def fixed(path: str) -> Callable[[str], str]:
    """A path that does not depend on the content, for `Location.write`."""
    return lambda _: path


class FolderLocation:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)
        self._changed_folders: set[Path] = set()

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Location.sizes`."""
        sizes = dict[str, int]()
        for parent, _, names in os.walk(self.folder / below):
            self._changed_folders.add(Path(parent))  # perhaps by a process that was killed before it synced
            for name in names:
                path = Path(parent) / name
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and not name.startswith(PART_PREFIX):
                        sizes[path.relative_to(self.folder).as_posix()] = status.st_size
        return sizes

    def read(self, path: str) -> Iterator[bytes]:
        """See `Location.read`."""
        with _translated(f"{self.address}/{path}"):
            handle = os.open(self.folder / path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(handle, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

    def write(self, path_of: Callable[[str], str], chunks: Iterable[bytes], *, digest: str = "") -> Written:
        """See `Location.write`."""
        with _translated(self.address):
            make_folder(self.folder)
            with part_file(self.folder) as part:
                with part.open("wb") as file:
                    new_file = _copied(chunks, file.write, digest)
                    file.flush()
                    os.fsync(file.fileno())
                target = self.folder / path_of(new_file.digest)
                self._make_below(target.parent)
                part.replace(target)
            self._changed_folders.add(target.parent)
        return new_file

    def remove(self, path: str) -> None:
        """See `Location.remove`."""
        (self.folder / path).unlink(missing_ok=True)
        self._changed_folders.add((self.folder / path).parent)

    def sync(self) -> None:
        """See `Location.sync`."""
        with _translated(self.address):
            while self._changed_folders:
                folder = self._changed_folders.pop()
                if folder.exists():
                    sync_folder(folder)

    def remove_parts(self) -> None:
        """Removes files that processes left half written which are gone."""
        remove_abandoned(self.folder, f"{PART_PREFIX}*")

    def _make_below(self, folder: Path) -> None:
        """Makes a folder below this one. Raises `UsageError` if a symbolic link leads out of it."""
        existing_folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not existing_folder.resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(
                "leads out of the folder", where=str(existing_folder), remedy="remove the symbolic link and repeat the command"
            )
        make_folder(folder)


class BucketLocation:
    """A prefix of an S3 bucket. Uploads carry a SHA-256 that S3 checks."""

    def __init__(self, address: str, options: Mapping[str, str]) -> None:
        self.address = address.rstrip("/")
        self._bucket, _, prefix = self.address.removeprefix(_S3).partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = s3_client(options)

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Location.sizes`."""
        folder = f"{self._prefix}{below}/" if below else self._prefix
        with _translated(self.address):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder)
            return {
                str(entry["Key"])[len(self._prefix) :]: int(entry["Size"]) for page in pages for entry in page.get("Contents", ())
            }

    def read(self, path: str) -> Iterator[bytes]:
        """See `Location.read`."""
        with _translated(f"{self.address}/{path}"):
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)
            with contextlib.closing(response["Body"]) as body:
                yield from body.iter_chunks(_CHUNK_BYTES)

    def write(self, path_of: Callable[[str], str], chunks: Iterable[bytes], *, digest: str = "") -> Written:
        """See `Location.write`."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            new_file = _copied(chunks, file.write, digest)
            file.seek(0)
            path = path_of(new_file.digest)
            with _translated(f"{self.address}/{path}"):
                self._client.upload_fileobj(file, self._bucket, self._prefix + path, ExtraArgs={"ChecksumAlgorithm": "SHA256"})
        return new_file

    def remove(self, path: str) -> None:
        """See `Location.remove`."""
        with _translated(f"{self.address}/{path}"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + path)

    def sync(self) -> None:
        """Nothing: an object is durable when its upload is acknowledged."""


def _copied(chunks: Iterable[bytes], write: Callable[[bytes], Any], digest: str) -> Written:
    running_digest, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        running_digest.update(chunk)
        write(chunk)
        size_bytes += len(chunk)
    new_file = Written(running_digest.hexdigest(), size_bytes)
    if digest and new_file.digest != digest:
        raise DigestDiffersError(f"its SHA-256 is {new_file.digest} and should be {digest}")
    return new_file


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Errors of the system and of S3 as those that a user can act on."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectMissingError("no such file", where=address, remedy="check the address") from error
    except OSError as error:
        if disk.is_full(error):
            raise disk.disk_full(address) from error
        raise StoreUnreachable(
            error.strerror or str(error), where=address, remedy="check that the disk has room and can be read and written"
        ) from error
    except Exception as error:
        s3_error = _s3_error(error, address)
        if s3_error is None:
            raise
        raise s3_error from error


def _s3_error(error: Exception, address: str) -> StoreUnreachable | ObjectMissingError | None:
    if not address.startswith(_S3):
        return None
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            return ObjectMissingError(f"no such object ({code})", where=address, remedy="check the bucket and the prefix")
        remedy = "the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject here"
        return StoreUnreachable(f"S3 answered {code}", where=address, remedy=remedy)
    if isinstance(error, BotoCoreError | Boto3Error):
        remedy = "check the address, the endpoint (AWS_ENDPOINT_URL), the network and the AWS credentials"
        return StoreUnreachable(str(error).splitlines()[0], where=address, remedy=remedy)
    return None
