"""Response headers that say who answered."""

from __future__ import annotations

import pytest

from deployments.ingress.report import Report


def test_a_report_of_nothing_has_no_headers() -> None:
    assert Report().headers() == {}


def test_those_who_answered_are_listed_in_order() -> None:
    assert Report(answered={"phash", "color"}).headers() == {"X-Ambience-Answered": "color,phash"}


def test_a_retriever_with_a_missing_list_does_not_count_as_answered() -> None:
    report = Report(answered={"phash", "color"}, missing={"phash": "loading"})
    assert report.headers() == {
        "X-Ambience-Answered": "color",
        "X-Ambience-Missing": 'phash;reason="loading"',
    }


@pytest.mark.parametrize(
    ("reason", "quoted"),
    [
        ('a "quoted" \\ one', 'a \\"quoted\\" \\\\ one'),
        ("two\nlines", "two lines"),
        ("two\r\nlines", "two  lines"),
        ("größer", "gr??er"),
    ],
)
def test_a_reason_never_breaks_the_header(reason: str, quoted: str) -> None:
    headers = Report(missing={"local": reason}).headers()
    assert headers["X-Ambience-Missing"] == f'local;reason="{quoted}"'
    assert headers["X-Ambience-Missing"].isprintable()


def test_times_of_the_same_stage_add_up() -> None:
    report = Report()
    for _ in range(2):
        with report.timed("decode"):
            pass
    assert list(report.seconds) == ["decode"]
    report.seconds["decode"] = 0.01234
    report.seconds["fuse"] = 1
    assert report.headers()["Server-Timing"] == "decode;dur=12.3, fuse;dur=1000.0"


def test_the_time_of_a_stage_that_failed_counts() -> None:
    report = Report()
    with pytest.raises(ZeroDivisionError), report.timed("decode"):
        _ = 1 / 0
    assert report.seconds["decode"] > 0


def test_a_stale_answer_is_marked() -> None:
    assert Report(stale=True).headers() == {"X-Ambience-Stale": "true"}
