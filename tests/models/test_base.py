"""The extractor contract: the registry, fingerprints, checks and symmetries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import Extractor, dihedral
from models.errors import InvalidInput, UnknownName
from models.registry import extractor_names, make_extractor
from models.types import Features, Options, Pixels
from models.weights import HubWeights, Weights


class Corner(Extractor):
    """Extracts the red channel at the four corners, so each symmetry gives different features."""

    class Config(Options):
        gain: int = 1

    view = "preview"
    index = "flat"
    dtype = np.dtype(np.uint8)
    shape = (4,)
    options: Config

    def _extract(self, pixels: Pixels) -> Features:
        return pixels[[0, 0, -1, -1], [0, -1, 0, -1], 0] * np.uint8(self.options.gain)


def corner(**options: Any) -> Corner:
    return Corner(Corner.Config(**options))


def numbered() -> Pixels:
    return np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_the_folder_listing_is_the_registry() -> None:
    assert {"phash", "color"} <= set(extractor_names())


def test_every_registered_extractor_is_complete() -> None:
    for name in extractor_names():
        extractor = make_extractor(name)
        assert extractor.view in ("full", "preview", "gray")
        assert extractor.place in ("ingress", "replica")
        assert extractor.index
        assert extractor.dtype.itemsize
        assert all(size > 0 or size == -1 for size in extractor.shape)


def test_an_unknown_extractor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"no extractor 'phsah'.*color.*phash"):
        make_extractor("phsah")


def test_a_misspelt_option_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match=r"'phash'(?s:.)*sise"):
        make_extractor("phash", {"sise": 3})


def test_the_fingerprint_names_method_options_version_and_weights(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")

    class Newer(Corner):
        version = 2

    class Weighted(Corner):
        def weights(self) -> list[Weights]:
            return [HubWeights("model", str(tmp_path), "main", ("*.bin",))]

    prints = [
        corner().fingerprint,
        corner(gain=2).fingerprint,
        Newer(Corner.Config()).fingerprint,
        Weighted(Corner.Config()).fingerprint,
        make_extractor("phash").fingerprint,
        make_extractor("color").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(re.fullmatch(r"[0-9a-f]{16}", fingerprint) for fingerprint in prints)
    assert corner(gain=2).fingerprint == prints[1]


def test_features_of_the_wrong_shape_or_dtype_are_a_bug_that_shows() -> None:
    class Short(Corner):
        shape = (5,)

    class Wide(Corner):
        dtype = np.dtype(np.float32)

    for kind in (Short, Wide):
        with pytest.raises(AssertionError):
            kind(Corner.Config()).extract(numbered())


def test_a_varying_length_is_allowed_where_the_shape_says_so() -> None:
    class Varying(Corner):
        shape = (-1,)

    assert Varying(Corner.Config()).extract(numbered()).shape == (4,)


def test_the_variants_are_identity_mirror_and_their_turns() -> None:
    pixels = numbered()
    assert [f.tolist() for f in corner().extract_variants(pixels, "identity")] == [[0, 6, 9, 15]]
    assert [f.tolist() for f in corner().extract_variants(pixels, "mirror")] == [
        [0, 6, 9, 15],
        [6, 0, 15, 9],
    ]
    eight = [tuple(f.tolist()) for f in corner().extract_variants(pixels, "dihedral")]
    assert len(set(eight)) == 8
    assert all(sorted(corners) == [0, 6, 9, 15] for corners in eight)


def test_the_eight_symmetries_are_contiguous_and_different() -> None:
    pictures = dihedral(numbered())
    assert len({picture.tobytes() + bytes(picture.shape) for picture in pictures}) == 8
    assert all(picture.flags.c_contiguous for picture in pictures)
    assert [picture.shape for picture in pictures[2:4]] == [(3, 2, 3)] * 2


def test_rows_of_the_store_are_read_only_views() -> None:
    features = corner().extract(numbered())
    again = corner().from_row(corner().to_row(features))
    assert np.array_equal(again, features)
    assert not again.flags.writeable


def test_a_method_without_a_mirror_of_stored_features_says_so() -> None:
    assert corner().mirrored(corner().extract(numbered())) is None
