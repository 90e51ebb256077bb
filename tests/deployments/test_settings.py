"""Arguments of the applications, and what the environment adds."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.settings import (
    STARTING,
    IngressArgs,
    RetrieverArgs,
    address,
    all_deployed,
    data_folder,
    store_url,
)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"requierd": ["phash"]}, "requierd"),
        ({"deadline": 0}, "deadline"),
        ({"import_check_unavailable": "maybe"}, "import_check_unavailable"),
        ({"max_requests": "many"}, "max_requests"),
    ],
)
def test_a_misspelt_or_senseless_argument_is_named(given: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        IngressArgs.model_validate(given)


def test_the_defaults_ask_no_key_and_require_phash() -> None:
    args = IngressArgs()
    assert args.required == ("phash",)
    assert args.read_keys == args.write_keys == ()
    assert args.deadline == 30
    assert args.import_check_unavailable == "error"


def test_arguments_do_not_change() -> None:
    args = RetrieverArgs(extractor="phash")
    with pytest.raises(ValidationError, match="frozen"):
        args.extractor = "color"  # type: ignore[misc]


def test_the_address_is_the_galleries_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AMBIENCE_HOST", raising=False)
    monkeypatch.delenv("AMBIENCE_PORT", raising=False)
    assert address() == ("127.0.0.1", 44444)
    monkeypatch.setenv("AMBIENCE_HOST", "::1")
    monkeypatch.setenv("AMBIENCE_PORT", "8080")
    assert address() == ("::1", 8080)


def test_the_store_is_the_configured_then_the_environments_then_in_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))
    monkeypatch.delenv("AMBIENCE_STORE", raising=False)
    assert data_folder() == tmp_path
    assert store_url(None) == f"lmdb:{tmp_path}/store"
    monkeypatch.setenv("AMBIENCE_STORE", "lmdb:elsewhere")
    assert store_url(None) == "lmdb:elsewhere"
    assert store_url("lmdb:given") == "lmdb:given"


def test_all_applications_count_as_deployed_once_the_starting_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STARTING, raising=False)
    assert all_deployed()
    starting = tmp_path / "starting"
    starting.touch()
    monkeypatch.setenv(STARTING, str(starting))
    assert not all_deployed()
    starting.unlink()
    assert all_deployed()
