"""Places365: the published networks, files and rules, here with random weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.annotators.places365 import (
    ATTRIBUTE_WEIGHTS,
    ATTRIBUTES,
    CATEGORIES,
    OUTDOOR,
    RESNET50,
    WIDERESNET18,
    Floats,
    Labels,
    Places365,
    describe,
    make_resnet50,
    make_wideresnet18,
    normalised,
    published_state,
    readable,
)
from models.errors import RetrieverUnavailable
from models.registry import make_annotator
from models.types import Pixels
from tests.drawing import scene

torch = pytest.importorskip("torch")

NAMES = [f"/{name[0]}/{name}" for name in ("abbey", "bakery/shop", "airport_terminal", "canyon")]
NAMES += [f"/r/room_{number}" for number in range(8)]
PICTURES = [np.asarray(scene(seed, 320, 240)) for seed in (1, 2)]
Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    return {
        f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")
    }


def published_shapes(blocks: list[int], bottleneck: bool, categories: int = 365) -> Shapes:
    """Return the names and shapes of the tensors in the published checkpoints.

    They are those of torchvision in 2017, which did not count batches yet.
    """
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    into = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        out = width * 4 if bottleneck else width
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            kernels = [(width, into, 1), (width, width, 3), (out, width, 1)]
            if not bottleneck:
                kernels = [(width, into, 3), (width, width, 3)]
            for number, (to, of, side) in enumerate(kernels, 1):
                shapes[f"{at}.conv{number}.weight"] = (to, of, side, side)
                shapes |= norm(f"{at}.bn{number}", to)
            if block == 0 and (into != out or stage > 0):
                shapes[f"{at}.downsample.0.weight"] = (out, into, 1, 1)
                shapes |= norm(f"{at}.downsample.1", out)
            into = out
    return {**shapes, "fc.weight": (categories, into), "fc.bias": (categories,)}


def random_state(shapes: Shapes) -> dict[str, Any]:
    """Return weights that keep activations finite, under the names that DataParallel gives."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=random)
        if len(shape) == 4:
            values *= (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state[f"module.{name}"] = values.abs() + 0.5 if "running_var" in name else values * 0.5
    return state


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did."""

    def save_string(self, value: str) -> None:
        assert len(value) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value.encode())
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_string}  # noqa: RUF012


class Python2:
    """Stand-in for the module pickle, which `torch.save` uses."""

    Pickler = Python2Pickler

    @staticmethod
    def dump(value: object, file: Any, protocol: int) -> None:
        Python2Pickler(file, protocol).dump(value)


def save(path: Path, state: dict[str, Any]) -> None:
    """Save a training checkpoint as PyTorch did in 2017 under Python 2: without a zip archive."""
    checkpoint = {"epoch": 90, "arch": "resnet", "state_dict": state, "best_prec1": 55.2}
    torch.save(checkpoint, path, pickle_module=Python2, _use_new_zipfile_serialization=False)


def write_labels(folder: Path) -> None:
    (folder / CATEGORIES).write_text("".join(f"{name} {at}\n" for at, name in enumerate(NAMES)))
    places = [2, 1, 1, 2, *[1] * 8]
    (folder / OUTDOOR).write_text(
        "".join(f"{name} {io}\n" for name, io in zip(NAMES, places, strict=True))
    )
    (folder / ATTRIBUTES).write_text("boating\nnatural light\nno horizon\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the six files, with full networks for twelve categories and three attributes."""
    made = tmp_path_factory.mktemp("places365")
    write_labels(made)
    np.save(made / ATTRIBUTE_WEIGHTS, np.random.default_rng(0).standard_normal((3, 512)))
    save(made / RESNET50, random_state(published_shapes([3, 4, 6, 3], True, 12)))
    save(made / WIDERESNET18, random_state(published_shapes([2, 2, 2, 2], False, 12)))
    return made


def annotator(folder: Path, **options: object) -> Places365:
    made = make_annotator("places365", {"folder": str(folder), **options})
    assert isinstance(made, Places365)
    made.load()
    return made


@pytest.fixture(scope="module")
def places(folder: Path) -> Places365:
    return annotator(folder)


@pytest.mark.parametrize(
    ("make", "published", "parameters"),
    [
        (make_resnet50, published_shapes([3, 4, 6, 3], True), 24_255_917),
        (make_wideresnet18, published_shapes([2, 2, 2, 2], False), 11_363_757),
    ],
)
def test_the_networks_have_exactly_the_published_parameters(
    make: Any, published: Shapes, parameters: int
) -> None:
    network = make(365)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    assert {name: shape for name, shape in shapes.items() if name not in counters} == published
    assert sum(value.numel() for value in network.parameters()) == parameters


def reference(network: Any, path: Path, pixels: list[Pixels], steps: list[Any]) -> Any:
    """Return the outputs as the authors' scripts compute them, with torchvision's transforms."""
    from torchvision import transforms

    network.to_empty(device="cpu").load_state_dict(published_state(path))
    norms = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    compose = transforms.Compose([*steps, transforms.ToTensor(), norms])
    with torch.no_grad():
        inputs = torch.stack([compose(Image.fromarray(one)) for one in pixels])
        return network.eval()(inputs)


def test_probabilities_are_those_of_the_published_script(folder: Path, places: Places365) -> None:
    network = make_resnet50(12)
    from torchvision import transforms

    steps = [transforms.Resize((256, 256)), transforms.CenterCrop(224)]
    logits = reference(network, folder / RESNET50, PICTURES, steps)
    found = places.probabilities(PICTURES)
    assert found == pytest.approx(torch.softmax(logits, 1).numpy(), abs=1e-4)


def test_responses_are_those_of_the_published_script(folder: Path, places: Places365) -> None:
    network = make_wideresnet18(12)
    from torchvision import transforms

    network.avgpool = torch.nn.AvgPool2d(14)
    network.fc = torch.nn.Linear(512, 12)
    pooled: list[Floats] = []
    network.avgpool.register_forward_hook(lambda *call: pooled.append(call[2].squeeze().numpy()))
    reference(network, folder / WIDERESNET18, PICTURES, [transforms.Resize((224, 224))])
    assert pooled[0].shape == (2, 512)
    expected = pooled[0] @ np.load(folder / ATTRIBUTE_WEIGHTS).T
    found = places.responses(PICTURES)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 * np.abs(expected).max())


def test_several_pictures_are_tagged_as_one_by_one(places: Places365) -> None:
    together = places.annotate_many(PICTURES)
    for one, picture in zip(together, PICTURES, strict=True):
        alone = places.annotate(picture)
        assert one.tags == alone.tags
        for part in ("categories", "attributes"):
            assert one.details[part] == pytest.approx(alone.details[part], abs=1e-2)
    assert places.annotate_many([]) == []


def test_tags_say_where_the_picture_was_taken_and_what_is_in_it(places: Places365) -> None:
    said = places.annotate(PICTURES[0])
    assert said.tags[0] in ("indoor", "outdoor")
    known = {"abbey", "bakery shop", "airport terminal", "canyon", "boating", "natural light"}
    known |= {"no horizon", *(f"room {number}" for number in range(8))}
    assert set(said.tags[1:]) <= known
    assert said.row()["tags"] == list(said.tags)


def labels() -> Labels:
    outdoor = np.array([True] * 5 + [False] * 7)
    return Labels(tuple("abcdefghijkl"), outdoor, ("sunny", "dry", "cold"))


def test_the_ten_likeliest_categories_vote_and_a_tie_is_outdoors() -> None:
    tied = np.array([0.2] * 5 + [0.1] * 5 + [0, 0], np.float32)
    nothing = np.zeros(3, np.float32)
    assert describe(tied, nothing, labels(), 0.3, 0).tags == ("outdoor",)
    fewer = tied.copy()
    fewer[[4, 10]] = 0, 0.05
    assert describe(fewer, nothing, labels(), 0.3, 0).tags == ("indoor",)


def test_tags_are_what_lies_above_the_thresholds_best_first() -> None:
    chances = np.array([0.21, 0.2, 0.5, *[0.01] * 9], np.float32)
    responses = np.array([0.0, 1.5, 2.5], np.float32)
    said = describe(chances, responses, labels(), 0.2, 0)
    assert said.tags == ("outdoor", "c", "a", "cold", "dry")
    assert said.details == {
        "categories": {"c": 0.5, "a": 0.21},
        "attributes": {"cold": 2.5, "dry": 1.5},
    }
    assert describe(chances, responses, labels(), 0.4, 2).tags == ("outdoor", "c", "cold")


def test_names_of_categories_become_words() -> None:
    assert [readable(name) for name in NAMES[:3]] == ["abbey", "bakery shop", "airport terminal"]
    assert readable("/c/church/indoor") == "church indoor"


def test_a_narrow_picture_is_squashed_and_cropped() -> None:
    pixels = np.zeros((10, 300, 3), np.uint8)
    assert normalised(pixels, 256, 224).shape == (3, 224, 224)
    assert normalised(pixels, 224, 224).dtype == np.float32


def linked(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def test_files_that_do_not_fit_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = linked(folder, tmp_path)
    (copy / ATTRIBUTES).unlink()
    (copy / ATTRIBUTES).write_text("boating\n")
    with pytest.raises(RetrieverUnavailable, match=r"has 3 rows, labels_sunattribute\.txt 1"):
        annotator(copy)


@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", pickle.dumps([1, 2], 2)])
@pytest.mark.parametrize("name", [RESNET50, ATTRIBUTE_WEIGHTS])
def test_a_file_of_something_else_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    copy = linked(folder, tmp_path)
    (copy / name).unlink()
    (copy / name).write_bytes(content)
    with pytest.raises(RetrieverUnavailable, match="can't be loaded"):
        annotator(copy)


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    copy = linked(folder, tmp_path)
    (copy / OUTDOOR).unlink()
    with pytest.raises(RetrieverUnavailable, match=OUTDOOR):
        annotator(copy)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = linked(folder, tmp_path)
    (copy / RESNET50).unlink()
    torch.save({"state_dict": {}, "arch": Harmful()}, copy / RESNET50)
    with pytest.raises(RetrieverUnavailable):
        annotator(copy)
    assert "must not run" not in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = linked(folder, tmp_path)
    (copy / RESNET50).unlink()
    (copy / RESNET50).symlink_to(folder / WIDERESNET18)
    with pytest.raises(RetrieverUnavailable, match="Missing key"):
        annotator(copy)
