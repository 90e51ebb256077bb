"""The segments of JPEG files (ITU-T T.81): bombs of scans, and what a file that is cut short
lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import BrokenPicture, UnsupportedPicture

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xCA}
_ARITHMETIC = {0xC9, 0xCA}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_UNUSUAL = {
    0xF7: "JPEG-LS",
    **dict.fromkeys(_LOSSLESS, "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE, 0xDE), "a hierarchical JPEG"),
}
_METADATA = {0xFE, *range(0xE1, 0xEE), 0xEF}
_FILLER = re.compile(rb"(\0{16,}|\xff{16,})\Z")
_DAMAGE = re.compile(r"Corrupt JPEG data: (?!\d+ extraneous)|Premature end of JPEG")
_MAX_SCANS = 100
_MAX_SEGMENTS = 10_000
_MAX_HEAD_SEGMENTS = 100
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_NOISE = bytes((7 * n * n + 31 * n + n // 3) % 251 + 1 for n in range(4096))


@dataclass(frozen=True, slots=True)
class Segment:
    """A marker, the position of its 0xFF, and the end of its body; a scan's pixels come after."""

    marker: int
    begin: int
    end: int


def segments(data: bytes, begin: int = 0) -> Iterator[Segment]:
    """The segments from a SOI on, up to EOI or the end of the data; the last may be cut short."""
    position = begin + 2
    for _ in range(_MAX_SEGMENTS):
        found = MARKER.search(data, position)
        if found is None:
            return
        marker, position = found[1][0], found.end()
        if marker != EOI:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        yield Segment(marker, found.start(), position)
        if marker == EOI:
            return


def refuse_unusual(data: bytes) -> None:
    """Raise UnsupportedPicture, which names the coding, for a JPEG that no browser shows."""
    for segment in islice(segments(data), _MAX_HEAD_SEGMENTS):
        coding = _UNUSUAL.get(segment.marker)
        bits = data[segment.begin + 4 : segment.begin + 5] if segment.marker in _FRAMES else b"\x08"
        if coding is None and bits not in (b"", b"\x08"):
            coding = f"a JPEG with samples of {bits[0]} bits"
        if coding is not None:
            raise UnsupportedPicture(
                f"this is {coding}, which is not read: save it as a JPEG of 8 bits or as PNG",
                "image",
            )
        if segment.marker in _FRAMES or segment.marker == SOS:
            return


def refuse_scan_bombs(data: bytes) -> None:
    """Raise BrokenPicture for a progressive JPEG of many nearly empty scans: each scan costs a pass
    over all pixels."""
    if data.count(b"\xff\xda") <= _MAX_SCANS:
        return
    # Scans inside metadata or after the end of the picture (phones append videos) don't count.
    scans = 0
    for segment in segments(data):
        scans += segment.marker == SOS
        if scans > _MAX_SCANS:
            raise BrokenPicture(f"the JPEG has more than {_MAX_SCANS} scans", "image")


def has_end(data: bytes) -> bool:
    """Whether an end marker follows the first scan; where bytes that fill a file to a planned size
    stand instead, a decoder takes those for pixels."""
    if data.endswith(b"\xff\xd9"):
        return True
    scan = next((one.end for one in segments(data) if one.marker == SOS), len(data))
    return data.find(b"\xff\xd9", scan) >= 0


def ended(data: bytes) -> bytes | None:
    """A JPEG that ends early, cut after the last whole segment or inside its scan and ended.

    Bytes that fill a file to its planned size are cut, too. None if no pixels are there.
    """
    data = _FILLER.sub(b"", data).rstrip(b"\xff")
    end = scan = 0
    for segment in segments(data):
        if segment.marker == EOI:
            return data[: segment.begin] + b"\xff\xd9"
        end = segment.begin
        if segment.end >= len(data):
            return data[:end] + b"\xff\xd9" if scan else None
        if segment.marker == SOS:
            scan = segment.end
            end = len(data)
    return data[:end] + b"\xff\xd9" if scan else None


def continued(data: bytes) -> bytes:
    """The JPEG with noise before its end: what decodes differently was not there."""
    end = next((one.begin for one in segments(data) if one.marker == EOI), len(data))
    # Arithmetic encoders leave out zeros at the end.
    before = b"\0\0\xa5\x5a" if is_arithmetic(data) else b""
    return data[:end] + before + _NOISE + b"\xff\xd9"


def is_damage(warning: str) -> bool:
    """Whether a warning of libjpeg says that pixels are lost, as bytes between segments do not."""
    return _DAMAGE.search(warning) is not None


def is_arithmetic(data: bytes) -> bool:
    """Whether a JPEG is arithmetic-coded."""
    markers = (segment.marker for segment in islice(segments(data), _MAX_HEAD_SEGMENTS))
    return next((marker for marker in markers if marker in _FRAMES), SOS) in _ARITHMETIC


def has_many_scans(data: bytes) -> bool:
    """Whether a JPEG is progressive, or stores each of its colours in a scan of its own, so that a
    decoder holds its coefficients; or hides that behind many segments."""
    colors = 0
    for number, segment in enumerate(segments(data)):
        if number == _MAX_HEAD_SEGMENTS:
            return True
        at = segment.begin
        if segment.marker in _PROGRESSIVE:
            return True
        if segment.marker in _FRAMES:
            colors = int.from_bytes(data[at + 9 : at + 10])
        if segment.marker == SOS:
            return int.from_bytes(data[at + 4 : at + 5]) < colors
    return False


def scans_complete(data: bytes) -> bool:
    """Whether the scans of a JPEG bring every coefficient to its last bit."""
    left: dict[int, set[int]] = {}
    at = len(data)
    for segment in segments(data):
        body = data[segment.begin + 4 : segment.end]
        if segment.marker in _FRAMES and len(body) > 5:
            left = {body[at]: set(range(64)) for at in range(6, len(body) - 2, 3)}
        if segment.marker == SOS:
            at = segment.begin
            break
    # Inside a scan no marker occurs, so the next two bytes that look like one are one.
    while at >= 0 and any(left.values()):
        body = data[at + 4 : at + 4 + 64]
        count = body[0] if body else 0
        if len(parameters := body[1 + 2 * count : 4 + 2 * count]) == 3:
            first, last, bits = parameters
            if bits & 15 == 0:
                for part in body[1 : 1 + 2 * count : 2]:
                    left.get(part, set()).difference_update(range(first, last + 1))
        at = data.find(b"\xff\xda", at + 2)
    return not any(left.values())


def without_metadata(data: bytes) -> bytes:
    """The JPEG without its application segments and comments, except JFIF's and Adobe's."""
    kept, at = [], 0
    for segment in segments(data):
        if segment.marker in _METADATA:
            kept.append(data[at : segment.begin])
            at = segment.end
        if segment.marker in (SOS, EOI):
            break
    return b"".join([*kept, data[at:]])


def size_of(data: bytes, begin: int = 0) -> tuple[int, int] | None:
    """Width and height of the JPEG that begins here; None unless it is one that browsers show."""
    for segment in islice(segments(data[begin : begin + (1 << 20)]), _MAX_HEAD_SEGMENTS):
        at = begin + segment.begin
        if segment.marker in _LOSSLESS or segment.marker in (SOS, EOI, SOI):
            return None
        if segment.marker in _FRAMES:
            height, width = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (5, 7))
            return (width, height) if width and height and data[at + 4] == 8 else None
    return None


def estimated_quality(table: Sequence[int] | None) -> int | None:
    """The quality from 1 to 100 whose table of the IJG's library is nearest to this table of 64
    luma steps, of any order; None for no such table."""
    if table is None or len(table) != 64:
        return None
    apart = np.abs(_standard_tables() - np.sort(np.asarray(table, np.int64))).sum(1)
    return 100 - int(apart[::-1].argmin())


@cache
def _standard_tables() -> npt.NDArray[np.int64]:
    """The luma tables (ITU-T T.81, table K.1) of the qualities 1 to 100, each sorted."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(np.clip((np.array(_LUMA) * percent + 50) // 100, 1, 255), axis=1)


def coefficients(size: tuple[int, int], layers: Sequence[Sequence[Any]]) -> int:
    """Number of coefficients, of two bytes each, that a JPEG of many scans and this size holds,
    whatever the reduction; layers have their sampling factors at 1 and 2."""
    shares = [(across, down) for _, across, down, *_ in layers]
    most = (
        max((across for across, _ in shares), default=1),
        max((down for _, down in shares), default=1),
    )
    samples = sum(across * down for across, down in shares) / (most[0] * most[1])
    return int(size[0] * size[1] * samples)


def reduction(short: int) -> int:
    """Factor by which the decoder reduces a JPEG of this short side, which stays ≥ 768.

    A factor of 4 applies only from 5120 pixels up: at a quarter of the size, the colours of finely
    detailed 12–24 MP pictures move by up to 6 %, at half the size by under 3 %, and a quarter saves
    only a tenth of the decoding time.
    """
    return next((by for by, least in ((8, 10240), (4, 5120), (2, 1536)) if short >= least), 1)
