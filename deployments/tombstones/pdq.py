"""PDQ hashes, which services that moderate pictures exchange: 256 bits of a picture (Facebook 2019,
"The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm")."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deployments.tombstones.records import Tombstone
from models.errors import InvalidInput
from models.types import Pixels

SAME_BITS = 31
"""Number of different bits up to which pictures count as the same."""
MIN_QUALITY = 50
"""Quality, of 100, below which a hash says nothing: the picture has hardly any content."""
HEX_DIGITS = 64
PREFIX = "pdq-"


def hashes(rgb: Pixels) -> npt.NDArray[np.uint8]:
    """The hashes (8, 32) of all flips and rotations of a picture (height, width, 3); none, (0, 32),
    if its quality is too low."""
    import pdqhash  # Most replicas never need it.

    bits, quality = pdqhash.compute_dihedral(np.ascontiguousarray(rgb))
    if quality < MIN_QUALITY:
        return np.empty((0, HEX_DIGITS // 2), np.uint8)
    return np.packbits(np.stack(bits).astype(np.uint8), axis=1)


def line_of(rgb: Pixels, name: str) -> str | None:
    """A line of a list, `hash,quality,name`; None if its quality is too low."""
    import pdqhash

    bits, quality = pdqhash.compute(np.ascontiguousarray(rgb))
    if quality < MIN_QUALITY:
        return None
    return f"{np.packbits(bits.astype(np.uint8)).tobytes().hex()},{quality},{name}"


def from_hex(text: str) -> npt.NDArray[np.uint8]:
    """A hash (32,) by its 64 hex digits. Raises InvalidInput."""
    try:
        found = np.frombuffer(bytes.fromhex(text), np.uint8)
    except ValueError as exc:
        raise InvalidInput(f"{text[:80]!r} is no PDQ hash: {exc}") from exc
    if len(text) != HEX_DIGITS or len(found) != HEX_DIGITS // 2:
        raise InvalidInput(f"{text[:80]!r} is no PDQ hash of {HEX_DIGITS} hex digits")
    return found


def read_list(lines: Iterator[str]) -> Iterator[Tombstone]:
    """Tombstones of a list with a hash a line, or `hash,quality` and more; what follows is their
    note. Hashes of low quality and empty lines are left out. Raises InvalidInput that names the
    line."""
    for number, line in enumerate(lines, 1):
        given, *rest = (one.strip() for one in line.strip().split(",", 2))
        given = given.lower()
        if not given or given.startswith("#") or (number == 1 and given in ("hash", "pdq")):
            continue
        try:
            from_hex(given)
            quality = int(rest[0]) if rest and rest[0] else 100
        except (InvalidInput, ValueError) as exc:
            raise InvalidInput(f"line {number}: {exc}") from exc
        if quality >= MIN_QUALITY:
            yield Tombstone(PREFIX + given, time.time(), "".join(rest[1:]), pdq=given)
