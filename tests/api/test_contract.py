"""The description of the API and the API are held against each other by a machine that tries what nobody would."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ledger.books import Books
from tests.support.api_examples import app_of, write_worked_example

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi.checks import positive_data_acceptance

HERE = {"Host": "127.0.0.1"}
EXAMPLES_EACH = 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_get_keeps_its_word(books: Books) -> None:
    """No answer but a described one: right status, right media type, right shape; never a 500."""
    write_worked_example(books)
    app = app_of(books)
    described = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HERE).include(method="GET")
    operations = []
    for result in described.get_all_operations():
        assert isinstance(result, Ok), result
        operations.append(result.ok())
    assert {"/v1/costs", "/v1/chains/{chain_id}", "/ready"} <= {operation.path for operation in operations}

    for operation in operations:

        @settings(
            max_examples=EXAMPLES_EACH,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
            database=None,
        )
        @given(case=operation.as_strategy())
        def keeps_its_word(case: schemathesis.Case[Any]) -> None:
            # A word may be of the right type and still no date: that is a 400 with a remedy.
            case.call_and_validate(headers=HERE, excluded_checks=[positive_data_acceptance])

        keeps_its_word()
