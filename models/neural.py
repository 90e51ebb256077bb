"""The common parts of neural methods: devices, precisions and batches.

Functions import torch when they are called, so that importing this module stays cheap.

Half precision is up to 3.5 times as fast on hardware that computes in it, and slower on other
hardware. The default therefore depends on the hardware. On a CPU OpenVINO runs the network where it
is installed. The model verifies what was chosen when it loads.
"""

from __future__ import annotations

import logging
import pickle
import sys
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from models.base import Extractor, dihedral
from models.compiled import CompiledNetwork, compiled
from models.errors import RetrieverUnavailable
from models.machine import cores, free_memory
from models.preparation import Batch, Preparation, probe_pictures
from models.types import Features, Options, Pixels, Variants
from models.weights import CONFIG, REPLACE, broken

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]

MIN_COSINE = 0.999
"""Minimum cosine between features of a lower precision and of float32, for each probe picture."""
MIN_PREPARATION_COSINE = 0.9995
"""Minimum cosine between features of pictures prepared on the device and on the CPU, likewise."""
COPIES, SPARE = 4, 1 << 30
"""Copies of its weights that OpenVINO may hold while it compiles a network, and bytes of memory to
leave free beside them."""
CPU_BATCH, GPU_BATCH = 8, 64
"""Pictures in one pass of a network."""


class NeuralOptions(Options):
    """How the model runs. None of these options changes the features, so all are excluded from the
    dump."""

    device: str = Field("auto", exclude=True)
    """Device: `cpu`, `cuda` or `cuda:1`; `auto` takes CUDA where it is available."""
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", exclude=True)
    """Precision of the network. `auto` is the lowest precision that the hardware computes in. A
    precision below float32 is used only if its features have a cosine of at least MIN_COSINE to
    those of float32."""
    runtime: Literal["auto", "torch"] = Field("auto", exclude=True)
    """What runs the network: `auto` is OpenVINO on a CPU, where that is installed, there is memory
    for it, and its features have a cosine of at least MIN_COSINE to those of torch in float32."""
    batch: int | None = Field(None, ge=1, le=1024, exclude=True)
    """Maximum number of pictures in one pass; by default CPU_BATCH or GPU_BATCH."""
    threads: int = Field(1, ge=1, exclude=True)
    """Number of torch threads per replica. Adding replicas serves better than adding threads."""


class NeuralExtractor(Extractor):
    """Base class of extractors that use a neural network.

    Features are unit vectors (d,) float32; `shape` is known once the network is loaded. A subclass
    builds the network (`_build`), says how it wants its pictures (`_preparation`) or prepares them
    itself (`_prepare`), and runs the network (`_encode`).
    """

    view = "preview"
    index = "vectors"
    uses_gpu = True
    dtype = np.dtype(np.float32)
    batch = CPU_BATCH
    """Pictures in one pass; known once the model is loaded."""
    precision: Precision = "float32"
    """Precision in use; known once the model is loaded."""
    options: NeuralOptions
    _network: Any
    _prepares_on_device = False
    _compiled: CompiledNetwork | None = None
    """The network where OpenVINO runs it."""

    def load(self) -> None:
        """Find, fetch and build the model, then choose the precision.

        Raises RetrieverUnavailable when there are no weights, or none that match the architecture.
        """
        super().load()
        try:
            import torch

            torch.set_num_threads(self.options.threads)
            self._device = torch.device(device_of(self.options.device))
            self.device = str(self._device)
            on_cpu = self._device.type == "cpu"
            self.batch = self.options.batch or (CPU_BATCH if on_cpu else GPU_BATCH)
            self._choose_precision()
        except ImportError as exc:
            raise RetrieverUnavailable(
                f"{exc.name} is not installed: install ambience[neural]"
            ) from exc
        except _loading_errors() as exc:
            self.forget()
            where = ", ".join(str(path) for path in self.files.values())
            raise RetrieverUnavailable(
                f"{where}: no weights for this architecture ({type(exc).__name__}: "
                f"{broken(exc)}); {REPLACE}"
            ) from exc

    def extract_many(self, pixels: Sequence[Pixels]) -> list[Features]:
        """Features of several pictures, `batch` of them in one pass."""
        features = list(self._embed(pixels))
        for one in features:
            self._check(one)
        return features

    def from_row(self, row: bytes | memoryview) -> Features:
        """A read-only view of a stored row. It also works before the model is loaded."""
        return np.frombuffer(row, self.dtype)

    @abstractmethod
    def _build(self) -> Any:
        """The network with its weights: an `nn.Module` in float32 on the CPU."""

    def _preparation(self) -> Preparation | None:
        """How the network wants its pictures, once it is built; None where `_prepare` knows."""
        return None

    def _prepare(self, pixels: Pixels) -> Batch:
        """One picture as the network's input: (3, height, width) float32, normalised."""
        preparation = self._preparation()
        assert preparation is not None
        return preparation.of(pixels)

    def _encode(self, batch: Any) -> Any:
        """Features (n, d) of a tensor (n, 3, height, width), not normalised."""
        return self._network(batch)

    def _shed(self) -> None:
        """Let go of what `_encode` alone needs of the network, once that is compiled."""
        self._network = None

    def _probe(self) -> Batch:
        """Features (n, d) that reveal a loss of precision."""
        return self._embed(probe_pictures())

    def _extract(self, pixels: Pixels) -> Features:
        features: Features = self._embed([pixels])[0]
        return features

    def _variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        return self.extract_many(dihedral(pixels)[: 2 if variants == "mirror" else 8])

    def _embed(self, pixels: Sequence[Pixels]) -> Batch:
        """Features (n, d) of pictures. A GPU computes one batch while the next is prepared."""
        import torch

        if not pixels:
            return np.empty((0, *self.shape), np.float32)
        with torch.inference_mode():
            parts = [
                unit(self._features(self._prepared(pixels[first : first + self.batch])))
                for first in range(0, len(pixels), self.batch)
            ]
            return np.asarray(torch.cat(parts).cpu().numpy(), np.float32)

    def _features(self, batch: Any) -> Any:
        import torch

        if self._compiled is None:
            return self._encode(batch)
        return torch.from_numpy(self._compiled(batch.numpy()))

    def _prepared(self, pixels: Sequence[Pixels]) -> Any:
        """The network's input (n, 3, height, width) on its device, in its precision; for OpenVINO
        in float32."""
        import torch

        preparation = self._preparation() if self._prepares_on_device else None
        if preparation is not None:
            batch = preparation.of_batch(pixels, self._device)
        elif self._device.type == "cpu":
            batch = torch.from_numpy(np.stack([self._prepare(one) for one in pixels]))
        else:
            batch = torch.from_numpy(np.stack(list(_threads().map(self._prepare, pixels))))
        precision = "float32" if self._compiled is not None else self.precision
        return batch.to(self._device, getattr(torch, precision))

    def _choose_precision(self) -> None:
        self._prepares_on_device = False
        self._build_at("float32")
        reference = self._probe()
        self.shape = reference.shape[1:]
        if self._device.type != "cpu":
            self._choose_preparation(reference)
        elif self.options.runtime == "auto" and self._compile(reference):
            return
        lower = self._lower_precision()
        if lower is None:
            return
        self._build_at(lower)
        cosine = _least_cosine(self._probe(), reference)
        if not cosine >= MIN_COSINE:
            logger.warning("%s has a cosine of %.4f to float32, which is used", lower, cosine)
            self._build_at("float32")

    def _compile(self, reference: Batch) -> bool:
        """Let OpenVINO run the network, in the lowest precision in which its features are those of
        torch, if there is one."""
        if free_memory() < COPIES * _weight_bytes(self._network) + SPARE:
            logger.warning("torch runs the network, because OpenVINO takes more memory")
            return False
        wanted = self.options.precision
        lowest = fast_precision("cpu") if wanted == "auto" else wanted
        tried: dict[Precision, None] = dict.fromkeys((lowest or "float32", "float32"))
        try:
            return any(self._compiles_in(precision, reference) for precision in tried)
        except ImportError:
            return False
        except Exception as exc:  # noqa: BLE001 (torch runs what OpenVINO does not know)
            logger.warning("torch runs the network, not OpenVINO: %s", broken(exc))
            self._build_at("float32")
            return False

    def _compiles_in(self, precision: Precision, reference: Batch) -> bool:
        import torch

        example = self._prepared(probe_pictures()[:2])
        self._compiled = compiled(
            self._encode, self._network, example, precision, cores(), self.options.threads
        )
        self._shed()
        if self._network is not None:
            self._network.to(getattr(torch, precision))
        self.precision = precision
        cosine = _least_cosine(self._probe(), reference)
        if cosine >= MIN_COSINE:
            return True
        logger.warning("OpenVINO's %s has a cosine of %.4f to float32", precision, cosine)
        self._build_at("float32")
        return False

    def _choose_preparation(self, reference: Batch) -> None:
        """Prepare pictures on the device if its features are those of pictures from the CPU."""
        preparation = self._preparation()
        if preparation is None or not preparation.on_device:
            return
        self._prepares_on_device = True
        cosine = _least_cosine(self._probe(), reference)
        if not cosine >= MIN_PREPARATION_COSINE:
            logger.warning("pictures are prepared on the CPU: cosine %.5f otherwise", cosine)
            self._prepares_on_device = False

    def _build_at(self, precision: Precision) -> None:
        """Build the network in this precision. It is built anew each time, because rounded weights
        can't become exact again."""
        import torch

        self._network = self._compiled = None
        self._network = self._build().eval().to(self._device, getattr(torch, precision))
        if self._device.type == "cuda":
            # What its tensor cores convolve fastest.
            self._network.to(memory_format=torch.channels_last)
        self.precision = precision

    def _lower_precision(self) -> Precision | None:
        import torch

        if isinstance(self._network, torch.jit.ScriptModule):
            return None  # A TorchScript program may contain hard-coded float32.
        wanted = self.options.precision
        if wanted == "auto":
            return fast_precision(self._device.type)
        return None if wanted == "float32" else wanted


def device_of(name: str) -> str:
    """The device for the option `device`, with `auto` resolved to `cuda` or `cpu`.

    Raises RetrieverUnavailable where torch can't use it.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as exc:
        reason = (str(exc).splitlines() or [""])[0]
        raise RetrieverUnavailable(
            f"there is no device {name} here ({reason}); set `device: auto` in {CONFIG}"
        ) from exc
    return name


def fast_precision(device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision | None:
    """The precision below float32 that the hardware computes in, or None.

    bfloat16 on CPUs with AVX-512 BF16 or AMX; bfloat16, else float16, on CUDA.
    """
    if device == "cuda":
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    flags: set[str] = set()
    if device == "cpu" and cpuinfo.is_file():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        flags.update(*(after.split() for name, _, after in lines if name.strip() == "flags"))
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else None


def check_vocabulary(tokenizer: Any, size: int) -> None:
    """Check that a tokenizer of transformers knows the words of a network with so many tokens.

    Without some of its files transformers makes a tokenizer that knows hardly any. Raises
    ValueError.
    """
    if len(tokenizer) < size / 2:
        raise ValueError(
            f"its tokenizer knows {len(tokenizer)} of {size} tokens: files such as tokenizer.json "
            "are missing"
        )


def _weight_bytes(network: Any) -> int:
    return sum(weights.nbytes for weights in network.parameters())


def unit(features: Any) -> Any:
    """Rows of a tensor (n, d) as float32, normalised to unit length."""
    import torch

    return torch.nn.functional.normalize(features.float(), dim=1)


def _least_cosine(features: Batch, others: Batch) -> float:
    """The lowest cosine between unit vectors (n, d) and their counterparts."""
    return float((features * others).sum(axis=1).min())


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that prepare pictures beside a GPU."""
    return ThreadPoolExecutor(cores(), "prepare")


def _loading_errors() -> tuple[type[Exception], ...]:
    """Exceptions that libraries raise for broken files, or for files of another model."""
    from safetensors import SafetensorError

    broken = (OSError, EOFError, pickle.UnpicklingError, SafetensorError)
    return (*broken, ValueError, KeyError, RuntimeError, TypeError, AttributeError)


def import_transformers() -> Any:
    """The transformers package, without its progress bars and reports."""
    import_torchvision()
    import transformers

    logs: Any = transformers.logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    return transformers


@cache
def import_torchvision() -> Any:
    """The torchvision package. Call this before importing a package that imports it (open_clip,
    timm).

    Where torch is of another build (such as the CPU build), torchvision's compiled operators don't
    load, and its import fails when it registers a fake kernel for the first of them. Models and
    transforms do not need these operators.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        import torchvision
    return torchvision


@cache
def _declare_operators() -> Any:
    """Declare the missing operators. The cache keeps the library object alive, because the
    declarations end with it."""
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
