"""Rate limits: told with every answer, refused beyond, by principal; telemetry is never counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.rate_limits import RateLimits
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.settings import ServeSettings, Settings
from tests.support.api_examples import reach


def test_a_quota_is_told_and_what_is_beyond_it_refused(home: Path) -> None:
    settings = Settings(home=home, serve=ServeSettings(requests_per_minute=3))
    with Books(settings) as books, reach(books) as http:
        _, key = create_key(books, "robot", [Grant("viewer")], actor="test")
        of_robot = {"Authorization": f"Bearer {key}"}
        answers = [http.get("/v1/budgets", headers=of_robot) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        remaining = [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers]
        assert remaining == [f'"principal";r={left}' for left in (2, 1, 0, 0)]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"principal";q=3;w=60'}
        refusal = answers[-1]
        assert 1 <= int(refusal.headers["Retry-After"]) <= 60
        assert refusal.json()["type"] == "/problems/rate-limited"
        assert "robot has made 3 requests within a minute" in refusal.json()["detail"]
        # Others, what tells nothing of the ledger, and telemetry go on.
        assert [http.get("/v1/budgets").status_code for _ in range(5)] == [200] * 5
        assert "RateLimit" not in http.get("/health").headers
        for _ in range(5):
            assert http.post("/v1/traces", json={"resourceSpans": []}, headers=of_robot).status_code == 403


@pytest.mark.parametrize("jump", [60.0, 10_000.0])
def test_a_window_ends_and_windows_are_bounded(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rate_limits._MAX_WINDOWS", 100)
    at = 0.0
    limits = RateLimits(lambda *_: None, quota=2, clock=lambda: at)  # type: ignore[arg-type]
    assert [limits._count("a") for _ in range(3)] == [(1, 60), (2, 60), (3, 60)]
    at = 59.5
    assert limits._count("a") == (4, 1)
    at += jump
    assert limits._count("a") == (1, 60)
    for number in range(1000):
        at += 1
        limits._count(f"key:{number}")
    assert len(limits._windows) <= 100
