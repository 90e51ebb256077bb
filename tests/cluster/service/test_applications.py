from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli.main import default_config
from cluster.service.applications import check_spaces, read_config
from cluster.service.data_folder import CannotStart
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.registry import make_extractor
from tests.deployments import served


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(default_config().read_text())
    return loaded


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a store that holds the pHash of one image."""
    monkeypatch.setenv("AMBIENCE_STORE", f"lmdb:{tmp_path}")
    store = LmdbStore(tmp_path)
    space = Space("phash", make_extractor("phash").fingerprint)
    store.put(ImageWrite(1, "0" * 64, 1, 1, frozenset({"phash"}), {space: bytes(72)}))
    store.close()
    return tmp_path


@pytest.mark.parametrize("text", ["applications: {", "just words", "applications: 7"])
def test_a_config_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(CannotStart, match=r"bad\.yaml"):
        read_config(path)


@pytest.mark.usefixtures("stored")
def test_the_stored_feature_space_is_accepted(config: dict[str, Any]) -> None:
    check_spaces(config, reindex=False)


def test_another_feature_space_is_refused_unless_asked_for(
    config: dict[str, Any], stored: Path
) -> None:
    store = LmdbStore(stored)
    space = Space("color", "of-another-model")
    store.put(ImageWrite(2, "1" * 64, 1, 1, frozenset({"color"}), {space: b"x"}))
    store.close()
    with pytest.raises(CannotStart, match=r"`color`.*--reindex"):
        check_spaces(config, reindex=False)
    check_spaces(config, reindex=True)


@pytest.mark.usefixtures("stored")
def test_a_misspelt_argument_is_refused_by_its_name(config: dict[str, Any]) -> None:
    phash = next(one for one in config["applications"] if one["name"] == "phash")
    phash["args"]["extracter"] = "phash"
    with pytest.raises(CannotStart, match="extracter"):
        check_spaces(config, reindex=False)


def test_without_its_weights_a_retriever_is_not_checked(stored: Path) -> None:
    store = LmdbStore(stored)
    space = Space("tint", "of-another-model")
    store.put(ImageWrite(2, "1" * 64, 1, 1, frozenset({"tint"}), {space: b"x"}))
    store.close()
    path = stored / "matrix.npy"
    arguments = {"extractor": "tint", "options": {"path": str(path)}}
    builder = "deployments.app:build_retriever"
    wanted = {"applications": [{"name": "tint", "import_path": builder, "args": arguments}]}
    with served.with_test_extractors():
        check_spaces(wanted, reindex=False)
        served.write_matrix(path)
        with pytest.raises(CannotStart, match="`tint`"):
            check_spaces(wanted, reindex=False)
