from __future__ import annotations

import pytest
from PIL import Image

from models.pictures import codecs, formats


def test_every_accepted_format_is_tried() -> None:
    accepted = formats.ACCEPTED.replace("PNM", "PPM").replace("HEIC", "HEIF").upper()
    written = set(accepted.split(", ")) - {"PSD", "QOI", "CAMERA RAW"}
    assert sorted(codecs.FORMATS) == sorted(written)


def test_the_installed_pillow_reads_every_accepted_format(
    capsys: pytest.CaptureFixture[str],
) -> None:
    codecs.main()
    assert "Pillow" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["WEBP", "AVIF"])
def test_a_pillow_without_a_codec_is_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE, name)
    with pytest.raises(SystemExit, match="make simd"):
        codecs.main()
    assert f"{name} can't be read" in capsys.readouterr().err
