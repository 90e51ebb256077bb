"""Check that the installed Pillow reads every accepted format; `make simd` runs this check."""

from __future__ import annotations

import io
import sys
from typing import Any

from PIL import Image, features

from models.errors import AmbienceError
from models.pictures.decoding import decode

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "PNG": {},
    "WEBP": {},
    "GIF": {},
    "BMP": {},
    "PPM": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {},
    "HEIF": {},
    "JPEG XL": {},
    "JPEG 2000": {},
    "ICO": {"sizes": [(64, 64)]},
    "TGA": {},
}
"""Options for saving the test picture, by Pillow's name of the format. LZW tests libtiff, because
nothing else reads it. PSD, QOI and camera RAW need no library of Pillow's."""
_PLUGINS = {"JPEG XL": "JXL", "JPEG 2000": "JPEG2000"}


def unreadable() -> dict[str, str]:
    """Formats that can't be written and read again, each with the reason."""
    import pillow_heif
    from pillow_jxl import JpegXLImagePlugin

    assert JpegXLImagePlugin
    pillow_heif.register_heif_opener()
    missing = {name: reason for name in FORMATS if (reason := _reason(name)) is not None}
    if not features.check("littlecms2"):
        missing["ICC profile"] = "littleCMS is missing"
    return missing


def _reason(name: str) -> str | None:
    file = io.BytesIO()
    try:
        Image.new("RGB", (64, 64), "red").save(file, _PLUGINS.get(name, name), **FORMATS[name])
        decode(file.getvalue())
    except (KeyError, OSError, ValueError, AmbienceError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return None


def main() -> None:
    """Print the formats that can't be read, and exit with status 1 if there are any."""
    print(f"Pillow {features.version('pil')}")
    for name, reason in (missing := unreadable()).items():
        print(f"{name} can't be read: {reason}", file=sys.stderr)
    if missing:
        sys.exit("install the libraries with their headers, then run `make simd` again")


if __name__ == "__main__":
    main()
