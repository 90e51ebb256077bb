"""TIFF files that Pillow reads wrongly or not at all, read by tifffile, segment by segment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UnsupportedPicture

if TYPE_CHECKING:
    import tifffile

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_READ = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
"""Photometric interpretations that are read, with their number of colour samples."""
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_PILLOW_READS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}
"""Compressions: none, CCITT, LZW, JPEG, Deflate, PackBits, LZMA and Zstandard."""
_OLD_JPEG, _JPEG = 6, 7
_PREMULTIPLIED, _ALPHA = 1, 2
_REDUCED = 1
_PLANAR = 2
_BIG_ENDIAN_BIGTIFF = b"MM\0+"
"""Of which Pillow does not see that it is a BigTIFF."""

Samples = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TiffPixels:
    """The samples of a TIFF, not scaled yet."""

    samples: Samples
    """(height, width, samples per pixel)."""
    there: npt.NDArray[np.bool_]
    """(height, width): which pixels are there."""
    depth: int | None
    """Bits of an unsigned sample; None for signed and floating-point samples."""
    colors: int
    alpha: int | None
    """Index of the sample that is alpha."""
    premultiplied: bool
    inverted: bool
    cmyk: bool
    palette: Samples | None
    """(entries, 3) of 16 bits."""


class TiffPage:
    """The first page of a TIFF that is no reduced copy."""

    def __init__(self, data: bytes) -> None:
        import tifffile

        # It logs each damaged tag as an error.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        self._data = data
        try:
            pages = tifffile.TiffFile(BytesIO(data)).pages
            whole = (
                page
                for page in list(pages)[:32]
                if isinstance(page, tifffile.TiffPage) and not page.subfiletype & _REDUCED
            )
            self.page: tifffile.TiffPage = next(whole, None) or pages.first
        except tifffile.TiffFileError as exc:
            raise ValueError(str(exc)) from exc
        self.width, self.height = int(self.page.imagewidth), int(self.page.imagelength)

    @property
    def is_plain(self) -> bool:
        """Whether Pillow reads it rightly: up to 8 bits, or gray of 16 that is no negative."""
        page = self.page
        bits = page.bitspersample
        if int(page.compression) not in _PILLOW_READS or page.index != 0:
            return False
        if self._data.startswith(_BIG_ENDIAN_BIGTIFF):
            return False
        if int(page.photometric) == _CMYK and page.samplesperpixel > 4:
            return False
        if page.sampleformat == _UNSIGNED and bits in (1, 2, 4, 8):
            return page.planarconfig != _PLANAR or bits == 8
        chunky = page.samplesperpixel == 1 and int(page.photometric) == _BLACK_IS_ZERO
        wide = bits == 32 and page.sampleformat in (_SIGNED, _FLOAT)
        return chunky and (wide or (bits == 16 and page.sampleformat == _UNSIGNED))

    @property
    def encoding(self) -> str:
        """How the samples are stored, in words."""
        page = self.page
        kind = {_UNSIGNED: "unsigned", 2: "signed", _FLOAT: "floating-point"}
        bits = page.bitspersample if isinstance(page.bitspersample, int) else "mixed"
        return (
            f"{page.samplesperpixel} {kind.get(int(page.sampleformat), 'complex')} samples of "
            f"{bits} bits, {_name(page.photometric)}, {_name(page.compression)} compression"
        )

    @property
    def orientation(self) -> int:
        """EXIF orientation 1 to 8."""
        tag = self.page.tags.get(274)
        return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1

    @property
    def icc(self) -> bytes | None:
        """The ICC profile."""
        tag = self.page.tags.get(34675)
        return bytes(tag.value) if tag is not None and isinstance(tag.value, bytes) else None

    def check(self) -> None:
        """Raise UnsupportedPicture, which names the encoding, if it is none that is read."""
        page = self.page
        colors = _READ.get(int(page.photometric))
        mixed = not isinstance(page.bitspersample, int)
        complex_samples = int(page.sampleformat) not in (1, 2, 3, 4)
        deep = page.imagedepth > 1
        subsampled = int(page.photometric) == _YCBCR and int(page.compression) not in (
            _OLD_JPEG,
            _JPEG,
        )
        if (
            colors is None
            or subsampled
            or mixed
            or complex_samples
            or deep
            or page.samplesperpixel < colors
        ):
            raise UnsupportedPicture(
                f"this TIFF's encoding is not read ({self.encoding}): save it as 8-bit RGB", "image"
            )

    def read(self) -> TiffPixels:
        """Decode the page; segments that are damaged or cut off are not there."""
        page = self.page
        planes = page.samplesperpixel if page.planarconfig == _PLANAR else 1
        inside = page.samplesperpixel // planes
        dtype = page.dtype or np.dtype(np.uint8)
        samples = np.zeros((planes, self.height, self.width, inside), dtype)
        there = np.zeros((planes, self.height, self.width), np.bool_)
        for index, (offset, size) in enumerate(
            zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            if size == 0 or offset + size > len(self._data):
                continue
            decoded = self._segment(index, self._data[offset : offset + size])
            if decoded is None:
                continue
            segment, (plane, _, top, left, _), (_, down, across, _) = decoded
            if plane >= planes:
                break
            part = segment[0, :down, :across]
            rows, columns = self.height - top, self.width - left
            part = part[:rows, :columns]
            area = slice(top, top + part.shape[0]), slice(left, left + part.shape[1])
            samples[plane][area] = part
            there[plane][area] = True
        return self._described(np.concatenate(list(samples), axis=2), np.logical_and.reduce(there))

    def _segment(self, index: int, data: bytes) -> tuple[Samples, Any, Any] | None:
        try:
            decoded = self.page.decode(data, index, jpegtables=self.page.jpegtables)
        except (ValueError, RuntimeError, TypeError, IndexError, KeyError, OSError) as exc:
            if "codec" in str(exc) or "imagecodecs" in str(exc):
                raise UnsupportedPicture(
                    f"this TIFF's encoding is not read ({self.encoding}): save it as 8-bit RGB",
                    "image",
                ) from exc
            return None
        segment, where, shape = decoded
        return None if segment is None else (segment, where, shape)

    def _described(self, samples: Samples, there: npt.NDArray[np.bool_]) -> TiffPixels:
        page = self.page
        photometric = int(page.photometric)
        extra = [int(one) for one in page.extrasamples]
        alpha = next((at for at, one in enumerate(extra) if one in (_PREMULTIPLIED, _ALPHA)), None)
        colors = _READ[photometric]
        return TiffPixels(
            samples,
            there,
            int(page.bitspersample) if int(page.sampleformat) in (_UNSIGNED, 4) else None,
            colors,
            None if alpha is None else colors + alpha,
            alpha is not None and extra[alpha] == _PREMULTIPLIED,
            photometric == _WHITE_IS_ZERO,
            photometric == _CMYK,
            None if photometric != _PALETTE else np.asarray(page.colormap).T,
        )


def _name(value: Any) -> str:
    return str(getattr(value, "name", value)).lower().replace("_", " ")
