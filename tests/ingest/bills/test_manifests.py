"""A manifest names objects of its own bucket and prefix: whoever can write one cannot have other objects read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.bills import manifests
from ingest.source import Batch, ListedObject, RawObject
from ledger.problems import Problem
from tests.support.cur_exports import manifest
from tests.support.fetchers import NoFetcher

EXPORT = "s3://cur/exports/company"
MANIFEST = f"{EXPORT}/metadata/BILLING_PERIOD=2026-10/Manifest.json"


class Bucket(NoFetcher):
    """A bucket with a manifest; every object that is asked for is there, and noted."""

    def __init__(self, folder: Path, named_object: str, *locations: str) -> None:
        super().__init__()
        self.manifest_locations = locations
        self.requested: list[str] = []
        self._manifest = folder / "Manifest.json"
        self._manifest.write_bytes(manifest([named_object], execution="e1"))

    def get(self, uri: str) -> RawObject:
        self.requested.append(uri)
        return RawObject(uri=uri, path=self._manifest, raw_id="1", size=1)


def planned(bucket: Bucket) -> Batch | Problem:
    (batch,) = manifests.plan(bucket, "aws-cur", [ListedObject(MANIFEST, 1)])
    return batch


@pytest.mark.parametrize(
    "named_object",
    [
        "s3://payroll/salaries.parquet",
        "s3://cur/exports/company-secret/data/part.parquet",
        "exports/other/data/part.parquet",
        "s3://cur/exports/part.parquet",
    ],
)
def test_an_object_outside_is_refused_and_not_fetched(tmp_path: Path, named_object: str) -> None:
    bucket = Bucket(tmp_path, named_object)
    problem = planned(bucket)
    assert isinstance(problem, Problem)
    assert "outside of its own bucket and prefix" in problem.reason
    assert "ingest.manifest_locations" in problem.remedy
    assert bucket.requested == [MANIFEST]


@pytest.mark.parametrize(
    "named_object", [f"{EXPORT}/data/BILLING_PERIOD=2026-10/part.parquet", "/exports/company/data/part.parquet"]
)
def test_an_object_of_the_export_is_read(tmp_path: Path, named_object: str) -> None:
    assert isinstance(planned(Bucket(tmp_path, named_object)), Batch)


def test_a_setting_names_other_locations(tmp_path: Path) -> None:
    other_object = "s3://archive/cur/part.parquet"
    assert isinstance(planned(Bucket(tmp_path, other_object, "s3://archive/cur/")), Batch)
    assert isinstance(planned(Bucket(tmp_path, other_object, "s3://archive/cu")), Problem)
