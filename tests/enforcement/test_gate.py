"""The way of a call through its budgets: who is asked, what is done at which share, what a refusal says, and how each end is booked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rootcost_litellm.amounts import to_nanos
from rootcost_litellm.budgets import BudgetFileError, Caller, parse, read_file
from rootcost_litellm.gate import Call, Gate, RefusedError
from rootcost_litellm.setup import gate_of_file
from tests.enforcement.test_worst_case import MODELS, chat

T = TypeVar("T")
ADS = {
    "id": "ads",
    "name": "ads-team",
    "scope": {"team": "ads"},
    "amount": "0.01",
    "owner": "Dana",
    "raise_at": "https://costs.example/budgets/ads",
}
DEAR = {"dear": {**MODELS["small"], "output_cost_per_token": 2e-05}}


def gate(folder: Path, *budgets: Mapping[str, Any], more: str = "") -> Gate:
    import json

    path = folder / "budgets.json"
    path.write_text(json.dumps({"budgets": budgets, **json.loads(more or "{}")}))
    return gate_of_file(path, {**MODELS, **DEAR})


def caller(chain: str = "", **names: str) -> Caller:
    return Caller({kind: frozenset({name}) for kind, name in names.items()}, chain, "small")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def admit(door: Gate, client: Caller | None = None, model: str = "small", **body: Any) -> Call:
    call = run(door.admit(client or caller(team="ads"), model, chat(**({"max_tokens": 100} | body))))
    assert call is not None
    return call


def left(door: Gate, name: str = "ads") -> int:
    (sums,) = (sums for key, sums in door.store.sums.items() if key.startswith(f"{name}@"))
    return int(sums["left"])


def test_a_call_counts_against_each_budget_whose_scope_is_its_own_and_no_other(tmp_path: Path) -> None:
    company, agent = {"id": "all", "amount": 1}, {"id": "bot", "scope": {"team": "ads", "agent": "bot"}, "amount": 1}
    door = gate(tmp_path, company, ADS, agent)
    assert [budget.id for budget, _ in admit(door).budgets] == ["all", "ads"]
    assert [budget.id for budget, _ in admit(door, caller(team="ads", agent="bot")).budgets] == ["all", "ads", "bot"]
    assert [budget.id for budget, _ in admit(door, caller(team="ads-search", agent="bot")).budgets] == ["all"]


def test_a_tag_narrows_and_never_widens(tmp_path: Path) -> None:
    tag_budget = {"id": "trial", "scope": {"tag": "trial"}, "amount": "0"}
    door = gate(tmp_path, ADS, tag_budget)
    assert [budget.id for budget, _ in admit(door).budgets] == ["ads"]
    with pytest.raises(RefusedError, match="Budget trial"):
        admit(door, caller(team="ads", tag="trial"))


def test_a_refusal_names_level_limit_who_and_how(tmp_path: Path) -> None:
    door = gate(tmp_path, ADS)
    worst = admit(door).worst.nanos
    while left(door) >= worst:
        admit(door)
    with pytest.raises(RefusedError) as refusal:
        admit(door)
    assert (refusal.value.status, refusal.value.kind) == (402, "budget_exceeded")
    for part in (
        "ads-team (team ads; ",
        "left of USD 0.01",
        "Dana (https://costs.example/budgets/ads) can raise it",
        "fewer than 100 tokens",
    ):
        assert part in refusal.value.message


def test_each_end_is_booked_as_what_it_is(tmp_path: Path) -> None:
    door = gate(tmp_path, ADS)
    cap = to_nanos("0.01")
    first_call, second_call, third_call = admit(door), admit(door), admit(door)
    door.commit(first_call, 1000)
    door.commit(first_call, 1000)
    door.release(second_call)
    door.release(first_call)
    door.leave(third_call)
    door.release(third_call)
    assert left(door) == cap - 1000 - third_call.worst.nanos
    door.commit(third_call, 500)
    assert left(door) == cap - 1500
    assert not door.calls


def test_an_attempt_that_may_be_billed_stays_counted_and_the_next_holds_for_itself(tmp_path: Path) -> None:
    door = gate(tmp_path, ADS)
    call = admit(door)
    run(door.attempt(call, "", {}))
    door.attempt_failed(call, may_be_billed=False)
    run(door.attempt(call, "", {}))
    assert left(door) == to_nanos("0.01") - call.worst.nanos
    door.attempt_failed(call, may_be_billed=True)
    run(door.attempt(call, "", {}))
    assert left(door) == to_nanos("0.01") - 2 * call.worst.nanos
    door.commit(call, 7)
    assert left(door) == to_nanos("0.01") - call.worst.nanos - 7


def test_a_dearer_fallback_holds_what_it_may_cost_or_is_refused(tmp_path: Path) -> None:
    door = gate(tmp_path, ADS)
    call = admit(door)
    run(door.attempt(call, "dear", chat(max_tokens=100)))
    assert left(door) < to_nanos("0.01") - to_nanos("0.002")
    door.commit(call, 5)
    assert left(door) == to_nanos("0.01") - 5
    other = admit(door)
    with pytest.raises(RefusedError):
        run(door.attempt(other, "dear", chat(max_tokens=500)))
    door.leave(other)
    assert left(door) == to_nanos("0.01") - 5, "what was not admitted holds nothing"


def test_steps_at_their_shares(tmp_path: Path) -> None:
    steps = [
        {"at": 0.1, "do": "notify"},
        {"at": 0.2, "do": "degrade", "models": {"dear": "small"}},
        {"at": 0.3, "do": "refuse_new_chains"},
        {"at": 0.5, "do": "approve"},
        {"at": 0.9, "do": "stop"},
    ]
    door = gate(tmp_path, {**ADS, "steps": steps})
    first = admit(door, caller("run-1", team="ads"))
    assert first.notes == {}
    door.commit(first, to_nanos("0.0025"))
    body = chat(max_tokens=100)
    second = run(door.admit(caller("run-1", team="ads"), "dear", body))
    assert second is not None
    assert second.notes == {"x-rootcost-budget-used": "ads-team=0.25", "x-rootcost-degraded": "dear -> small"}
    assert body["model"] == "small"
    door.commit(second, to_nanos("0.001"))
    with pytest.raises(RefusedError, match="new ones are refused"):
        admit(door, caller("run-2", team="ads"))
    third = admit(door, caller("run-1", team="ads"))
    door.commit(third, to_nanos("0.002"))
    with pytest.raises(RefusedError, match="needs approval"):
        admit(door, caller("run-1", team="ads"))
    approved_gate = gate(tmp_path, {**ADS, "spent": "0.006", "steps": steps[3:], "approved_until": "2999-01-01"})
    door.commit(admit(approved_gate), 0)
    stopped_gate = gate(tmp_path, {**ADS, "spent": "0.0095", "steps": steps[4:]})
    with pytest.raises(RefusedError):
        admit(stopped_gate)


def test_a_key_is_not_degraded_to_a_model_that_it_may_not_use(tmp_path: Path) -> None:
    door = gate(tmp_path, {**ADS, "steps": [{"at": 0, "do": "degrade", "models": {"*": "dear"}}]})
    client = Caller({"team": frozenset({"ads"})}, "", "small", frozenset({"small"}))
    assert admit(door, client).model == "small"


def test_clamping_lowers_the_answer_to_what_is_left(tmp_path: Path) -> None:
    door = gate(tmp_path, {**ADS, "amount": "0.0005", "steps": [{"at": 0.5, "do": "clamp"}]})
    body = chat(max_tokens=500)
    call = run(door.admit(caller(team="ads"), "small", body))
    assert call is not None
    assert 0 < body["max_tokens"] < 500
    assert call.worst.nanos <= to_nanos("0.0005")
    assert call.notes["x-rootcost-max-tokens"] == str(body["max_tokens"])


def test_advisory_budgets_count_and_refuse_nobody(tmp_path: Path) -> None:
    door = gate(tmp_path, {**ADS, "amount": "0.000001", "enforcement": "advisory"})
    door.commit(admit(door), to_nanos("5"))
    assert run(door.admit(caller(team="ads"), "unheard", chat())) is not None


def test_a_call_without_a_bound_is_refused_by_a_hard_budget_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="'unheard' has no price: add one to the proxy's cost map, or a bound") as refusal:
        admit(gate(tmp_path, ADS), model="unheard")
    assert refusal.value.kind == "budget_unbounded_call"
    assert admit(gate(tmp_path, ADS, more='{"bounds": {"unheard": "0.001"}}'), model="unheard").worst.nanos == to_nanos("0.001")


def test_a_run_has_an_envelope_of_its_own(tmp_path: Path) -> None:
    door = gate(tmp_path, {"id": "run", "period": "run", "amount": "0.0004"})
    admit(door, caller("run-1"))
    with pytest.raises(RefusedError):
        admit(door, caller("run-1"))
    admit(door, caller("run-2"))


def test_amounts_are_held_in_the_currency_of_the_budget(tmp_path: Path) -> None:
    door = gate(tmp_path, {**ADS, "currency": "EUR", "rate": "0.5"})
    door.commit(admit(door), 1001)
    assert left(door) == to_nanos("0.01") - 501


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"amount": 1}, "id: ''"),
        ({"id": "a", "amount": "-1"}, "amount: -1 is negative"),
        ({"id": "a", "amount": "much"}, "'much' is not an amount"),
        ({"id": "a", "amount": 1, "scope": {"squad": "x"}}, "scope: 'squad' is none of"),
        ({"id": "a", "amount": 1, "period": "fortnight"}, "period: 'fortnight' is none of"),
        ({"id": "a", "amount": 1, "currency": "EUR"}, "say what 1 USD is in EUR"),
        ({"id": "a", "amount": 1, "on_outage": "maybe"}, "on_outage: 'maybe'"),
        ({"id": "a", "amount": 1, "steps": [{"at": 0.5, "do": "pray"}]}, "do: 'pray' is none of"),
        ({"id": "a", "amount": 1, "steps": [{"at": 0.5, "do": "degrade"}]}, "which model is used instead"),
    ],
)
def test_what_is_wrong_in_a_budget_is_named(entry: Mapping[str, Any], message: str) -> None:
    with pytest.raises((BudgetFileError, ValueError), match=message):
        parse(entry)


def test_a_budget_file_is_read_whole_or_the_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text("store: memory\nbudgets:\n- {id: a, amount: 1}\n- {id: a, amount: 2}\n")
    with pytest.raises(BudgetFileError, match="the id 'a' is there twice"):
        read_file(path)
    path.write_text("budgets:\n- {id: a, amount: 1}\n- {id: b}\n")
    with pytest.raises(BudgetFileError, match=r"budgets\.yaml: budget 2: "):
        read_file(path)
    path.write_text("stores: memory\nbudgets: []\n")
    with pytest.raises(BudgetFileError, match="'stores' is none of budgets, store"):
        gate_of_file(path, {})
    path.write_text("store: mysql://x\nbudgets: []\n")
    with pytest.raises(BudgetFileError, match="store: 'mysql'"):
        gate_of_file(path, {})
