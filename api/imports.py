"""Files and entries that people bring in: owners of names, and exchange rates. With `preview` nothing is written."""

from __future__ import annotations

import csv
import io

from api.models import AgentEntry, OwnerChangeRow, RatesImported, RegistryImported
from api.queries.gate import WholeBooks
from api.queries.state import unstored_problem_rows
from ledger import exchange_rates, problems, registry
from ledger.errors import FormatError
from ledger.locks import write_lock

MAX_CHANGES = 1000
"""Changes that the result of an import lists one by one."""
_ENTRY = "entry"


def import_agents(books: WholeBooks, body: bytes, name: str, *, preview: bool) -> RegistryImported:
    """Adds the rows of a registry file. Invalid lines are left out, told, and kept as problems until a file of that name is without them."""
    content = _text(body, name)
    with write_lock(books.whole):
        result = registry.import_text(books.whole, content, uri=name, actor=books.principal.id, preview=preview)
        if not preview:
            problems.renew(books.whole.store, "registry", {name}, result.problems)
    return _registry_imported(result, preview=preview)


def enter_agent(books: WholeBooks, entry: AgentEntry, *, preview: bool) -> RegistryImported:
    """Adds one agent, or gives it another owner, as a line of a registry file would. Raises `FormatError` if it cannot be entered."""
    fields = {column: ";".join(value) if isinstance(value, list) else value or "" for column, value in entry.model_dump().items()}
    table = io.StringIO()
    writer = csv.DictWriter(table, list(fields))
    writer.writeheader()
    writer.writerow(fields)
    result = registry.import_text(books.whole, table.getvalue(), uri=_ENTRY, actor=books.principal.id, preview=True)
    error = next((problem for problem in result.problems if problem.severity == "error"), None)
    if error is not None:
        raise FormatError(error.reason, where=error.field, remedy=error.remedy)
    if not preview:
        subject = f"agent {entry.agent}"[:512]
        result = registry.import_text(books.whole, table.getvalue(), uri=subject, actor=books.principal.id)
    return _registry_imported(result, preview=preview)


def import_rates(books: WholeBooks, body: bytes, name: str, *, preview: bool) -> RatesImported:
    """Adds the exchange rates of a file. Invalid lines are left out, and told."""
    content = _text(body, name)
    with write_lock(books.whole):
        result = exchange_rates.import_text(books.whole, content, uri=name, actor=books.principal.id, preview=preview)
    return RatesImported(
        preview=preview,
        added=result.added,
        changed=result.changed,
        unchanged=result.unchanged,
        problems=unstored_problem_rows(result.problems),
    )


def _registry_imported(result: registry.RegistryImport, *, preview: bool) -> RegistryImported:
    return RegistryImported(
        preview=preview,
        agents=result.agents,
        names=result.names,
        unchanged=result.unchanged,
        changes=[
            OwnerChangeRow(
                **{column: getattr(change.owner, column) for column in OwnerChangeRow.model_fields if column != "earlier_team"},
                earlier_team=change.earlier_team,
            )
            for change in result.changes[:MAX_CHANGES]
        ],
        problems=unstored_problem_rows(result.problems),
    )


def _text(body: bytes, name: str) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"not UTF-8 text: {error.reason} at byte {error.start}", where=name, remedy="save it as CSV in UTF-8"
        ) from error
