"""Cursors that name where the next page of a list begins."""

from __future__ import annotations

import pytest

from deployments.ingress.listing.cursors import after_key, key_before, packed
from models.errors import InvalidInput


def test_a_cursor_leads_back_to_its_key() -> None:
    for key in ("00.0001.7", "a:b", " ~"):
        cursor = after_key("groups", key)
        assert cursor is not None
        assert cursor != key
        assert key_before("groups", cursor) == key


def test_the_first_page_has_no_cursor_and_the_last_one_gives_none() -> None:
    assert key_before("groups", None) == ""
    assert after_key("groups", None) is None


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "=", "....", "00.0001.7", "%00", "Z3JvdXBzOg", "a" * 100]
    + [packed(text) for text in ("groups:", "groups", "rules:a", "groups:\0", "groups:ä")]
    + [f"{packed('groups:a')}=", f"{packed('groups:a')} "],
)
def test_what_no_answer_has_given_is_refused_by_name(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="next_cursor of a previous answer") as refused:
        key_before("groups", cursor)
    assert refused.value.field == "cursor"
