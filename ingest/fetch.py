"""Access to the outside: local files, folders and globs, ``s3://``, and HTTP.

Local files are read in place. A remote object is downloaded once a run to ``HOME/raw/<source>/<sha256>-<name>``, under a
temporary name until it is complete. Bills stay there for replay if the settings say so; token logs never do.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ingest.http import HttpClient
from ingest.source import ListedObject, RawObject, Request, Window
from ledger.addresses import masked
from ledger.errors import ObjectMissingError, SourceError, StoreUnreachable
from ledger.problems import Problem
from ledger.scratch import Scratch, part_file
from ledger.settings import Settings

if TYPE_CHECKING:
    from botocore.client import BaseClient

_CHUNK = 1 << 20
_ATTEMPTS = 4
_MD5 = re.compile("[0-9a-f]{32}")
_GLOB = re.compile(r"[*?\[]")
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})


class WorldFetcher:
    """Fetches what users name. One per run: an object is downloaded once, and `close` deletes temporary files.

    `source` names the folder below ``HOME/raw``; `keep` says whether downloads stay (see `ingest.keep_raw`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: str = "objects",
        keep: bool = True,
        window: Window | None = None,
        checkpoints: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.window = window or Window()
        self.manifest_locations = tuple(settings.ingest.manifest_locations)
        self.links_left_out: dict[str, str] = {}
        """Symbolic links that lead out of the folders that were listed, and where they lead to."""
        self._checkpoints = dict(checkpoints or {})
        self._http: HttpClient | None = None
        self._scratch = None if keep else Scratch("fetch")
        self._temporary = self._scratch.path if self._scratch is not None else None
        self._folder = self._temporary or settings.home / "raw" / source
        self._fetched: dict[str, RawObject] = {}
        self._numbers = itertools.count(1)
        self._s3: BaseClient | None = None

    def list(self, uri: str) -> Sequence[ListedObject]:
        """What a file, folder, glob or prefix holds, in name order. A prefix is a folder: ``s3://b/cur`` is not ``s3://b/cur-old``."""
        if uri.startswith("s3://"):
            return self._list_s3(uri)
        path = Path(uri).expanduser()
        try:
            if path.is_file():
                return [_listed_file(path)]
            if path.is_dir():
                paths = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
                folder = path
            else:
                paths = [Path(p) for p in sorted(glob(str(path), recursive=True)) if Path(p).is_file()]
                folder = Path(_GLOB.split(str(path), maxsplit=1)[0] + "x").parent
            listing = [_listed_file(p) for p in paths if self._stays_below(folder, p)]
        except OSError as error:
            raise StoreUnreachable(error.strerror or str(error), where=uri, remedy="check that the folder can be read") from error
        if not listing:
            reason = "the folder holds no files" if path.is_dir() else "no such file or folder"
            raise ObjectMissingError(reason, where=uri, remedy="check the path; globs need quotes in a shell")
        return listing

    def _stays_below(self, folder: Path, path: Path) -> bool:
        """Whether a file lies in a folder also when links are followed. What leads out of it is noted."""
        if self.settings.ingest.follow_links:
            return True
        target = path.resolve()
        if target.is_relative_to(folder.resolve()):
            return True
        self.links_left_out[path.absolute().as_posix()] = target.as_posix()
        return False

    def link_problems(self, source: str) -> Iterator[Problem]:
        """The symbolic links that were left out since the last call."""
        while self.links_left_out:
            link, target = self.links_left_out.popitem()
            reason = f"is a symbolic link that leads out of the folder, to {target}; it was not read"
            remedy = "put the file itself there, or set ingest.follow_links"
            yield Problem(source, link, "file", "", reason, remedy, severity="warning")

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        """Folders and objects right below an ``s3://`` prefix; a local folder is listed as a whole."""
        if not uri.startswith("s3://"):
            return [], self.list(uri)
        bucket, key = _bucket_and_key(uri)
        stem = f"{key.rstrip('/')}/" if key else ""
        folders, objects = list[str](), list[ListedObject]()
        with _TranslatedErrors(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=stem, Delimiter="/"):
                folders += [f"s3://{bucket}/{below['Prefix']}" for below in page.get("CommonPrefixes", ())]
                objects += [
                    _listed_in_bucket(bucket, entry) for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")
                ]
        return sorted(folders), sorted(objects, key=lambda entry: entry.uri)

    def get(self, uri: str) -> RawObject:
        """The bytes of one object, on this machine. Raises `ObjectMissingError` or `StoreUnreachable`."""
        if uri not in self._fetched:
            self._fetched[uri] = self._download(uri) if uri.startswith("s3://") else _local_object(uri)
        return self._fetched[uri]

    def request(self, request: Request) -> RawObject:
        """The answer to an HTTP request; see `ingest.http` for retries."""
        if self._http is None:
            self._http = HttpClient()
        answer = self._http.request(request)
        return self.store_bytes(answer.address, answer.content, version=answer.version)

    def store_bytes(self, uri: str, content: bytes | Iterable[bytes], *, version: str = "") -> RawObject:
        """Stores bytes under the hash of their content."""
        chunks = (content,) if isinstance(content, bytes) else content
        with self._new_file(uri) as (part, rename_to):
            with part.open("wb") as file:
                digest, size = _copy(iter(chunks), file)
            path = rename_to(digest)
        return RawObject(uri=uri, path=path, raw_id=digest, size=size, version=version)

    def checkpoint(self, key: str) -> str | None:
        """How far earlier runs read this source."""
        return self._checkpoints.get(masked(key))

    def release(self, item: RawObject) -> None:
        """Deletes the bytes of an object that has been read, unless they are the user's own file or are kept for replay."""
        if self._temporary is not None and item.path.is_relative_to(self._temporary):
            item.path.unlink(missing_ok=True)
            self._fetched.pop(item.uri, None)

    def close(self) -> None:
        """Deletes temporary files and closes connections."""
        if self._http is not None:
            self._http.close()
        if self._scratch is not None:
            self._scratch.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _client(self) -> BaseClient:
        if self._s3 is None:
            import boto3
            from botocore.config import Config

            retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
            self._s3 = boto3.client(
                "s3",
                endpoint_url=self.settings.ingest.s3_endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None,
                config=Config(retries=retries, connect_timeout=10, read_timeout=60),
                region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            )
        return self._s3

    def _list_s3(self, uri: str) -> Sequence[ListedObject]:
        bucket, key = _bucket_and_key(uri)
        pattern = _GLOB.search(key)
        stem = key[: pattern.start()] if pattern else key.rstrip("/")
        listing: list[ListedObject] = []
        with _TranslatedErrors(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=stem):
                for entry in page.get("Contents", ()):
                    name = str(entry["Key"])
                    if name.endswith("/") or not _is_below(name, key, stem, glob_=pattern is not None):
                        continue
                    listing.append(_listed_in_bucket(bucket, entry))
        exact = [entry for entry in listing if entry.uri == uri]
        if not listing:
            raise ObjectMissingError("no such object or prefix", where=uri, remedy="check the bucket, the key and the region")
        return exact or sorted(listing, key=lambda entry: entry.uri)

    def _download(self, uri: str) -> RawObject:
        bucket, key = _bucket_and_key(uri)
        with self._new_file(key) as (part, rename_to):
            with _TranslatedErrors(uri):
                digest, size, version, write_time = self._stream(bucket, key, part)
            path = rename_to(digest)
        return RawObject(uri=uri, path=path, raw_id=digest, size=size, version=version, modified=write_time)

    @contextmanager
    def _new_file(self, name: str) -> Iterator[tuple[Path, Callable[[str], Path]]]:
        """A temporary file, and a function that moves it to its final name; without that call it is deleted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with part_file(self._folder) as part:
            # A file that is deleted after reading must not be shared with another object of the same bytes.
            own = f"{next(self._numbers)}-" if self._temporary else ""
            yield part, lambda digest: part.replace(self._folder / f"{digest}-{own}{_file_name(name)}")

    def _stream(self, bucket: str, key: str, part: Path) -> tuple[str, int, str, datetime | None]:
        """Writes the body to `part`. The client retries requests; a body that breaks off or is not as stored is requested again here."""
        from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError, ResponseStreamingError
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        previous_digests = set[str]()

        def download() -> tuple[str, int, str, datetime | None]:
            response: dict[str, Any] = self._client.get_object(Bucket=bucket, Key=key)
            with part.open("wb") as file, closing(response["Body"]) as body:
                digest, size = _copy(body.iter_chunks(_CHUNK), file)
            # The client holds the body against a checksum stored with the object. An older object has its ETag: of most it is the
            # MD5 of the body. Where the same bytes come twice, it is something else.
            if not _agrees_with_etag(part, response) and digest not in previous_digests:
                previous_digests.add(digest)
                raise _BodyDiffersError("the body does not agree with its ETag: it changed on its way or in the store")
            write_time = response.get("LastModified")
            return digest, size, str(response.get("ETag", "")).strip('"'), write_time and write_time.astimezone(UTC)

        return Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=0.4),
            retry=retry_if_exception_type(
                (HTTPClientError, IncompleteReadError, ResponseStreamingError, FlexibleChecksumError, _BodyDiffersError)
            ),
            reraise=True,
        )(download)


class _BodyDiffersError(OSError):
    """The body of an object is not what its checksum says."""


def _agrees_with_etag(path: Path, response: Mapping[str, Any]) -> bool:
    """Whether a file has the MD5 that the ETag states; true where the ETag is none: of uploads in parts, and of encryption by a key."""
    etag = str(response.get("ETag", "")).strip('"').lower()
    if not _MD5.fullmatch(etag) or "SSECustomerAlgorithm" in response or "kms" in str(response.get("ServerSideEncryption", "")):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == etag


class _TranslatedErrors:
    """Turns errors of the AWS client into errors of ours."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            raise _client_error(self.uri, error.response) from error
        if isinstance(error, (BotoCoreError, OSError)):
            message = str(error).splitlines()[0]
            raise StoreUnreachable(
                message, where=self.uri, remedy="check the endpoint, the network, the disk and the AWS credentials"
            ) from error


def _client_error(uri: str, answer: Any) -> SourceError:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING or status == 404:
        return ObjectMissingError(f"no such object ({code})", where=uri, remedy="check the bucket and the key")
    if code in _DENIED or status in (401, 403):
        return StoreUnreachable(
            f"S3 refuses access ({code})", where=uri, remedy="the credentials need s3:ListBucket and s3:GetObject here"
        )
    return StoreUnreachable(f"S3 answered {status} ({code})", where=uri, remedy="S3 was asked several times; try again later")


def _is_below(name: str, key: str, stem: str, *, glob_: bool) -> bool:
    if glob_:
        return fnmatchcase(name, key)
    return not stem or name == key or name.startswith(f"{stem}/")


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ObjectMissingError("the address names no bucket", where=uri, remedy="write s3://bucket/prefix")
    return bucket, key


def _listed_in_bucket(bucket: str, entry: Any) -> ListedObject:
    version = str(entry.get("ETag", "")).strip('"')
    return ListedObject(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), version, entry["LastModified"].astimezone(UTC))


def _listed_file(path: Path) -> ListedObject:
    about = path.stat()
    return ListedObject(path.absolute().as_posix(), about.st_size, modified=datetime.fromtimestamp(about.st_mtime, UTC))


def _local_object(uri: str) -> RawObject:
    path = Path(uri).expanduser()
    try:
        with path.open("rb") as file:
            digest, size = _copy(iter(lambda: file.read(_CHUNK), b""), None)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ObjectMissingError("no such file", where=uri, remedy="check the path") from error
    except OSError as error:
        raise StoreUnreachable(error.strerror or str(error), where=uri, remedy="check that the file can be read") from error
    write_time = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return RawObject(uri=path.absolute().as_posix(), path=path, raw_id=digest, size=size, modified=write_time)


def _copy(chunks: Iterator[bytes], target: BinaryIO | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def _file_name(key: str) -> str:
    """The object's own name, as a file name."""
    return re.sub(r"[^\w.=-]", "_", key.rsplit("/", 1)[-1])[-100:]
