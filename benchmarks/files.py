"""How files look that browsers, phones or galleries show: `python benchmarks/files.py FOLDER`.

FOLDER has files of any kind and, in `plain/`, each picture as a browser shows it, as an sRGB JPEG.
Every file must be a copy of its plain picture by pHash, with a thumbnail that differs by at most 3
of 255 at 32x32 pixels; or it must be refused with 413 or 415 in a sentence. Of a file that is cut
short the part that is there is compared, a gray picture with the gray of its plain one. `turned`
is a copy that is shown on its side, as some files in fact are. Then the decode of a JPEG of 12
megapixels is timed beside a bare one. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.errors import InvalidInput
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture, decode
from models.registry import make_extractor

SIDE, MOST_DIFFERENCE, COPY = 32, 3.0, 64
UNRELATED = 128
"""A distance above which a file has no plain picture here."""
REFUSALS = (413, 415)
MOST_SLOWER = 1.1
"""Greatest ratio to a bare decode, which makes no views and checks nothing."""

Thumbnail = npt.NDArray[np.float64]


def thumbnail(picture: Picture) -> Thumbnail:
    small = Image.fromarray(picture.preview).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def difference(shown: Thumbnail, plain: Thumbnail, truncated: bool) -> float:
    """Mean difference; of a file that is cut short, that of the better half of its rows."""
    if np.ptp(shown, axis=2).max() < 1:
        plain = (plain @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, 2)
    rows = np.sort(np.abs(shown - plain).mean(axis=(1, 2)))
    return float(rows[: SIDE // 2 if truncated else SIDE].mean())


def judge(folder: Path) -> Counter[str]:
    """Print a line per file, and count them by verdict."""
    phash, decoder = make_extractor("phash"), Decoder()
    plain = {
        path.stem: decoder.decode_blocking(path.read_bytes())
        for path in sorted((folder / "plain").iterdir())
    }
    codes = {name: phash.extract(picture.full) for name, picture in plain.items()}
    verdicts: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix == ".md":
            continue
        try:
            picture = decoder.decode_blocking(path.read_bytes())
        except InvalidInput as exc:
            verdict = "refused in words" if exc.status in REFUSALS else "REFUSED"
            print(f"{verdict:17} {path.name}: {exc.status} {exc}")
            verdicts[verdict] += 1
            continue
        code = phash.extract(picture.full)
        distances = {name: int(np.bitwise_count(code ^ one).sum()) for name, one in codes.items()}
        nearest = min(distances, key=distances.__getitem__)
        moved = difference(thumbnail(picture), thumbnail(plain[nearest]), picture.truncated)
        verdict = _verdict(distances[nearest], moved, picture.truncated)
        turned = [one[: len(code)] for one in phash.extract_variants(picture.full, "dihedral")]
        if verdict == "of no plain one" and any(
            np.bitwise_count(one ^ other).sum() < COPY for one in turned for other in codes.values()
        ):
            verdict = "turned"
        verdicts[verdict] += 1
        print(
            f"{verdict:17} {path.name}: {nearest}, {distances[nearest]} bits, thumbnail {moved:.1f}"
            f"{', truncated' if picture.truncated else ''}"
        )
    decoder.close()
    return verdicts


def _verdict(distance: int, moved: float, truncated: bool) -> str:
    if distance >= UNRELATED:
        return "of no plain one"
    if moved > MOST_DIFFERENCE:
        return "LOOKS DIFFERENT"
    if distance < COPY:
        return "right"
    return "right as a part" if truncated else "NO COPY"


def bare(data: bytes) -> None:
    """What decoding is made of, without any check."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.decodermaxblock = len(data)  # type: ignore[attr-defined]
    image.draft("RGB", (image.width // 2, image.height // 2))
    image.load()
    image.getexif()
    np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8))


def milliseconds(work: Callable[[bytes], object], data: bytes) -> float:
    begun = time.process_time()
    work(data)
    return (time.process_time() - begun) * 1e3


def slower(rounds: int) -> float:
    """Ratio of the decode of a 12-megapixel JPEG to a bare one: the fastest of alternating
    rounds."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cv2.resize(noise, (4000, 3000))).save(file, "JPEG", quality=92)
    data = file.getvalue()
    pairs = [(milliseconds(decode, data), milliseconds(bare, data)) for _ in range(rounds)]
    ours, theirs = np.min(np.array(pairs), axis=0)
    print(f"12 MP JPEG: {ours:.1f} ms, bare {theirs:.1f} ms, ratio {ours / theirs:.3f}")
    return float(ours / theirs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=30, help="of timing")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    verdicts = judge(options.folder)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    ratio = slower(options.rounds)
    return int(ratio > MOST_SLOWER or any(verdict.isupper() for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
