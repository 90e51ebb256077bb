"""The errors of the client are those that the service explains."""

from __future__ import annotations

import httpx
import pytest

from ambience.problems import KINDS, ClientError, Problem, problem_of
from deployments.http import application, problems

PLAIN = {"/problems/internal-error", "/problems/not-found", "/problems/method-not-allowed"}
"""Types that no caller catches by class."""


def answer(status: int, **members: object) -> httpx.Response:
    return httpx.Response(status, json={"status": status, **members})


def test_every_type_of_problem_has_its_class() -> None:
    assert application  # It imports every room that has an error class of its own.
    assert KINDS.keys() - {"/problems/problem"} == problems.explanations().keys() - PLAIN


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_raises_the_class_of_its_type(kind: str) -> None:
    found = problem_of(answer(409, type=kind, title="T", detail="what to do", field="image"))
    assert type(found) is KINDS[kind]
    assert (found.status, found.title, str(found), found.field) == (409, "T", "what to do", "image")
    assert isinstance(found, ClientError)


def test_an_unknown_type_is_a_plain_problem() -> None:
    found = problem_of(answer(418, type="/problems/teapot", title="T", detail="d", more=[1]))
    assert type(found) is Problem
    assert found.type == "/problems/teapot"


@pytest.mark.parametrize("body", [b"<html>Bad gateway", b"[1]", b'"text"', b"", b"\xff\xfe"])
def test_an_answer_that_is_no_problem_says_what_came(body: bytes) -> None:
    found = problem_of(httpx.Response(502, content=body))
    assert (found.status, found.title) == (502, "Bad Gateway")
    assert "502" in str(found)
