"""Convert colours to sRGB, as a browser does before it shows a picture.

ICC profiles go through littleCMS. Code points (ITU-T H.273, `nclx` and `cICP`) and PNG's gamma are
computed here. What is sRGB already is left as it is, bit by bit.
"""

from __future__ import annotations

import io
import struct
from functools import cache, lru_cache
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from models.pictures.files.color_tags import MAX_PROFILE, TELEVISION_CURVES, ColorTags, Point
from models.types import Pixels

Mode = Literal["L", "RGB", "CMYK"]
Floats = npt.NDArray[np.floating[Any]]
Matrix = npt.NDArray[np.float64]

_SPACES: dict[bytes, Mode] = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_SAME = 3
"""Steps of 255 by which a profile may move colours and still count as sRGB."""
_MAX_TAGS = 100
_MAX_CURVE = 4096
_CURVES = {b"rTRC", b"gTRC", b"bTRC", b"kTRC"}
_COLORANTS = {b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt", b"bkpt"}
_TABLES = (b"A2B", b"B2A", b"D2B", b"B2D")

_D65 = (0.3127, 0.3290)
_SRGB = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_P3 = (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_SMPTE = (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_PRIMARIES: dict[int, tuple[Point, ...]] = {
    4: ((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: _SMPTE,
    7: _SMPTE,
    8: ((0.310, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), *_P3[1:]),
    12: _P3,
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""CIE x and y of white, red, green and blue by colour primaries; others are taken for sRGB's."""
_GAMMA22, _GAMMA28, _LINEAR, _PQ, _HLG = 4, 5, 8, 16, 18
_EXPONENTS = {_GAMMA22: 2.2, _GAMMA28: 2.8, **dict.fromkeys(TELEVISION_CURVES, 2.4)}
_CONVERTED = {_LINEAR, _PQ, _HLG, *_EXPONENTS}
"""Transfer characteristics that differ from sRGB's in what browsers show."""
_WHITE_NITS = 203.0
"""Luminance of diffuse white in HDR (ITU-R BT.2408)."""
_HLG_NITS = 1000.0
_PEAK = _HLG_NITS / _WHITE_NITS
"""The brightest light, of PQ too where its file names no other."""
_SHOWN_WHITE = 0.5
"""What is shown of diffuse white, to leave room for brighter light."""
_KAPPA = 0.65
"""How far the middle of the curve above diffuse white lies."""
_LEVELS = 1 << 16


def is_fragile(icc: bytes | None) -> bool:
    """Whether a profile is more than a matrix and curves of checked sizes, or damaged.

    littleCMS evaluates those in constant time; other profiles are evaluated in a child process.
    """
    if icc is None or len(icc) > MAX_PROFILE:
        return False
    count = int.from_bytes(icc[128:132], "big")
    if count > _MAX_TAGS or len(icc) < 132 + 12 * count or icc[16:20] not in (b"RGB ", b"GRAY"):
        return True
    for at in range(132, 132 + 12 * count, 12):
        name, offset, size = struct.unpack_from(">4sII", icc, at)
        if name[:3] in _TABLES or offset + size > len(icc):
            return True
        if name in _COLORANTS and (icc[offset : offset + 4] != b"XYZ " or size < 20):
            return True
        if name in _CURVES and not _is_checked_curve(icc[offset : offset + size]):
            return True
    return False


def _is_checked_curve(tag: bytes) -> bool:
    if tag[:4] == b"para":
        return len(tag) >= 16 and tag[9] <= 4
    count = int.from_bytes(tag[8:12], "big")
    return tag[:4] == b"curv" and count <= _MAX_CURVE and len(tag) >= 12 + 2 * count


def native_mode(mode: str, tags: ColorTags) -> Mode:
    """The mode in which a picture's colours are converted: `CMYK` and `L` stay only where a profile
    speaks of them."""
    if mode in ("CMYK", "L") and tags.icc is not None and len(tags.icc) <= MAX_PROFILE:
        space = _SPACES.get(tags.icc[16:20])
        if space == mode and space is not None:
            return space
    return "RGB"


def to_srgb(pixels: Pixels, mode: Mode, tags: ColorTags) -> Pixels:
    """RGB uint8 (height, width, 3) in sRGB of uint8 pixels in this mode.

    A profile that is damaged, too large or of other channels is ignored.
    """
    if tags.icc is not None and len(tags.icc) <= MAX_PROFILE:
        transform = _transform(tags.icc, mode)
        if transform is not None:
            return np.asarray(transform.apply(Image.fromarray(pixels, mode)), np.uint8)
    if mode != "RGB":
        return np.asarray(Image.fromarray(pixels, mode).convert("RGB"), np.uint8)
    if tags.cicp is not None:
        return _from_code_points(pixels, *tags.cicp)
    if tags.gamma is not None:
        return _from_gamma(pixels, tags.gamma, tags.chromaticities)
    return pixels


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: Mode) -> ImageCms.ImageCmsTransform | None:
    """The transform of a profile; None for sRGB and for profiles that can't be applied."""
    if _SPACES.get(icc[16:20]) != mode:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        # A press has no black as dark as a screen's; programs that show photographs make up for it.
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION if mode == "CMYK" else ImageCms.Flags.NONE
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        made = ImageCms.buildTransform(profile, _srgb_profile(), mode, "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    return None if _changes_nothing(made, mode) else made


@cache
def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: Mode) -> bool:
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 16).round().astype(np.uint8)
    if mode == "L":
        given = levels[None]
        shown = given[..., None].repeat(3, 2)
    else:
        given = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        shown = given
    got = np.asarray(transform.apply(Image.fromarray(given, mode)), np.int16)
    return bool(np.abs(got - shown).max() <= _SAME)


def _from_code_points(pixels: Pixels, primaries: int, transfer: int) -> Pixels:
    points = _PRIMARIES.get(primaries)
    if points is None and transfer not in _CONVERTED:
        return pixels
    light = np.asarray(cv2.LUT(pixels, _linear_light(transfer)), np.float32)
    if transfer == _HLG:
        luma = light @ np.array((0.2627, 0.6780, 0.0593), np.float32)
        light *= np.maximum(luma, 1e-6)[..., None] ** 0.2 * (_HLG_NITS / _WHITE_NITS)
    if transfer in (_PQ, _HLG):
        light = _tone_mapped(light)
    return _encoded(light, None if points is None else _to_srgb_primaries(points))


def _from_gamma(pixels: Pixels, gamma: float, points: tuple[Point, ...] | None) -> Pixels:
    usual_gamma = not 0.01 < gamma < 10 or abs(gamma * 2.2 - 1) < 0.05
    if points is not None and (
        min(y for _, y in points) <= 0.01
        or max(
            abs(a - b)
            for one, two in zip(points, _SRGB, strict=True)
            for a, b in zip(one, two, strict=True)
        )
        < 0.005
    ):
        points = None
    if usual_gamma and points is None:
        return pixels
    samples = np.linspace(0, 1, 256)
    curve = _srgb_light(samples) if usual_gamma else samples ** (1 / gamma)
    try:
        matrix = None if points is None else _to_srgb_primaries(points)
    except np.linalg.LinAlgError:  # These primaries span no space.
        matrix = None
    return _encoded(curve.astype(np.float32)[pixels], matrix)


@cache
def _linear_light(transfer: int) -> npt.NDArray[np.float32]:
    """Linear light of each of 256 samples; 1 is diffuse white, for HLG the scene's maximum."""
    samples = np.linspace(0, 1, 256)
    light: Floats
    if transfer == _PQ:  # SMPTE ST 2084
        power = samples ** (32 / 2523)
        ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        light = 10_000 / _WHITE_NITS * ratio ** (16384 / 2610)
    elif transfer == _HLG:  # ITU-R BT.2100
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)
    elif transfer in _EXPONENTS:
        light = samples ** _EXPONENTS[transfer]
    else:
        light = samples if transfer == _LINEAR else _srgb_light(samples)
    return light.astype(np.float32)


def _srgb_light(samples: Floats) -> Floats:
    """Linear light of sRGB samples (IEC 61966-2-1)."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _tone_mapped(light: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Light of at most 1, by the reference white tone mapping operator (SMPTE ST 2094-50) for a
    screen without headroom, as Chromium does it: light up to diffuse white is halved, and a Bézier
    curve leads from there to the peak."""
    strongest = light.max(axis=2)
    middle_x = 1 - _KAPPA + _KAPPA / _SHOWN_WHITE
    middle_y = (1 - _KAPPA) * _SHOWN_WHITE + _KAPPA
    beyond = np.clip(strongest, 1, _PEAK) - 1
    square, linear = 1 - 2 * middle_x + _PEAK, 2 * (middle_x - 1)
    along = 2 * beyond / (linear + np.sqrt(linear**2 + 4 * square * beyond))
    bright = (1 - along) ** 2 * _SHOWN_WHITE + 2 * along * (1 - along) * middle_y + along**2
    mapped = np.where(strongest > 1, bright, strongest * _SHOWN_WHITE)
    scale: npt.NDArray[np.float32] = mapped / np.maximum(strongest, 1e-6)
    return light * scale[..., None].astype(np.float32)


def _to_srgb_primaries(points: tuple[Point, ...]) -> Matrix:
    """3×3 from linear light of these primaries to that of sRGB, with Bradford's adaptation of the
    white."""
    ours, theirs = _to_xyz(_SRGB), _to_xyz(points)
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    cones = bradford @ theirs.sum(axis=1), bradford @ ours.sum(axis=1)
    adapted = np.linalg.inv(bradford) @ np.diag(cones[1] / cones[0]) @ bradford
    matrix: Matrix = np.linalg.inv(ours) @ adapted @ theirs
    return matrix


def _to_xyz(points: tuple[Point, ...]) -> Matrix:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in points]).T
    white, primaries = columns[:, 0], columns[:, 1:]
    matrix: Matrix = primaries * np.linalg.solve(primaries, white)
    return matrix


def _encoded(light: npt.NDArray[np.float32], matrix: Matrix | None) -> Pixels:
    if matrix is not None:
        moved = cv2.transform(np.ascontiguousarray(light), matrix.astype(np.float32))
        light = np.asarray(moved, np.float32)
    levels = np.clip(light * (_LEVELS - 1) + 0.5, 0, _LEVELS - 1).astype(np.uint16)
    encoded: Pixels = _encoding()[levels]
    return encoded


@cache
def _encoding() -> Pixels:
    light = np.arange(_LEVELS) / (_LEVELS - 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(encoded * 255).astype(np.uint8)
    return table
