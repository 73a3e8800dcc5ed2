"""Parts of pages: amounts as text, states as sentences, and the URL of every figure.

Amounts are turned from exact decimals into text here and nowhere pass through a float.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from urllib.parse import urlencode

import streamlit as st

from api.client import ApiProblem
from ui import identity, labels
from ui.addresses import api_url
from ui.grid import Cell, Grid, Tone, draw

SYMBOLS: Mapping[str, str] = {
    "USD": "US$",
    "EUR": "€",
    "GBP": "£",
    "JPY": "JP¥",
    "CNY": "CN¥",
    "INR": "₹",
    "CHF": "CHF",
    "AUD": "A$",
    "CAD": "C$",
}
MINUS, GAP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NOTHING = "–"
"""Shown where there is no amount, which differs from 0."""
WRITING_HINT = "Paste the content of the file `token` in the ledger's folder (e.g. `.rootcost/token`)."
"""Where to find the token."""


# --- amounts -------------------------------------------------------------------------------------------------------------


def places(amount: Decimal) -> int:
    """Decimal places an amount is shown with: 2, or as many as show three digits of a small one.

    >>> [places(Decimal(a)) for a in ("1234.567", "0", "0.5", "0.018", "0.0000123")]
    [2, 2, 2, 3, 7]
    """
    if not amount or abs(amount) >= 1:
        return 2
    digits = format(_rounded(abs(amount), 2 - amount.adjusted()), "f").rstrip("0")
    return max(2, len(digits.partition(".")[2]))


def _rounded(amount: Decimal, to_places: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return amount.quantize(Decimal(1).scaleb(-to_places), rounding=ROUND_HALF_EVEN)


def column_places(amounts: Iterable[Decimal | None]) -> int:
    """Places for amounts that stand below each other: 2 where there are tens, else what small ones need, at most 6.

    >>> column_places([Decimal("120"), Decimal("0.018")]), column_places([Decimal("0.5"), Decimal("0.01234"), None])
    (2, 4)
    """
    nonzero = [a for a in amounts if a]
    if not nonzero or max(abs(a) for a in nonzero) >= 10:
        return 2
    return min(6, max(places(a) if _rounded(a, places(a)) == a else max(4, places(a)) for a in nonzero))


def money(amount: Decimal | None, currency: str | None, *, to_places: int | None = None) -> str:
    r"""An amount as people read it. `to_places` is raised where it would show a small amount as nothing.

    >>> money(Decimal("1234.5678"), "USD"), money(Decimal("-0.08"), "EUR"), money(Decimal("0.00001234"), "USD"), money(None, None)
    ('US$\xa01,234.57', '−€\xa00.08', 'US$\xa00.0000123', '–')
    """
    if amount is None:
        return NOTHING
    decimal_places = places(amount) if to_places is None or not amount else to_places  # 0 needs no more digits than 0.00
    rounded_amount = _rounded(abs(amount), decimal_places)
    if amount and not rounded_amount:
        rounded_amount = _rounded(abs(amount), places(amount))
    return f"{MINUS if amount < 0 else ''}{_symbol(currency)}{rounded_amount:,f}"


def exact(amount: Decimal | None, currency: str | None) -> str:
    r"""An amount with every digit it has.

    >>> exact(Decimal("20.520226728990"), "USD")
    'US$\xa020.52022672899'
    """
    if amount is None:
        return "no amount"
    digits = f"{abs(amount):,f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return f"{MINUS if amount < 0 else ''}{_symbol(currency)}{digits}"


def change(amount: Decimal | None, currency: str | None) -> str:
    r"""A difference, with its sign.

    >>> change(Decimal("12.5"), "USD"), change(Decimal("-3"), "USD"), change(Decimal(0), "USD")
    ('+US$\xa012.50', '−US$\xa03.00', 'no change')
    """
    if amount is None:
        return NOTHING
    if not amount:
        return "no change"
    return ("+" if amount > 0 else "") + money(amount, currency)


def _symbol(currency: str | None) -> str:
    return f"{SYMBOLS.get(currency, currency)}{GAP}" if currency else ""


def percent(share: Decimal | None) -> str:
    r"""A share in percent; small ones are not shown as nothing.

    >>> percent(Decimal("12.345")), percent(Decimal("0.0012")), percent(None)
    ('12.3\xa0%', '<\xa00.1\xa0%', '–')
    """
    if share is None:
        return NOTHING
    if 0 < abs(share) < Decimal("0.1"):
        return f"<{GAP}0.1{GAP}%"
    return f"{_rounded(share, 1):,f}{GAP}%".replace("-", MINUS)


def count(number: int | Decimal | None) -> str:
    """A quantity with its thousands apart.

    >>> count(1234567), count(Decimal("0.5")), count(None)
    ('1,234,567', '0.5', '–')
    """
    if number is None:
        return NOTHING
    if isinstance(number, int):
        return f"{number:,}"
    return exact(number, None)


def several(amounts: Mapping[str, Decimal]) -> str:
    r"""Amounts of several currencies, side by side: they are never summed.

    >>> several({"USD": Decimal("1"), "EUR": Decimal("2")}), several({})
    ('€\xa02.00 + US$\xa01.00', '–')
    """
    return " + ".join(money(amount, currency) for currency, amount in sorted(amounts.items())) or NOTHING


def several_exact(amounts: Mapping[str, Decimal]) -> str:
    """The same with every digit."""
    return " + ".join(exact(amount, currency) for currency, amount in sorted(amounts.items())) or "no priced call"


def plain(text: str) -> str:
    r"""Text that Markdown is not to read anything into.

    >>> plain("a*b $x$")
    'a\\*b \\$x\\$'
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|~$<>:&-])", r"\\\1", text)


def prose(text: str) -> str:
    r"""The same, but what stands between backticks is code.

    >>> prose("send `Bearer <token>` *now*")
    'send `Bearer <token>` \\*now\\*'
    """
    return "".join(part if part[:1] == "`" and len(part) > 2 else plain(part) for part in re.split(r"(`[^`]+`)", text))


# --- cells ---------------------------------------------------------------------------------------------------------------


def money_cell(
    amount: Decimal | None, currency: str | None, *, to_places: int | None = None, tone: Tone = "", sub: str = ""
) -> Cell:
    """An amount in a table; every digit when pointed at."""
    return Cell(money(amount, currency, to_places=to_places), order=amount, title=exact(amount, currency), tone=tone, sub=sub)


def cost_cell(amount: Decimal | None, currency: str | None, *, to_places: int | None = None) -> Cell:
    """A cost in a table; where there is none, usage was logged that has no price, which is not 0."""
    if amount is None:
        return Cell("no price", tone="warn", title="no price is known for this usage")
    return money_cell(amount, currency, to_places=to_places)


def change_cell(amount: Decimal, currency: str) -> Cell:
    """A difference in a table."""
    return Cell(change(amount, currency), order=amount, title=exact(amount, currency), tone="" if amount else "muted")


def count_cell(number: int | Decimal | None) -> Cell:
    """A quantity in a table."""
    return Cell(count(number), order=number)


def share_approx(part: Decimal | None, whole: Decimal | None) -> float:
    """How much of a bar to fill, between 0 and 1: a length on a screen, not money.

    >>> share_approx(Decimal(1), Decimal(4)), share_approx(Decimal(-1), Decimal(4)), share_approx(Decimal(1), Decimal(0))
    (0.25, 0.0, 0.0)
    """
    if not part or not whole or whole < 0:
        return 0.0
    return min(1.0, max(0.0, float(part) / float(whole)))


# --- parts of a page -----------------------------------------------------------------------------------------------------


def address(*addresses: str, key: str) -> None:
    """The GET requests that figures above come from, to open or copy."""
    for number, one in enumerate(dict.fromkeys(a for a in addresses if a)):
        draw(Grid(columns=(), rows=(), address=one), key=f"{key}-address-{number}")


def amount_tile(label: str, amount: Decimal | None, currency: str, *, delta: str | None = None, help_text: str = "") -> None:
    """An amount in large type, every digit on demand."""
    tooltip = f"{plain(exact(amount, currency))}" + (f"\n\n{help_text}" if help_text else "")
    st.metric(
        label,
        plain(money(amount, currency)),
        plain(delta) if delta is not None else None,
        delta_color="off",
        delta_arrow="off",
        help=tooltip,
        border=True,
        height="stretch",
    )


def link(page: str, **parameters: str | Sequence[str] | None) -> str:
    """The relative URL of a page with a selection on it.

    >>> link("explorer", by="team", filter=["team=Care", "model="]), link("", month="2026-10")
    ('explorer?by=team&filter=team%3DCare&filter=model%3D', './?month=2026-10')
    """
    given_parameters = {k: v for k, v in parameters.items() if v not in (None, "", [], ())}
    query = urlencode(given_parameters, doseq=True)
    return f"{page or './'}{'?' if query else ''}{query}"


def empty_state(title: str, sentence: str, *commands: str) -> None:
    """What to do next where there is nothing to see yet."""
    with st.container(border=True):
        st.markdown(f"#### {title}")
        st.markdown(sentence)
        for command in commands:
            st.code(command, language=None)


def nothing_published() -> None:
    """The page shown while no figures are published."""
    if not identity.sees_whole():
        empty_state("No figures yet", "Those of your part appear here once they are published.")
        return
    empty_state(
        "No figures yet",
        "Figures appear here once bills or token logs are read and attributed. Try it with a made-up company's month:",
        "rootcost demo",
    )
    st.markdown("Or start with your own: a bill, the logs of your gateway or traces, then attribute.")
    st.code("rootcost ingest focus bill.csv\nrootcost ingest litellm payloads.jsonl\nrootcost attribute", language=None)


def show_problem(problem: ApiProblem) -> None:
    """A problem document as a sentence, and what to do about it."""
    if problem.status == 0:
        with st.container(border=True):
            st.markdown("#### RootCost does not answer")
            st.markdown(f"Nothing answers at `{api_url()}`. Start the service, then reload this page:")
            st.code("rootcost serve", language=None)
            st.caption(f"Another address? Set ROOTCOST_API_URL before starting the dashboard. ({plain(problem.detail)})")
            if st.button("Try again", key="again"):
                st.rerun()
        return
    if problem.status == 401:
        st.error(f"That is not the token. {WRITING_HINT}")
        return
    document = problem.document
    text = sentence(document.title, document.detail)
    messages = [*(sentence(f"{error.field}", error.reason) for error in problem.errors)]
    parts = [plain(part) for part in (text, *messages)]
    if document.remedy:
        parts.append(prose(sentence("What to do", document.remedy)))
    st.error("\n\n".join(parts))


def sentence(title: str, detail: str) -> str:
    """Title and detail as one sentence.

    >>> sentence("Not found", "no chain 'x'"), sentence("Not found", "")
    ("Not found: no chain 'x'.", 'Not found.')
    """
    text = f"{title}: {detail}" if detail and detail != title else title
    return text if text.endswith((".", "!", "?")) else f"{text}."


def state_badge(text: str, tone: Tone) -> None:
    """A state in a word or two."""
    colour = {"good": "green", "warn": "orange", "bad": "red", "cool": "blue"}.get(tone, "gray")
    st.badge(plain(text), color=colour)  # type: ignore[arg-type]


def show_removed(settled_months: Mapping[str, str], months: Iterable[str]) -> None:
    """Which of these months have facts removed: their costs stay, and what is missing below was there."""
    for month in months:
        if month in settled_months:
            st.info(plain(f"{labels.month(month)}: {settled_months[month]}. Its costs stay as they were published."))


def class_help(cost_class: str) -> str:
    """What a cost class means."""
    return labels.CLASS_HELP.get(cost_class, "")
