"""Cases as they lie in their folders, and the variants of their input laid out for an implementation to read."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AS_GIVEN = "as-given"
"""The variant every case has: its input as it lies there."""

DERIVED = ("reversed", "twice", "at-once", "one-by-one", "clock")
"""Ways to make a variant out of the input without writing it down again. README.md says what each is."""


@dataclass(frozen=True)
class Variant:
    """One form of a case's input. `folder` holds what differs; `without` names files that are left out."""

    name: str
    meaning: str = ""
    derive: str = ""
    without: tuple[str, ...] = ()
    service: str = ""
    seconds: int = 0
    folder: Path | None = None

    def expected(self, case: Case) -> dict[str, Path]:
        """What is expected: name of the expectation (`costs`, `costs-after-1`, …) to its file."""
        found = {path.name: path for path in sorted(case.folder.glob("expected-*.csv"))}
        if self.folder is not None:
            found |= {path.name: path for path in sorted(self.folder.glob("expected-*.csv"))}
        return {name.removeprefix("expected-").removesuffix(".csv"): path for name, path in found.items()}


@dataclass
class Case:
    """One failure mode: what must hold, and the inputs it must hold for."""

    id: str
    folder: Path
    title: str
    invariant: str
    rules: tuple[str, ...]
    decimals: int | None = None
    variants: list[Variant] = field(default_factory=list)


def case_folders(root: Path) -> list[Path]:
    """The folders that hold a case, in order."""
    return sorted(path.parent for path in root.glob("F*/case.toml"))


def read_case(folder: Path) -> Case:
    """Reads case.toml. Raises ValueError if it says something no runner knows."""
    told = tomllib.loads((folder / "case.toml").read_text(encoding="utf-8"))
    invariant = " ".join(told["invariant"].split())
    case = Case(folder.name.split("-")[0], folder, told["title"], invariant, tuple(told["rules"]), told.get("decimals"))
    case.variants = [Variant(AS_GIVEN), *(_variant(folder, one) for one in told.get("variant", ()))]
    unclaimed = {path.name for path in folder.glob("variants/*")} - {variant.name for variant in case.variants}
    if unclaimed:
        raise ValueError(f"{folder.name}: case.toml does not name the variants {sorted(unclaimed)}")
    return case


def _variant(folder: Path, told: dict[str, Any]) -> Variant:
    variant = Variant(
        name=told["name"],
        meaning=told["meaning"],
        derive=told.get("derive", ""),
        without=tuple(told.get("without", ())),
        service=told.get("service", ""),
        seconds=told.get("seconds", 0),
        folder=overlay if (overlay := folder / "variants" / told["name"]).is_dir() else None,
    )
    if variant.derive not in ("", *DERIVED):
        raise ValueError(f"{folder.name}: {variant.name} is derived by {variant.derive!r}; there are {', '.join(DERIVED)}")
    if not (variant.derive or variant.without or variant.folder):
        raise ValueError(f"{folder.name}: nothing makes {variant.name} differ")
    return variant


def lay_out(case: Case, variant: Variant, target: Path) -> None:
    """Writes the input of a variant as an implementation gets to see it."""
    shutil.copytree(case.folder / "input", target)
    if variant.folder is not None:
        shutil.copytree(variant.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("expected-*"))
    for name in variant.without:
        (target / name).unlink()
    match variant.derive:
        case "reversed":
            _reverse(target)
        case "twice":
            for path in _logs(target):
                again = path.with_name(f"{path.stem}-again{path.suffix}")
                shutil.copy(path, again)
                _reverse_file(again)
        case "at-once":
            _at_once(target)
        case "one-by-one":
            _one_by_one(target)
        case "clock":
            _shift(target, variant.service, variant.seconds)


def deliveries(folder: Path) -> list[Path]:
    """The folders to be taken in, in order: the input itself, then its numbered sub-folders."""
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    return [folder, *sorted(numbered, key=lambda path: int(path.name))]


def _logs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name.startswith(("spans", "gateway")))


def _reverse(folder: Path) -> None:
    for path in _logs(folder):
        _reverse_file(path)


def _reverse_file(path: Path) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(reversed(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
        return
    export = json.loads(path.read_text(encoding="utf-8"))
    for resource in export["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            scope["spans"].reverse()
        resource["scopeSpans"].reverse()
    export["resourceSpans"].reverse()
    path.write_text(json.dumps(export), encoding="utf-8")


def _at_once(folder: Path) -> None:
    for delivery in deliveries(folder)[1:]:
        for path in delivery.iterdir():
            path.rename(folder / f"{path.stem}-{delivery.name}{path.suffix}")
        delivery.rmdir()


def _one_by_one(folder: Path) -> None:
    """Every span its own delivery, the last one first; everything else comes before them."""
    single = [one for path in _logs(folder) for one in _singly(path)]
    for path in _logs(folder):
        path.unlink()
    for number, (name, content) in enumerate(reversed(single), start=1):
        (folder / str(number)).mkdir()
        (folder / str(number) / name).write_text(content, encoding="utf-8")


def _singly(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            yield path.name, line
        return
    for resource, scope, span in _spans(json.loads(path.read_text(encoding="utf-8"))):
        yield path.name, json.dumps({"resourceSpans": [{**resource, "scopeSpans": [{**scope, "spans": [span]}]}]})


def _spans(export: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    for resource in export["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield resource, scope, span


def _shift(folder: Path, service: str, seconds: int) -> None:
    """The clock of one service is off."""
    for path in folder.rglob("spans*.json"):
        export = json.loads(path.read_text(encoding="utf-8"))
        for resource, _, span in _spans(export):
            if _service(resource["resource"]["attributes"]) == service:
                for moment in ("startTimeUnixNano", "endTimeUnixNano"):
                    span[moment] = str(int(span[moment]) + seconds * 10**9)
        path.write_text(json.dumps(export), encoding="utf-8")


def _service(attributes: Sequence[dict[str, Any]]) -> str | None:
    return next((told["value"]["stringValue"] for told in attributes if told["key"] == "service.name"), None)
