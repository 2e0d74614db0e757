"""Pictures drawn by chance, for calibration where no real ones may be had: leaves that cover each other, and texture.

Dead leaves and textures with the spectrum of natural pictures have edges, plain areas and correlations as photographs
have them, so that a network's layers see inputs of about the usual kind (Baradad et al. 2021, arXiv 2106.05963).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import LimitExceededError, UsageError
from mobilemodel.files import OutputFile, writing
from mobilemodel.runtime.data import LARGEST_ARRAY, Data

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes in all)"""
LARGEST_SIDE = 2048
"""pixels"""
_GREY = 120.0
"""mean brightness"""


def drawn_data(count: int, height: int, width: int, *, seed: int = 1, progress: Progress | None = None) -> Data:
    """Draw ``count`` pictures without classes: uint8 N x height x width x 3, in red, green, blue.

    The same seed gives the same pictures; a picture does not depend on how many there are.

    Raises UsageError for no pictures, empty ones or a seed below 0, LimitExceededError for larger arrays than
    ``read_data`` reads.

    >>> drawn_data(2, 8, 12).x.shape
    (2, 8, 12, 3)
    """
    if min(count, height, width) < 1:
        raise UsageError("pictures to draw", expected="at least one, of at least 1 x 1",
                         found=f"{count} of {height} x {width}")  # fmt: skip
    if seed < 0:
        raise UsageError("seed of drawn pictures", expected="from 0 on", found=seed)
    if max(height, width) > LARGEST_SIDE:
        raise LimitExceededError("a side of a drawn picture", expected=f"at most {LARGEST_SIDE} pixels",
                                 found=max(height, width))  # fmt: skip
    if count * height * width * 3 > LARGEST_ARRAY:
        raise LimitExceededError("drawn pictures", expected=f"at most {LARGEST_ARRAY} bytes",
                                 found=count * height * width * 3)  # fmt: skip
    pictures = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        pictures[index] = _picture(height, width, np.random.default_rng([seed, index]))
        if progress is not None:
            progress("drawing", (index + 1) * pictures[0].nbytes, pictures.nbytes)
    return Data(pictures)


def write_drawn(
    path: str | os.PathLike[str], count: int, height: int, width: int, *, seed: int = 1, force: bool = False,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write drawn pictures as a .npz file that ``read_data`` reads; the same arguments write the same bytes.

    Raises UsageError for a name without .npz, and what ``drawn_data`` and ``OutputFile`` raise.
    """
    if not os.fspath(path).endswith(".npz"):
        raise UsageError("drawn pictures", file=os.fspath(path), expected="a name that ends in .npz")
    with OutputFile(path, force=force) as output:
        data = drawn_data(count, height, width, seed=seed, progress=progress)
        with writing(path):
            np.savez(output.file, x=np.asarray(data.x))
        output.commit()


def _picture(height: int, width: int, chance: np.random.Generator) -> Pixels:
    """Leaves of random colours about one of the picture's own, under a texture of a random strength.

    Brightness varies more than colour, as it does in photographs.
    """
    background = chance.normal(_GREY, 45) + chance.normal(0, 22, 3)
    spread = chance.uniform(20, 90)
    picture = np.broadcast_to(background, (height, width, 3)).copy()
    for _ in range(int(chance.integers(5, 60))):
        colour = background + chance.normal(0, spread) + chance.normal(0, spread / 2, 3)
        picture[_leaf(height, width, chance)] = colour
    picture += chance.uniform(5, 25) * _texture(height, width, chance)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _leaf(height: int, width: int, chance: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which pixels a disc or a turned rectangle covers; small ones are frequent, as things at any distance are."""
    side = min(height, width)
    radius = min(side / 16 * (1 + chance.pareto(1.5)), 0.75 * side)
    down = np.arange(height)[:, None] - chance.uniform(-side / 8, height + side / 8)
    right = np.arange(width) - chance.uniform(-side / 8, width + side / 8)
    angle, flatness = chance.uniform(0, np.pi), chance.uniform(0.3, 1)
    round_one = chance.random() < 0.5
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    disc: npt.NDArray[np.bool_] = along**2 + across**2 < radius**2
    rectangle: npt.NDArray[np.bool_] = (np.abs(along) < radius) & (np.abs(across) < radius * flatness)
    return disc if round_one else rectangle


def _texture(height: int, width: int, chance: np.random.Generator) -> Doubles:
    """Noise whose amplitude falls with frequency, mostly of one colour: height x width x 3, about 1 in size."""
    vertical, horizontal = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    frequency = np.hypot(vertical[:, None], horizontal)
    frequency[0, 0] = np.inf  # no shift of the whole
    spectrum = np.fft.rfft2(chance.normal(size=(height, width, 3)), axes=(0, 1))
    spectrum /= frequency[:, :, None] ** chance.uniform(0.8, 1.6)
    noise = np.fft.irfft2(spectrum, (height, width), axes=(0, 1))
    noise /= max(float(noise.std()), 1e-9)
    mixed: Doubles = 0.9 * noise.mean(axis=2, keepdims=True) + 0.3 * noise
    return mixed
