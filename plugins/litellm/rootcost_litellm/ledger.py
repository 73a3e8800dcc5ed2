"""Budgets of the ledger in the gateway: asked for every few seconds, kept on disk for when the ledger is away, and told what is held here.

What the store has committed, open and uncertain is reported by level; the answer lists the budgets in force, each with what is spent or held
elsewhere, which lowers what may be granted here. Needs the standard library alone.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rootcost_litellm.amounts import from_nanos
from rootcost_litellm.budgets import Budget, BudgetFileError, parse

logger = logging.getLogger("rootcost_litellm")

REFRESH_SECONDS = 5.0
MAX_LEVELS = 1000
"""How many levels one report tells; the rest comes with the next."""
_UNENFORCED = frozenset({"provider"})
"""What a budget of the ledger may be about and a gateway does not know of its caller."""


class LedgerAwayError(Exception):
    """The ledger does not answer, or does not take the key."""


@dataclass
class Ledger:
    """The API of RootCost, as a gateway asks it. `steps` are those of a budget by its name, `*` for every other."""

    url: str
    key: str = field(repr=False)
    gateway: str = "litellm"
    steps: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    copy: Path | None = None
    raise_at: str = ""
    timeout_seconds: float = 10.0
    store_is_lost_at_restart: bool = False
    """Of a store in memory: then the copy on disk counts as spent what this process had spent."""
    _reported: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _ids: frozenset[str] = frozenset()

    def exchange(self, epoch: str, sums: Mapping[str, Mapping[str, Any]]) -> list[Budget]:
        """Reports the levels that changed and returns the budgets in force. Raises `LedgerAwayError`."""
        levels = [
            (key, level)
            for key, sum_ in sums.items()
            if key.partition("@")[0] in self._ids
            and (level := _level(key, sum_)) is not None
            and self._reported.get(key) != level
        ][:MAX_LEVELS]
        path = f"/v1/gateways/{quote(self.gateway)}/budgets"
        epoch = epoch or self.last_epoch() or "new"
        document = self._send(path, {"epoch": epoch, "levels": [level for _, level in levels]}) | {"epoch": epoch}
        self._reported.update(levels)
        self._ids = frozenset(entry["budget_id"] for entry in document["budgets"])
        self._keep(document)
        return self.budgets(document)

    def owns(self, key: str) -> bool:
        """Whether a level is one of a budget of the ledger."""
        return key.partition("@")[0] in self._ids

    def kept(self) -> list[Budget] | None:
        """The budgets as the ledger last said, from the copy on disk; None without a readable one."""
        try:
            text = self.copy.read_text(encoding="utf-8") if self.copy is not None else ""
            document = json.loads(text)
            self._ids = frozenset(entry["budget_id"] for entry in document["budgets"])
            return self.budgets(document)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def last_epoch(self) -> str:
        """The life of a shared store as it was known before a restart: before the first call nobody has asked the store."""
        try:
            return str(json.loads(self.copy.read_text(encoding="utf-8"))["epoch"]) if self.copy is not None else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def forget_reports(self) -> None:
        """Everything is reported again: the store began another life."""
        self._reported.clear()

    def budgets(self, document: Mapping[str, Any]) -> list[Budget]:
        """The budgets of an answer; one that cannot be enforced here is logged, and left to the ledger."""
        budgets = []
        for entry in document["budgets"]:
            if kinds := sorted(_UNENFORCED & set(entry["scopes"])):
                logger.warning("budget %s is about a %s, which is watched by the ledger alone", entry["name"], kinds[0])
                continue
            budgets.append(self._budget(entry))
        return budgets

    def _budget(self, entry: Mapping[str, Any]) -> Budget:
        rate = entry.get("usd_rate")
        if rate is None:
            logger.error("budget %s: no exchange rate from USD into %s is known", entry["name"], entry["currency"])
        fields = {
            "id": entry["budget_id"],
            "name": entry["name"],
            "scope": {kind: name for kind, name in entry["scopes"].items() if kind != "organisation"},
            "period": "run" if entry["period"] == "chain" else entry["period"],
            # Without a rate nobody can say what a call costs in the budget's currency: its `on_outage` decides.
            "amount": entry["limit"] if rate is not None else "0",
            "currency": entry["currency"],
            "rate": rate if rate is not None else "1",
            "enforcement": entry["enforcement"] if rate is not None or entry["on_outage"] == "closed" else "none",
            "on_outage": entry["on_outage"],
            "owner": entry.get("owner") or "",
            "raise_at": self.raise_at,
            "steps": list(self.steps.get(entry["name"], self.steps.get("*", ()))),
            "elsewhere": entry["elsewhere"],
        }
        if entry["period"] != "chain":
            fields |= {"window_start": entry["window_start"], "window_end": entry["window_end"]}
        return parse(fields)

    def _send(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url.rstrip("/") + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                document: dict[str, Any] = json.loads(answer.read())
                return document
        except urllib.error.HTTPError as error:
            raise LedgerAwayError(f"{self.url} answers {error.code}: {_detail(error)}") from error
        except (OSError, ValueError) as error:
            raise LedgerAwayError(f"{self.url} does not answer: {error}") from error

    def _keep(self, document: Mapping[str, Any]) -> None:
        if self.copy is None:
            return
        draft = self.copy.with_name(f"{self.copy.name}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(self._after_restart(document)), encoding="utf-8")
            draft.replace(self.copy)
        except OSError as error:
            logger.warning("%s cannot be written, so budgets are not there when the ledger is away: %s", self.copy, error)

    def _after_restart(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the answer says to a store that begins anew."""
        if not self.store_is_lost_at_restart:
            return document
        own: dict[tuple[str, str], Decimal] = {}
        for level in self._reported.values():
            key = level["budget_id"], level["window_start"]
            own[key] = own.get(key, Decimal(0)) + sum((Decimal(level[name]) for name in _PARTS), Decimal(0))
        budgets = []
        for entry in document["budgets"]:
            start = datetime.fromisoformat(entry["window_start"]).astimezone(UTC).isoformat()
            elsewhere = Decimal(entry["elsewhere"]) + own.get((entry["budget_id"], start), Decimal(0))
            budgets.append({**entry, "elsewhere": format(elsewhere, "f")})
        return {**document, "budgets": budgets}


@dataclass
class Refresher:
    """Exchanges with the ledger in a thread of its own, so that no call ever waits for it."""

    ledger: Ledger
    epoch: Callable[[], str]
    sums: Callable[[], Mapping[str, Mapping[str, Any]]]
    apply: Callable[[list[Budget]], None]
    seconds: float = REFRESH_SECONDS
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _away: bool = False
    _epoch: str = ""

    def start(self) -> None:
        """Begins; the thread ends with the process."""
        self._thread = threading.Thread(target=self._run, name="rootcost-budgets", daemon=True)
        self._thread.start()

    def once(self) -> bool:
        """One exchange; False if the ledger did not answer. Then what was last known stays in force."""
        try:
            epoch = self.epoch()
            if epoch != self._epoch:
                self.ledger.forget_reports()
                self._epoch = epoch
            self.apply(self.ledger.exchange(epoch, self._snapshot()))
        except (LedgerAwayError, BudgetFileError, KeyError, TypeError, ValueError) as error:
            if not self._away:
                logger.warning("budgets stay as they were last known: %s", error)
            self._away = True
            return False
        self._away = False
        return True

    def _snapshot(self) -> dict[str, Mapping[str, Any]]:
        for _ in range(10):
            try:
                return dict(self.sums())
            except RuntimeError:  # a level was added while it was copied
                continue
        return {}

    def _run(self) -> None:
        while True:
            self._wake.wait(self.seconds)
            self._wake.clear()
            self.once()


def ledger_of(settings: Mapping[str, Any], environment: Mapping[str, str], folder: Path) -> Ledger | None:
    """The ledger that `ledger` of the budget file, or ROOTCOST_URL and ROOTCOST_KEY, name; None without. Raises `BudgetFileError`."""
    if unknown := sorted(set(settings) - {"url", "gateway", "steps", "copy", "raise_at", "refresh_seconds", "on_outage"}):
        raise BudgetFileError(
            f"ledger: {unknown[0]!r} is none of url, gateway, steps, copy, raise_at, refresh_seconds, on_outage"
        )
    url = str(settings.get("url") or environment.get("ROOTCOST_URL") or "")
    if not url:
        return None
    key = environment.get("ROOTCOST_KEY") or ""
    if not url.startswith(("http://", "https://")) or not key:
        raise BudgetFileError("ledger: url is http://… or https://…, and ROOTCOST_KEY holds a key with the role ingest")
    steps = {str(name): list(entries or ()) for name, entries in (settings.get("steps") or {}).items()}
    gateway = str(settings.get("gateway") or "litellm")
    copy = Path(str(settings["copy"])) if settings.get("copy") else folder / f".rootcost-budgets-{gateway}.json"
    return Ledger(url, key, gateway, steps, copy, str(settings.get("raise_at") or ""))


def _level(key: str, sums: Mapping[str, Any]) -> dict[str, str] | None:
    """A level of the store in words of the API: the key is ``id@window start`` or ``id@run``; None for a budget of the file.

    >>> _level("b-1@2026-12-01T00:00:00+00:00", {"committed": "5", "reserved": "1000000000", "uncertain": "0"})["open"]
    '1'
    """
    budget_id, _, period = key.partition("@")
    try:
        start, chain = datetime.fromisoformat(period), ""
    except ValueError:
        start, chain = datetime.fromisoformat("1970-01-01T00:00:00+00:00"), period
    if start.tzinfo is None:
        return None
    amounts = {name: _text(int(sums.get(part, 0))) for name, part in _PARTS.items()}
    start = start.astimezone(UTC)
    return {"budget_id": budget_id, "window_start": start.isoformat(), "chain_id": chain, **amounts}


_PARTS = {"committed": "committed", "open": "reserved", "uncertain": "uncertain"}


def _text(nanos: int) -> str:
    return format(Decimal(from_nanos(nanos)), "f")


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read()).get("detail") or error.reason)
    except (OSError, ValueError, AttributeError):
        return str(error.reason)


def unknown_budgets(*, closed: bool) -> list[Budget]:
    """What is in force before the ledger ever answered: nothing is let through, or everything."""
    if not closed:
        return []
    entry = {"id": "ledger", "name": "of the ledger", "amount": "0", "owner": "Whoever runs RootCost"}
    return [parse(entry | {"steps": [{"at": "0", "do": "stop"}]})]
