"""Detect what a file is by its content, and which formats are dangerous to decode."""

from __future__ import annotations

import re

ACCEPTED = (
    "JPEG, PNG, WebP, GIF, BMP, PNM, TIFF, AVIF, HEIC, JPEG XL, JPEG 2000, PSD, ICO, TGA, QOI, "
    "camera RAW"
)
HEAD = 2048
"""Number of first bytes of a file that tell its format."""

AVIF, HEIF, RAW, TGA = "AVIF", "HEIC", "camera RAW", "TGA"

SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n(?!.{4}CgBI)", re.DOTALL),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM.{12}[\x0c-\x7f]\0\0\0", re.DOTALL),
    "PNM": re.compile(rb"P[1-6f]\s"),
    # Panasonic's RW2, Olympus's ORF and Canon's CRW look like TIFF; Fujifilm's RAF does not.
    RAW: re.compile(rb"IIU\0|IIR[OS]|MMOR|II\x1a\0\0\0HEAPCCDR|FUJIFILMCCD-RAW|FOVb|II\*\0.{4}CR"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    "PSD": re.compile(rb"8BPS\x00[\x01\x02]"),
    "ICO": re.compile(rb"\x00\x00[\x01\x02]\x00[^\x00]\x00"),
    "QOI": re.compile(rb"qoif"),
}

_BRANDS = {
    AVIF: {b"avif", b"avis"},
    HEIF: {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif"},
    RAW: {b"crx "},
}
"""Brands of ISO media files, best first."""
_STILL_BRANDS = {b"mif1", b"mif2", b"mif3", b"miaf", b"msf1", b"tmap", b"MiHE", b"MiHB", b"MiPr"}
"""Brands of files with still pictures of an unnamed codec."""

_SEND = "send a JPEG or PNG instead"
OTHERS = {
    "PDF document": (re.compile(rb"\s*%PDF-"), "send its pages as PNG or JPEG"),
    "SVG drawing": (
        re.compile(
            rb"(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!DOCTYPE svg.*?)?<svg\b", re.DOTALL
        ),
        "send it drawn, as PNG",
    ),
    "web page": (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", re.IGNORECASE),
        "save the picture itself and send that",
    ),
    "video": (
        re.compile(
            rb".{4}(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF.{4}AVI |OggS|FLV\x01"
            rb"|\x00\x00\x01[\xba\xb3]|\x30\x26\xb2\x75\x8e\x66\xcf\x11|G.{187}G",
            re.DOTALL,
        ),
        "send one of its frames as JPEG",
    ),
    "audio file": (re.compile(rb"ID3|fLaC|RIFF.{4}WAVE|\xff[\xfb\xf3\xf2]", re.DOTALL), _SEND),
    "OpenEXR picture": (re.compile(rb"v/1\x01"), _SEND),
    "Radiance HDR picture": (re.compile(rb"#\?RADIANCE|#\?RGBE"), _SEND),
    "PAM or colour PFM picture": (re.compile(rb"P7\nWIDTH|P7\n#|PF\n"), _SEND),
    "JPEG XR picture": (re.compile(rb"II\xbc"), _SEND),
    "PNG packed for iOS apps": (
        re.compile(rb"\x89PNG\r\n\x1a\n.{4}CgBI", re.DOTALL),
        "save it as a plain PNG",
    ),
    "MNG or JNG animation": (re.compile(rb"\x8aMNG|\x8bJNG"), _SEND),
    "SGI picture": (re.compile(rb"\x01\xda[\x00\x01][\x01\x02]"), _SEND),
    "BPG picture": (re.compile(rb"BPG\xfb"), _SEND),
    "Windows metafile": (
        re.compile(rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", re.DOTALL),
        "send it drawn, as PNG",
    ),
    "DDS texture": (re.compile(rb"DDS "), _SEND),
    "PostScript file": (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "send it drawn, as PNG or JPEG"),
    "DjVu document": (re.compile(rb"AT&TFORM"), "send its pages as PNG or JPEG"),
    "GIMP picture": (re.compile(rb"gimp xcf"), "export it as PNG"),
    "Apple icon": (re.compile(rb"icns"), "send it as PNG"),
    "PCX picture": (re.compile(rb"\n[\x00-\x05]\x01[\x01\x02\x04\x08]"), _SEND),
    "archive": (
        re.compile(rb"PK\x03\x04|PK\x05\x06|Rar!\x1a|7z\xbc\xaf|\x1f\x8b\x08|BZh|\xfd7zXZ\0"),
        "unpack it and send the pictures",
    ),
}
"""Files that are no accepted picture: name → (first bytes, what to send instead)."""
ENCODINGS = {
    "MPO": "JPEG",
    "PPM": "PNM",
    "WEBP": "WebP",
    "HEIF": HEIF,
    "JXL": "JPEG XL",
    "JPEG2000": "JPEG 2000",
}
"""Names of encodings by Pillow's names, where they differ."""
ENCODING_NAMES = (
    *("JPEG", "PNG", "WebP", "GIF", "BMP", "PNM", "TIFF", AVIF, HEIF),
    *("JPEG XL", "JPEG 2000", "PSD", "ICO", TGA, "QOI", "RAW"),
)
"""All names of encodings that `FileFacts.format` may have."""
_PLAIN_PNM = re.compile(rb"P[123]\s")
_IN_THREADS = {"JPEG", "PNG", "WebP", "GIF", "BMP", "PNM", None}


def kind_of(data: bytes) -> str | None:
    """The format of a file by its first `HEAD` bytes; None for a format not accepted.

    It is a key of SIGNATURES, or AVIF, HEIF or TGA.
    """
    head = data[:HEAD]
    if head[4:8] == b"ftyp":
        return _media_kind(head)
    kind = next((kind for kind, magic in SIGNATURES.items() if magic.match(head)), None)
    return kind or (TGA if other_kind(head) is None and _looks_like_tga(head) else None)


def refusal(data: bytes) -> str:
    """The sentence for a file that is no accepted picture: what it is, and what to send instead."""
    other = other_kind(data)
    if other is None:
        return f"this is no picture of an accepted format ({ACCEPTED})"
    article = "an" if other.startswith(("A", "O", "a", "e", "o", "MNG", "SGI", "SVG")) else "a"
    return (
        f"this is {article} {other}, and not of an accepted format ({ACCEPTED}): "
        + (OTHERS[other][1])
    )


def other_kind(data: bytes) -> str | None:
    """What a file is that is no accepted picture, a key of OTHERS; None if that is unknown."""
    head = data[:HEAD]
    return next((name for name, (magic, _) in OTHERS.items() if magic.match(head)), None)


def brands(data: bytes) -> list[bytes]:
    """The brands of an ISO media file (ISO/IEC 14496-12, `ftyp`), the major one first."""
    end = min(int.from_bytes(data[:4], "big"), len(data), HEAD)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def needs_child(data: bytes) -> bool:
    """Whether decoding may crash the process or never end, so that it needs a killable child.

    Of the libraries only those for JPEG, PNG, WebP and GIF are trusted. Plain PNM (by Pillow) and
    BMP of runs are read in Python loops, which hold the interpreter for minutes on a large file.
    """
    kind = kind_of(data)
    if kind == "BMP":
        return len(data) >= 34 and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    return kind not in _IN_THREADS or _PLAIN_PNM.match(data) is not None


def _media_kind(head: bytes) -> str | None:
    named = brands(head)
    for kind, known in _BRANDS.items():
        if named[0] in known:
            return kind
    for kind, known in _BRANDS.items():
        if known.intersection(named):
            return kind
    return HEIF if _STILL_BRANDS.intersection(named) else None


def _looks_like_tga(head: bytes) -> bool:
    """Truevision TGA has no signature, so its header must be one that makes sense."""
    if len(head) < 18:
        return False
    colours, kind, depth = head[1], head[2], head[16]
    width, height = (int.from_bytes(head[at : at + 2], "little") for at in (12, 14))
    mapped = kind in (1, 9) and colours == 1 and depth == 8 and head[7] in (15, 16, 24, 32)
    unmapped = colours == 0 and not any(head[3:8])
    true = kind in (2, 10) and unmapped and depth in (15, 16, 24, 32)
    gray = kind in (3, 11) and unmapped and depth in (8, 16)
    return (mapped or true or gray) and width > 0 and height > 0 and head[17] & 0xC0 == 0
