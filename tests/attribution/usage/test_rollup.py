"""The recipe of the pass over spans fits together: each input of a step is given or produced before it, with the type it asks for."""

from __future__ import annotations

from inspect import signature
from typing import Any, get_args, get_origin, get_type_hints

import attribution
from attribution.usage.rollup import STEPS, build_rollup

GIVEN = {"window", "timeline", "book", "settings", "trusted_sources", "period", "rollup_id"}


def result_types(names: str, step: Any) -> dict[str, Any]:
    returned = get_type_hints(step)["return"]
    if "," not in names:
        return {names: returned}
    assert get_origin(returned) is tuple
    return dict(zip(names.split(", "), get_args(returned), strict=True))


def test_every_input_of_a_step_is_given_or_produced_before_with_its_type() -> None:
    available: dict[str, Any] = {}
    for names, step in STEPS:
        hints = get_type_hints(step)
        for parameter in signature(step).parameters:
            assert parameter in GIVEN | set(available), f"{step.__name__} needs {parameter}"
            if parameter in available:
                assert hints[parameter] == available[parameter], f"{step.__name__}({parameter})"
        available.update(result_types(names, step))
    assert available["rollup"] == get_type_hints(build_rollup)["return"]


def test_every_result_is_read_by_a_later_step() -> None:
    names = [name for outputs, _ in STEPS for name in outputs.split(", ")]
    read = {parameter for _, step in STEPS for parameter in signature(step).parameters}
    assert set(names) - read == {"rollup"}


def test_the_package_lists_every_step() -> None:
    assert [step.__name__ for _, step in STEPS if f".{step.__name__}" not in str(attribution.__doc__)] == []
