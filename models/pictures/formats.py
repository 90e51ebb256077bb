"""Detect the format of a picture file, and the files that are dangerous to decode."""

from __future__ import annotations

import re

from models.errors import BrokenPicture

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, PNM, TIFF, AVIF, HEIC"

SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "PNM": re.compile(rb"P[1-6fF]\s"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "AVIF or HEIC": re.compile(
        rb".{4}ftyp(avi[fs]|mi[fa][1f]|msf1|hei[cxms]|hev[cxms])", re.DOTALL
    ),
}
_PLAIN_PNM = re.compile(rb"P[123]\s")
_MAX_SCANS = 100
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)


def kind_of(data: bytes) -> str | None:
    """The format as a key of SIGNATURES, by the first bytes; None for a format not accepted."""
    head = data[:32]
    return next((kind for kind, magic in SIGNATURES.items() if magic.match(head)), None)


def needs_child(data: bytes) -> bool:
    """Whether decoding may crash the process or never end, so that it needs a killable child.

    libtiff, libavif and libheif may crash. Pillow reads plain PNM and run-length BMP in Python
    loops, which hold the interpreter for minutes on a large file.
    """
    kind = kind_of(data)
    if kind == "BMP":
        return len(data) >= 34 and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    return kind in ("TIFF", "AVIF or HEIC") or _PLAIN_PNM.match(data) is not None


def refuse_scan_bombs(data: bytes) -> None:
    """Raise BrokenPicture for a progressive JPEG of many nearly empty scans: each scan costs a pass
    over all pixels."""
    if data.count(b"\xff\xda") <= _MAX_SCANS:
        return
    # Scans inside metadata or after the end of the picture (phones append videos) don't count.
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(data, position)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        if scans > _MAX_SCANS:
            raise BrokenPicture(f"the JPEG has more than {_MAX_SCANS} scans", "image")
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
