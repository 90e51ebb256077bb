"""API keys as they are configured: by name, as hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from models.errors import InvalidInput
from models.types import Options

Role = Literal["read", "write", "admin"]


class KeyArgs(Options):
    """An API key, by its hash."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Its name in the access log."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The SHA-256 of the key; `ambience key` makes both."""
    role: Role = "read"
    """What it may do: search; add and delete, too; everything."""
    requests_per_minute: int | None = Field(None, gt=0)
    tag: str | None = Field(None, min_length=1, max_length=100)
    """For this key there are only the images whose metadata has this tag; what it adds gets it."""

    @model_validator(mode="after")
    def _checked(self) -> KeyArgs:
        if self.tag is not None and self.role == "admin":
            raise ValueError("tag: an admin key can't be limited to a tag")
        return self


Keys = TypeAdapter(tuple[KeyArgs, ...])


def read_keys(path: Path) -> tuple[KeyArgs, ...]:
    """The keys of a YAML file. Raises OSError, and InvalidInput that shows none of its contents."""
    try:
        return Keys.validate_python(yaml.safe_load(path.read_bytes()) or ())
    except (yaml.YAMLError, ValidationError) as exc:
        first = exc.errors()[0] if isinstance(exc, ValidationError) else None
        where = ".".join(map(str, first["loc"])) + f": {first['msg']}" if first else "no YAML"
        raise InvalidInput(f"{path}: {where}") from None
