"""Opaque cursors of the lists that `/v1` gives page by page."""

from __future__ import annotations

import base64
import binascii

from models.errors import InvalidInput

AFTER = ":"


def packed(text: str) -> str:
    """A text as a cursor."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def unpacked(cursor: str) -> str | None:
    """The text of a cursor; None unless `packed` has made it."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        return None
    return text if packed(text) == cursor else None


def after_key(of: str, key: str | None) -> str | None:
    """The cursor of the page after a key, which is printable ASCII, of the list of this name; None
    if there is no more."""
    return None if key is None else packed(f"{of}{AFTER}{key}")


def key_before(of: str, cursor: str | None) -> str:
    """The key after which the page of a cursor begins, "" for the first page.

    Raises InvalidInput for a cursor that `after_key` has not made of a key of this list.
    """
    if cursor is None:
        return ""
    name, _, key = (unpacked(cursor) or "").partition(AFTER)
    if name != of or not (key and key.isascii() and key.isprintable()):
        raise InvalidInput("cursor: pass on the next_cursor of a previous answer", "cursor")
    return key
