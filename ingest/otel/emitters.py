"""The emitter table: which library sent a span, and what its attributes mean.

CSV files in this folder hold all knowledge of emitters and can be edited without reading code:

    emitters.csv       each emitter, how it is recognised, what its input and output counts include, and whether its total is the
                       provider's or input and output added up
    emitter_versions.csv   what an emitter counts from a version of its scope on, where that differs
    attributes.csv     which attribute of which emitter means which column, in which order of preference
    usage_scopes.csv   which spans are one provider request (leaf) and which repeat the usage of others (aggregate, cumulative)
    operations.csv     every emitter's name for an operation, and OpenTelemetry's

One span can carry attributes of several emitters (F3). Names that are distinctive (``shared``) are therefore understood on any
span; of several attributes for one column the one with the lowest precedence number is used; they are never added up.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ingest.otel.attribute_values import READERS, Reader, text
from ingest.otel.emitter_versions import by_first_version, version_key
from ledger.money import RATE
from ledger.tables import METERS, SPANS, TOKEN_METERS

_HERE = Path(__file__).parent
EXTRA = "attributes."
"""Prefix of columns that go into the JSON of `spans.attributes`."""
OTHER = "other_usage."
"""Prefix of meters that go into the JSON of `spans.other_usage`."""
CLAIMS = "claims"
"""Pseudo column of tags and labels, of which only the keys named in the settings are read."""
CONTENT = "content"
"""Pseudo column of prompts, answers and tool arguments: dropped, unless `ingest.keep_content` keeps them in the JSON of `spans.attributes`."""
PROVIDER_USAGE = "provider."
"""Prefix of pseudo columns of the provider's own usage: evidence of how the emitter counts, stored nowhere (CA-5)."""
PROCESS = "process."
"""Prefix of pseudo columns of a resource that name its process: stored as `spans.process` on running counters (CA-2a)."""
OWN_METER = "rootcost.usage."
"""Prefix of attributes by which a program reports usage of any meter itself: ``rootcost.usage.web_searches``."""
_SCHEMA = SPANS.schema
_WORD = re.compile(r"[a-z0-9]+")
_MAX_MEMO = 10_000
_SignIndex = dict[str, list[tuple[int, str, str]]]
"""By attribute: position in the table, required value or empty, emitter."""


class Target(NamedTuple):
    """The meaning of one attribute: a column (`slot`), its precedence (`rank`), and its parser (`reader`)."""

    slot: str
    rank: int
    reader: Reader
    path: tuple[str, ...]
    condition: tuple[str, str] | None
    includes: bool | None
    by_default: bool
    entry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """One row of emitters.csv, its attributes and its rules."""

    name: str
    targets: Mapping[str, tuple[Target, ...]] = field(repr=False)
    rules: ScopeRules = field(repr=False)
    input_includes_cache: bool | None
    exclusive_models: frozenset[str]
    output_includes_reasoning: bool | None
    passes_on_total: bool = False
    """Whether its total is the provider's, so that one of input and output alone says that they include everything."""

    def includes_cache(self, model: str | None) -> bool | None:
        """Whether this emitter's input counts cached tokens, for a call of this model."""
        if self.exclusive_models and model and self.exclusive_models & words(model):
            return False
        return self.input_includes_cache


@lru_cache(maxsize=4096)
def words(model: str) -> frozenset[str]:
    """The words of a model's name, lower case; they are compared whole.

    >>> sorted(words("us.anthropic.claude-sonnet-4"))
    ['4', 'anthropic', 'claude', 'sonnet', 'us']
    """
    return frozenset(_WORD.findall(model.lower()))


@lru_cache(maxsize=8)
def rows_of(name: str) -> tuple[Mapping[str, str], ...]:
    """One of the CSV files of the table, row by row."""
    with (_HERE / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def _cells(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split(";") if part)


def _three_way(cell: str) -> bool | None:
    return {"true": True, "false": False}.get(cell)


class ScopeRules:
    """Which spans of one emitter have usage of their own: the first matching row of usage_scopes.csv.

    The result depends on few facts with few values, so each combination is cached.
    """

    def __init__(self, emitter: str) -> None:
        self._rules: list[tuple[list[tuple[str, str]], str | None]] = []
        attributes: dict[str, None] = {}
        self._names: set[str] = set()
        self._globs: list[str] = []
        for row in rows_of("usage_scopes"):
            if row["emitter"] not in (emitter, "*"):
                continue
            conditions = [_condition(part) for part in row["when"].split("&")]
            for fact, fact_value in conditions:
                if fact == "name":
                    (self._globs.append if "*" in fact_value else self._names.add)(fact_value)
                elif "." in fact and not fact.startswith("resource."):
                    attributes[fact] = None
            self._rules.append((conditions, None if row["usage_scope"] == "none" else row["usage_scope"]))
        self._attributes = tuple(attributes)
        self._memo: dict[tuple[Any, ...], str | None] = {}

    def decide(
        self,
        *,
        operation: str | None,
        kind: str,
        name: str,
        usage: bool,
        model: bool,
        attributes: Mapping[str, Any],
        resource: frozenset[str],
    ) -> str | None:
        """leaf, aggregate or cumulative; None for spans that are not calls, and for wrappers without usage."""
        names = (name,) if name in self._names else tuple(g for g in self._globs if fnmatchcase(name, g)) if self._globs else ()
        present = tuple(a for a in self._attributes if a in attributes) if self._attributes else ()
        key = (operation, kind, usage, model, names, present, resource)
        try:
            return self._memo[key]
        except KeyError:
            if len(self._memo) > _MAX_MEMO:
                self._memo.clear()
            facts = {"operation": operation or "", "kind": kind, "usage": "*" * usage, "model": "*" * model}
            facts |= dict.fromkeys(present, "*") | {f"resource.{r}": "*" for r in resource}
            scope = next((s for conditions, s in self._rules if all(_is_met(c, facts, names) for c in conditions)), None)
            scope = None if scope in ("aggregate", "cumulative") and not usage else scope
            self._memo[key] = scope
            return scope


def _condition(expression: str) -> tuple[str, str]:
    fact, _, fact_value = expression.strip().partition("=")
    return fact, fact_value


def _is_met(condition: tuple[str, str], facts: Mapping[str, str], names: Sequence[str]) -> bool:
    fact, fact_value = condition
    if fact == "name":
        return fact_value in names
    return bool(facts.get(fact)) if fact_value == "*" else facts.get(fact) == fact_value


class Content:
    """Which attributes hold prompts, answers and tool arguments, and whether they are kept."""

    def __init__(self, *, keep: bool) -> None:
        content_attributes = [row["attribute"] for row in rows_of("attributes") if row["column"] == CONTENT] if keep else []
        self._names = frozenset(name for name in content_attributes if not name.endswith(".*"))
        self._families = tuple(name[:-1] for name in content_attributes if name.endswith(".*"))
        self.is_kept = keep

    def is_kept_content(self, attribute: str) -> bool:
        """Whether an attribute is content and content is kept."""
        return attribute in self._names or (bool(self._families) and attribute.startswith(self._families))


class AttributeNames:
    """Names of attributes that are read: mapped ones and, if kept, content."""

    def __init__(self, names: frozenset[str], content: Content) -> None:
        self.names, self._content = names, content

    def __contains__(self, attribute: object) -> bool:
        return attribute in self.names or (isinstance(attribute, str) and self._content.is_kept_content(attribute))


class EmitterTable:
    """The whole table, including the baggage keys of the settings.

    `span_attributes` and `resource_attributes` are the only attributes that are ever decoded: prompts and answers are not
    among them, unless `keep_content` is set. `inner_paths` names attributes of which no more is read than
    some places inside the JSON they hold, and those places.
    """

    def __init__(self, agent_tags: Sequence[str], team_tags: Sequence[str], *, keep_content: bool = False) -> None:
        self.agent_tags, self.team_tags = tuple(agent_tags), tuple(team_tags)
        self._emitter_rows = {row["emitter"]: row for row in rows_of("emitters")}
        self.frameworks = frozenset(f for row in self._emitter_rows.values() for f in _cells(row["frameworks"]))
        self._operations = _operations()
        self._scopes = [(scope, name) for name, row in self._emitter_rows.items() for scope in _cells(row["scopes"])]
        self._marks = self._signs("marks")
        self._hints = self._signs("hints")
        self._emitters: dict[str, Emitter] = {}
        self._no_emitter = self._build("")
        self._versions = by_first_version(rows_of("emitter_versions"))
        self.resource_targets = self._targets("resource")
        self.names = frozenset(o for (attribute, o) in self._operations if attribute == "name")
        rule_facts = {_condition(part)[0] for row in rows_of("usage_scopes") for part in row["when"].split("&")}
        self.resource_facts = frozenset(f.removeprefix("resource.") for f in rule_facts if f.startswith("resource."))
        self.content = Content(keep=keep_content)
        targets = [
            (a, t) for name in (*self._emitter_rows, "") for a, meanings in self.emitter(name).targets.items() for t in meanings
        ]
        signs = set(self._marks) | set(self._hints) | {f for f in rule_facts if "." in f and not f.startswith("resource.")}
        self.plain_attributes = frozenset({a for a, target in targets if not target.path} | signs)
        paths: dict[str, set[tuple[str, ...]]] = {}
        for attribute, target in targets:
            if attribute not in self.plain_attributes and not self.content.is_kept_content(attribute):
                paths.setdefault(attribute, set()).add(target.path)
        self.inner_paths = {attribute: tuple(sorted(places)) for attribute, places in paths.items()}
        names = self.plain_attributes | {a for a, _ in targets}
        self.names_read = frozenset(names)
        self.span_attributes: Container[str] = AttributeNames(names, self.content) if keep_content else names
        self.resource_attributes = frozenset(self.resource_targets) | self.resource_facts
        self.by_scope: Callable[[str], str | None] = lru_cache(maxsize=4096)(self._by_scope)

    def emitter(self, name: str | None, version: str = "") -> Emitter:
        """The emitter of that name, as it counts in a version; without a name, the rules for unrecognised emitters."""
        if not name:
            return self._no_emitter
        if name not in self._emitters:
            self._emitters[name] = self._build(name)
        if not version or name not in self._versions:
            return self._emitters[name]
        first = max((v for v in self._versions[name] if v <= version_key(version)), default=None)
        if first is None:
            return self._emitters[name]
        key = f"{name} {first}"
        if key not in self._emitters:
            self._emitters[key] = replace(self._emitters[name], **_counts(self._versions[name][first]))
        return self._emitters[key]

    def recognise(self, by_scope: str | None, attributes: Mapping[str, Any], name: str) -> str | None:
        """The emitter of a span: by a distinctive attribute (mark), else by instrumentation scope, else by a typical attribute or name (hint)."""
        if by_mark := _emitter_by_sign(self._marks, attributes):
            return by_mark
        if by_scope:
            return by_scope
        if by_hint := _emitter_by_sign(self._hints, attributes):
            return by_hint
        name_hints = self._hints.get("name=" + name)
        return name_hints[0][2] if name_hints else None

    def canonical_operation(self, attribute: str, value: Any) -> str | None:
        """OpenTelemetry's name for an operation that an emitter's attribute (or the span's name) gives."""
        emitter_operation = text(value)
        if emitter_operation is None:
            return None
        operation = self._operations.get((attribute, emitter_operation))
        return emitter_operation.lower() if operation is None and attribute == "gen_ai.operation.name" else operation

    def _by_scope(self, scope: str) -> str | None:
        exact = [name for pattern, name in self._scopes if pattern == scope]
        if exact:
            return exact[0]
        families = [(len(w), n) for w, n in self._scopes if w.endswith(".*") and (scope == w[:-2] or scope.startswith(w[:-1]))]
        return max(families)[1] if families else None

    def _signs(self, column: str) -> _SignIndex:
        signs: _SignIndex = {}
        for position, (name, row) in enumerate(self._emitter_rows.items()):
            for sign in _cells(row[column]):
                attribute, _, value = (sign, "", "") if sign.startswith("name=") else sign.partition("=")
                signs.setdefault(attribute, []).append((position, value, name))
        return signs

    def _build(self, name: str) -> Emitter:
        row = self._emitter_rows.get(name, {})
        return Emitter(
            name=name,
            targets=self._targets(name),
            rules=ScopeRules(name),
            **_counts(row),
        )

    def _targets(self, emitter: str) -> dict[str, tuple[Target, ...]]:
        """All attributes mapped for this emitter's spans: its own rows, then shared rows of other emitters."""
        rows = [row for row in rows_of("attributes") if row["column"] not in ("", CONTENT)]
        own = [row for row in rows if row["emitter"] == emitter]
        chosen = own + ([] if emitter == "resource" else [r for r in rows if r["shared"] and not _overridden(r, own)])
        if emitter == "resource":
            chosen += [_attribute_row(tag, EXTRA + f"resource_{tag}", 10, "entry") for tag in (*self.agent_tags, *self.team_tags)]
        else:
            chosen += list(self._claim_rows())
            chosen += [
                _attribute_row(OWN_METER + meter, OTHER + meter, 5, "quantity") for meter in METERS if meter not in TOKEN_METERS
            ]
        order = {id(r): n for n, r in enumerate(sorted(chosen, key=lambda r: (int(r["precedence"]), r["attribute"], r["path"])))}
        targets: dict[str, dict[tuple[Any, ...], Target]] = {}
        for row in chosen:
            if row["attribute"].endswith(".*"):
                continue
            target = self._target(row, order[id(row)])
            targets.setdefault(row["attribute"], {}).setdefault((target.slot, target.path, target.condition), target)
        return {attribute: tuple(meanings.values()) for attribute, meanings in targets.items()}

    def _claim_rows(self) -> Iterable[Mapping[str, str]]:
        families = [r["attribute"][:-1] for r in rows_of("attributes") if r["column"] == CLAIMS and r["attribute"].endswith(".*")]
        for slot, tags in (("claimed_agent", self.agent_tags), ("claimed_team", self.team_tags)):
            for position, tag in enumerate(tags):
                for rank, prefix in enumerate(("", "baggage.", *families)):
                    yield _attribute_row(prefix + tag, slot, 1 + rank * 100 + position, "text")

    def _target(self, row: Mapping[str, str], rank: int) -> Target:
        slot, reader_name = row["column"], row["read"]
        condition = _condition(row["when"]) if row["when"] else None
        reader = self._reader(slot, reader_name, row["attribute"])
        return Target(
            slot=slot,
            rank=rank,
            reader=reader,
            path=tuple(row["path"].split(".")) if row["path"] else (),
            condition=condition,
            includes=_three_way(row["includes"]),
            by_default=not row["includes"],
            entry=reader_name == "entry",
        )

    def _reader(self, slot: str, reader_name: str, attribute: str) -> Reader:
        if reader_name == "operation":
            operations = {value: name for (a, value), name in self._operations.items() if a == attribute}
            return lambda value: operations.get(text(value) or "") or self.canonical_operation(attribute, value)
        if reader_name == "provider":
            return lambda value: name if (name := text(value)) not in self.frameworks else None
        if reader_name == "framework":
            return lambda value: value if isinstance(value, str) and value in self.frameworks else None
        if reader_name in READERS:
            return READERS[reader_name]
        if slot in ("request_model", "response_model"):
            return READERS["model"]
        if slot.startswith(OTHER):
            return READERS["quantity"]
        dtype = _SCHEMA.get(slot, pl.String)
        return READERS[{pl.Int64: "count", pl.Boolean: "flag", RATE: "money"}.get(dtype, "text")]


def _counts(row: Mapping[str, str]) -> dict[str, Any]:
    """What the counts of an emitter include, as fields of `Emitter`."""
    return {
        "input_includes_cache": _three_way(row.get("input_includes_cache", "")),
        "exclusive_models": frozenset(_cells(row.get("exclusive_models", ""))),
        "output_includes_reasoning": _three_way(row.get("output_includes_reasoning", "")),
        "passes_on_total": row.get("total") == "provider",
    }


def _operations() -> dict[tuple[str, str], str]:
    return {(row["attribute"], row["value"]): row["operation"] for row in rows_of("operations")}


def _overridden(row: Mapping[str, str], own: Sequence[Mapping[str, str]]) -> bool:
    return any(o["attribute"] == row["attribute"] for o in own)


def _attribute_row(attribute: str, slot: str, precedence: int, reader_name: str) -> Mapping[str, str]:
    blank = dict.fromkeys(("emitter", "path", "when", "includes", "shared", "note"), "")
    return blank | {"attribute": attribute, "column": slot, "precedence": str(precedence), "read": reader_name}


def _emitter_by_sign(signs: _SignIndex, attributes: Mapping[str, Any]) -> str | None:
    """The emitter whose sign a span carries; of several, the first in the table."""
    present = signs.keys() & attributes.keys()
    if not present:
        return None
    matches = [(position, name) for a in present for position, value, name in signs[a] if not value or attributes[a] == value]
    return min(matches)[1] if matches else None


@lru_cache(maxsize=16)
def table(agent_tags: tuple[str, ...] = (), team_tags: tuple[str, ...] = (), keep_content: bool = False) -> EmitterTable:
    """The table for these baggage keys, built once."""
    return EmitterTable(agent_tags, team_tags, keep_content=keep_content)
