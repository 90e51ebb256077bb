"""XFeat with random weights in the published format, loaded as the service does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.local.index import LocalIndex
from indexes.replica.snapshot_file import opened, write
from models.errors import RetrieverUnavailable
from models.extractors.local import Local
from models.registry import make_extractor
from tests.indexes.local.scenes import scene
from tests.models.descriptors.contract import DetectingDescriptorContract, first_hit, flipped
from tests.models.descriptors.networks import xfeat_file

SMALL = {"descriptor": "xfeat", "min_side": 160, "max_side": 240}


def loaded(path: Path) -> Local:
    extractor = make_extractor("local", {**SMALL, "weights": str(path)})
    assert isinstance(extractor, Local)
    extractor.load()
    return extractor


@pytest.fixture(scope="module")
def xfeat(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return loaded(xfeat_file(tmp_path_factory.mktemp("weights")))


class TestXFeat(DetectingDescriptorContract):
    @pytest.fixture
    def local(self, xfeat: Local) -> Local:
        return xfeat


def test_a_descriptor_has_64_values(xfeat: Local) -> None:
    assert xfeat.extract(scene(1))["descriptor"].shape[1] == 64


def test_points_are_the_pixels_that_the_network_saw(xfeat: Local) -> None:
    """A picture whose sides are no multiples of 32 is squeezed before the network sees it."""
    import torch
    from torch.nn.functional import interpolate

    pixels = scene(1, 185, 235)
    squeezed = interpolate(
        torch.from_numpy(pixels)[None, None].float(), (160, 224), mode="bilinear"
    )[0, 0].numpy()
    network: Any = xfeat._descriptor
    points, score, _ = network.run(pixels)
    seen, seen_score, _ = network.run(squeezed)
    np.testing.assert_allclose(score, seen_score, atol=1e-4)
    expected = (seen + 0.5) * [235 / 224, 185 / 160] - 0.5
    np.testing.assert_allclose(points[:50], expected[:50], atol=1e-3)


def test_plain_pictures_have_no_features_of_their_rounding(xfeat: Local) -> None:
    for pixels in (np.full((90, 120), 7, np.uint8), scene(1, 90, 120) // 255 + 7):
        variants = xfeat.extract_variants(pixels, "mirror")
        assert [len(variant) for variant in variants] == [0, 0]


def restored(index: LocalIndex, path: Path) -> LocalIndex:
    """Return an index of the state that was written to a snapshot."""
    write(path, {}, index.freeze(), lambda pieces: next(pieces, None))
    made = LocalIndex(index.options, index.rows)
    with opened(path) as saved:
        made.restore(saved)
    return made


@pytest.mark.parametrize("train_above", [10**6, 1000], ids=["exact", "trained"])
def test_an_index_of_64_values_finds_copies_and_mirrored_ones_also_when_restored(
    xfeat: Local, train_above: int, tmp_path: Path
) -> None:
    from PIL import Image

    rows = {number: xfeat.extract(scene(number, 180, 240)) for number in range(8)}
    options = LocalIndex.Config(train_above=train_above)
    index = LocalIndex(options, lambda ids: {one: rows[one] for one in ids})
    index.apply(rows)
    index.wait_for_training()
    assert index.kind == ("local-flat" if train_above > 1000 else "local-ivfpq")
    picture = Image.fromarray(scene(3, 180, 240))
    larger = np.asarray(picture.resize((600, 450), Image.Resampling.BICUBIC))
    for one in (index, restored(index, tmp_path / "state")):
        hit = first_hit(one, xfeat.extract_variants(larger, "mirror"))
        assert (hit.image_id, hit.mirrored) == (3, False)
        assert hit.homography is not None
        np.testing.assert_allclose(np.diag(hit.homography)[:2], 0.4, rtol=0.03)
        hit = first_hit(one, xfeat.extract_variants(flipped(scene(2, 180, 240)), "mirror"))
        assert (hit.image_id, hit.mirrored) == (2, True)


def test_an_empty_index_of_no_known_width_is_saved_and_restored(
    xfeat: Local, tmp_path: Path
) -> None:
    rows = {7: xfeat.extract(scene(7, 180, 240))}
    empty = LocalIndex(LocalIndex.Config(), lambda _: rows)
    again = restored(empty, tmp_path / "state")
    again.apply(rows)
    assert first_hit(again, xfeat.extract_variants(scene(7, 180, 240), "identity")).image_id == 7


def test_the_fingerprint_tells_weights_apart_but_not_where_they_lie(tmp_path: Path) -> None:
    prints = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        path = xfeat_file(tmp_path / name, seed)
        prints.append(make_extractor("local", {**SMALL, "weights": str(path)}).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    import torch
    from kornia.feature import ALIKED

    path = tmp_path / "xfeat.pt"
    torch.save(ALIKED("aliked-n16").state_dict(), path)
    with pytest.raises(RetrieverUnavailable, match=r"xfeat\.pt holds no .* of XFeatModel"):
        loaded(path)


def test_weights_that_are_nowhere_leave_it_unavailable_with_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RetrieverUnavailable, match=r"xfeat\.pt is not on this .*weights fetch"):
        make_extractor("local", {"descriptor": "xfeat"}).fingerprint  # noqa: B018
