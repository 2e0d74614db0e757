"""What a conversion may be told beside its scheme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilemodel.errors import UsageError
from mobilemodel.model import NO_OPTIONS, SourceOptions
from mobilemodel.runtime.data import Data
from mobilemodel.search.recipe import Transforms
from mobilemodel.v1 import bundle_pb2 as pb

Progress = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes in all)"""
NO_TRANSFORMS = Transforms()


def silent(what: str, done: int, total: int) -> None:
    """The progress of who wants to see none."""


@dataclass(frozen=True, eq=False)
class FittingOptions:
    """Calibration data and how they are used."""

    data: Data
    sha256: str = ""
    """of the data, for the plan that is saved"""
    held_out: int = 0
    """samples, evenly spread, that nothing is fitted to: candidates of a search are judged on them"""
    mirror: bool = True
    """pictures are used mirrored, too"""
    damping: float = 0.01
    """share of the mean diagonal of a layer's moments"""
    seed: int = 0
    threads: int = 1
    """of ONNX Runtime; the bundle's bytes do not depend on them"""


@dataclass(frozen=True)
class ConvertOptions:
    """What a conversion may be told beside its scheme; the defaults are the command line's."""

    codec: str = "auto"
    """``auto``, ``zstd`` or ``png``"""
    profile: str = "full"
    """``full`` (readers know zstd) or ``baseline`` (zlib is enough)"""
    force: bool = False
    dry_run: bool = False
    converter: str | None = None
    """name of the source format; None: by content"""
    source: SourceOptions = NO_OPTIONS
    """what is said of the source beside its files"""
    preprocessing: pb.Preprocessing | None = None
    """its input and layout are filled in: those of the model's only picture input"""
    mean_picture: bytes = b""
    """float32, height x width x channels, with ``preprocessing.mean_picture``'s size"""
    labels: tuple[str, ...] = ()
    licence: str = ""
    description: str = ""
    fitting: FittingOptions | None = None
    """calibration data and what they are for; None: without data"""
    transforms: Transforms = NO_TRANSFORMS
    """what is done to the graph first, beside what the plan says"""
    progress: Progress = silent

    @property
    def baseline(self) -> bool:
        """Whether readers need no zstd. Raises UsageError where codec and profile contradict each other."""
        if self.codec not in ("auto", "zstd", "png"):
            raise UsageError("codec", expected="auto, zstd or png", found=self.codec)
        if self.profile not in ("full", "baseline"):
            raise UsageError("profile", expected="full or baseline", found=self.profile)
        if self.profile == "baseline" and self.codec == "zstd":
            raise UsageError("baseline readers do not know zstd", advice="Use --codec png, or --profile full.")
        return self.profile == "baseline" or self.codec == "png"


DEFAULT_OPTIONS = ConvertOptions()
