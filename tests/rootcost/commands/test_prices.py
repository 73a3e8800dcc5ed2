"""`rootcost prices`: what a list would change, taking it in, what waits, what the book knows, and what has no price."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from ledger.books import Books
from rootcost.pricebook import at_hand
from tests.support.cli_books import Command, bill, trace

HEAD = "provider,model,meter,unit,rate,currency,valid_from\n"
SONNET = "bedrock,anthropic.claude-sonnet-4-6-v1:0"


@pytest.fixture
def rootcost(home: Path) -> Command:
    return Command(home)


@pytest.fixture
def a_list(tmp_path: Path) -> Path:
    return write(tmp_path / "list.csv", f"{SONNET},input_tokens,1M tokens,3,USD,\n{SONNET},output_tokens,1M tokens,15,USD,\n")


def write(path: Path, lines: str) -> Path:
    path.write_text(HEAD + lines)
    return path


def test_a_list_goes_in_and_again_it_is_nothing_new(rootcost: Command, a_list: Path) -> None:
    first = rootcost("prices", "import", a_list)
    assert first.code == 0, first.err
    assert first.out.startswith("2 prices added (0 of them changed), 0 unchanged; valid from 1970-01-01; list sha256:")
    assert "Next: rootcost attribute" in first.err
    again = rootcost("prices", "import", a_list)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("0 prices added (0 of them changed), 2 unchanged")


def test_the_difference_is_shown_and_nothing_happens(rootcost: Command, a_list: Path, tmp_path: Path) -> None:
    rootcost("prices", "import", a_list)
    newer = write(
        tmp_path / "newer.csv",
        f"{SONNET},input_tokens,1M tokens,4.5,USD,2026-12-01\n{SONNET},output_tokens,1M tokens,0.15,USD,\n",
    )
    done = rootcost("prices", "diff", newer)
    assert done.code == 0
    told = " ".join(done.out.split())
    assert told.startswith("2 changes, 1 of them looks wrong, 0 unchanged")
    assert "input_tokens 3 4.5 +50 % 1M tokens USD 2026-12-01" in told
    assert "output_tokens 15 0.15 -99 %" in told
    rows = rootcost("prices", "diff", newer, "--format", "json").rows
    assert [(r["meter"], r["change"], r["old_rate"], r["rate"], bool(r["doubt"])) for r in rows] == [
        ("output_tokens", "changed", "0.000015", "0.00000015", True),
        ("input_tokens", "changed", "0.000003", "0.0000045", False),
    ]
    table = list(csv.DictReader(io.StringIO(rootcost("prices", "diff", newer, "--format", "csv").out)))
    assert [(r["meter"], r["rate"]) for r in table] == [("output_tokens", "0.00000015"), ("input_tokens", "0.0000045")]
    assert rootcost("prices", "diff", a_list).err == "The book says the same already.\n"
    assert len(rootcost("prices", "history", "claude-sonnet-4-6", "--format", "json").rows) == 2


def test_what_looks_wrong_is_staged_with_code_1_and_taken_by_accept(rootcost: Command, a_list: Path, tmp_path: Path) -> None:
    rootcost("prices", "import", a_list)
    leap = write(tmp_path / "leap.csv", f"{SONNET},input_tokens,1M tokens,300,USD,\n{SONNET},output_tokens,1M tokens,16,USD,\n")
    done = rootcost("prices", "import", leap)
    assert done.code == 1
    assert done.out.startswith("1 price added (1 of them changed), 0 unchanged")
    assert "1 price staged: it looks wrong" in done.out
    assert "moves from 0.000003 to 0.0003, more than 10 times" in " ".join(done.out.split())
    assert "Next: rootcost prices accept, or rootcost prices reject" in done.err
    (problem,) = rootcost("problems", "--format", "json").rows
    assert (problem["file"], problem["line"], problem["field"]) == (
        "leap.csv",
        "anthropic.claude-sonnet-4-6-v1:0",
        "input_tokens",
    )
    (waiting,) = rootcost("prices", "diff", "--staged", "--format", "json").rows
    assert (waiting["old_rate"], waiting["rate"]) == ("0.000003", "0.0003")
    assert rootcost("prices", "accept", "--model", "another").err == "None of the 1 staged prices is one of these.\n"
    assert rootcost("prices", "accept").out == "1 price accepted\n"
    assert rootcost("prices", "accept").err == "Nothing is staged.\n"
    assert rootcost("prices", "diff", "--staged", "--format", "json").rows == []
    assert rootcost("problems", "--format", "json").rows == []
    rates = rootcost("prices", "history", "claude-sonnet-4-6", "--meter", "input_tokens", "--format", "json").rows
    assert [(r["rate"], r["in_force"]) for r in rates] == [("0.000003", False), ("0.0003", True)]


@pytest.mark.parametrize("word", ["--accept", "--yes", "-y"])
def test_accept_takes_all_at_once(rootcost: Command, a_list: Path, tmp_path: Path, word: str) -> None:
    rootcost("prices", "import", a_list)
    leap = write(tmp_path / "leap.csv", f"{SONNET},input_tokens,1M tokens,300,USD,\n")
    assert rootcost("prices", "import", leap, word).code == 0
    assert rootcost("prices", "diff", "--staged").err == "Nothing is staged.\n"
    assert (
        rootcost(
            "prices", "import", write(tmp_path / "back.csv", f"{SONNET},input_tokens,1M tokens,3,USD,\n"), "--factor", "101"
        ).code
        == 0
    )


def test_rejecting_leaves_the_book_as_it_is(rootcost: Command, a_list: Path, tmp_path: Path) -> None:
    rootcost("prices", "import", a_list)
    rootcost("prices", "import", write(tmp_path / "leap.csv", f"{SONNET},input_tokens,1M tokens,300,USD,\n"))
    assert rootcost("prices", "reject", "--book", "leap").out == "1 price rejected\n"
    assert len(rootcost("prices", "history", "claude-sonnet-4-6", "--format", "json").rows) == 2


def test_bad_lines_are_problems_and_the_rest_goes_in(rootcost: Command, tmp_path: Path) -> None:
    lines = (
        f"{SONNET},input_tokens,1M tokens,-3,USD,\n{SONNET},output_tokens,,15,USD,\n{SONNET},output_tokens,1M tokens,15,USD,\n"
    )
    done = rootcost("prices", "import", write(tmp_path / "bad.csv", lines))
    assert done.code == 1
    assert done.out.startswith("1 price added")
    rows = rootcost("problems", "--source", "prices", "--format", "json").rows
    assert [(r["file"], r["line"], r["field"]) for r in rows] == [("bad.csv", "line 2", "rate"), ("bad.csv", "line 3", "unit")]
    assert all(r["remedy"] for r in rows)
    write(tmp_path / "bad.csv", f"{SONNET},output_tokens,1M tokens,15,USD,\n")
    assert rootcost("prices", "import", tmp_path / "bad.csv").code == 0
    assert rootcost("problems", "--format", "json").rows == []


def test_a_contract_stands_beside_the_list_and_history_tells_both(rootcost: Command, a_list: Path, tmp_path: Path) -> None:
    rootcost("prices", "import", a_list)
    contract = write(tmp_path / "edp.csv", f"{SONNET},input_tokens,1M tokens,2.4,USD,\n")
    done = rootcost("prices", "import", contract, "--origin", "contract", "--valid-from", "2026-12-01", "--book", "aws-edp")
    assert "valid from 2026-12-01; aws-edp sha256:" in done.out
    rows = rootcost(
        "prices", "history", "us.anthropic.claude-sonnet-4-6-v1:0", "--meter", "input_tokens", "--format", "json"
    ).rows
    assert [(r["origin"], r["rate"], r["valid_from"][:10]) for r in rows] == [
        ("contract", "0.0000024", "2026-12-01"),
        ("list", "0.000003", "1970-01-01"),
    ]
    shown = rootcost("prices", "history", "claude-sonnet-4-6").out
    for word in ("contract", "aws-edp", "always", "2.4", "1M tokens"):
        assert word in shown


def test_a_contract_alone_does_not_keep_the_public_list_out(rootcost: Command, tmp_path: Path) -> None:
    """A book with a contract and no list would leave all other models unpriced."""
    contract = write(tmp_path / "edp.csv", f"{SONNET},input_tokens,1M tokens,2.4,USD,2026-10-01\n")
    rootcost("prices", "import", contract, "--origin", "contract")
    with Books.open(rootcost.home) as books:
        brought = at_hand(books)
        assert brought is not None
        assert (brought.added > 10_000, brought.staged, brought.valid_from.year) == (True, 0, 1970)
        assert at_hand(books) is None


def test_a_model_nobody_knows_is_told_what_it_may_be(rootcost: Command, a_list: Path) -> None:
    rootcost("prices", "import", a_list)
    done = rootcost("prices", "history", "claude-sonet-4-6", "--format", "json")
    assert (done.code, done.rows) == (0, [])
    assert "Like it: anthropic.claude-sonnet-4-6-v1:0" in done.err


@pytest.mark.parametrize("command", [["history", "m"], ["coverage"], ["diff", "--staged"]])
def test_an_empty_book_gives_an_empty_list(rootcost: Command, command: list[str]) -> None:
    for extra, out in (["--format", "json"], "[]\n"), ([], ""):
        done = rootcost("prices", *command, *extra)
        assert (done.code, done.out) == (0, out)
        assert done.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import --origin observed", "--origin observed: observed prices are read off a bill"),
        ("import list.csv --origin observed --month 2026-10", "--origin observed"),
        ("import --month 2026-10", "--month: goes with --origin observed"),
        ("import --origin observed --month 2026-10", "2026-10 is not attributed yet"),
        ("import --origin observed --month October", "'October' is no month"),
        ("import --origin contract", "--origin contract: needs a file"),
        ("import --origin rumour", "rumour"),
        ("import --valid-from soon", "--valid-from"),
        ("diff --factor 1", "--factor"),
        ("coverage --month October", "--month"),
        ("history", "model"),
    ],
)
def test_what_means_nothing_is_told_in_words_and_ends_with_2(rootcost: Command, line: str, told: str) -> None:
    done = rootcost("prices", *line.split())
    assert (done.code, done.out) == (2, "")
    assert told in done.err


@pytest.mark.slow
def test_observed_prices_are_read_off_the_bill_and_never_twice(rootcost: Command, tmp_path: Path) -> None:
    """10 000 tokens for $0.03."""
    (tmp_path / "bill.csv").write_text(bill())
    (tmp_path / "traces.json").write_text(json.dumps(trace()) + "\n")
    rootcost("ingest", "focus", tmp_path / "bill.csv")
    rootcost("ingest", "otlp", tmp_path / "traces.json")
    rootcost("attribute")
    done = rootcost("prices", "import", "--origin", "observed", "--month", "2026-10")
    assert done.code == 0, done.err
    assert done.out.startswith("1 price added (0 of them changed), 0 unchanged; valid from 2026-10-01; bill 2026-10")
    (row,) = [r for r in rootcost("prices", "history", "claude-sonnet-4-6", "--format", "json").rows if r["origin"] == "observed"]
    assert (row["provider"], row["rate"], row["currency"], row["valid_from"][:10]) == ("AWS", "0.000003", "USD", "2026-10-01")
    rootcost("attribute")
    assert rootcost("prices", "import", "--origin", "observed", "--month", "2026-10").out.startswith("0 prices added")
    (tmp_path / "bill.csv").write_text(bill(BilledCost="0.06", EffectiveCost="0.06", ListCost="0.06", ContractedCost="0.06"))
    rootcost("ingest", "focus", tmp_path / "bill.csv")
    rootcost("attribute")
    assert rootcost("prices", "import", "--origin", "observed", "--month", "2026-10").out.startswith(
        "1 price added (1 of them changed)"
    )
    rows = [r for r in rootcost("prices", "history", "claude-sonnet-4-6", "--format", "json").rows if r["origin"] == "observed"]
    assert [r["rate"] for r in rows] == ["0.000003", "0.000006"], "the earlier observation stays on record"


@pytest.mark.slow
def test_coverage_names_what_has_no_price_and_the_template_prices_it(rootcost: Command, tmp_path: Path) -> None:
    known = json.dumps(trace())
    unknown = (
        known.replace("anthropic.claude-sonnet-4-6-v1:0", "in-house-7b")
        .replace('"traceId": "0', '"traceId": "')
        .replace('", "spanId"', '7", "spanId"')
    )
    (tmp_path / "traces.json").write_text(f"{known}\n{unknown}\n")
    rootcost("ingest", "otlp", tmp_path / "traces.json")
    rootcost("attribute")
    done = rootcost("prices", "coverage", "--month", "2026-10")
    assert done.code == 0
    assert done.out.startswith("50.0 % of 6 calls and 50.0 % of 18,000 tokens have a price")
    assert "in-house-7b" in done.out
    assert "9,000" in done.out
    assert "--template" in done.err
    rows = rootcost("prices", "coverage", "--format", "json").rows
    assert {(r["model"], r["calls"], r["unpriced_calls"], r["unpriced_tokens"]) for r in rows} == {
        ("in-house-7b", 3, 3, 9000),
        ("claude-sonnet-4-6", 3, 0, 0),
    }
    template = rootcost("prices", "coverage", "--template").out
    assert template == HEAD + "AWS,in-house-7b,input_tokens,1M tokens,,USD,2026-10-05\n"
    (tmp_path / "missing.csv").write_text(template.replace("tokens,,USD", "tokens,0.5,USD"))
    first = rootcost("prices", "import", tmp_path / "missing.csv", "--origin", "contract")
    assert first.code == 1, "October is published, and its estimates will change"
    assert "reaches back into 2026-10" in " ".join(first.out.split())
    rootcost("prices", "accept")
    rootcost("attribute")
    assert rootcost("prices", "coverage").out.startswith("100.0 % of 6 calls and 100.0 % of 18,000 tokens have a price")
    assert "No attributed calls in 2026-09" in rootcost("prices", "coverage", "--month", "2026-09").err
