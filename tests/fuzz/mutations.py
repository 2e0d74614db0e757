"""Ways to break a source: its bytes, the fields of its protobuf messages, its SQL rows, its PNG chunks, its headers.

A mutation takes what it changes and a ``random.Random``, and draws all its choices from it: hypothesis gives one of its
own, so that what it finds shrinks, and a plain seeded one repeats a campaign.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from random import Random

from tests.fuzz import messages, sql
from tests.fuzz.pictures import mutate_picture

Files = dict[str, bytes]
"""name -> content of each file of a source"""
Mutation = Callable[[bytes, Random], bytes]
WORDS = tuple(
    value.to_bytes(size, "little", signed=value < 0)
    for size, values in {
        1: (0, 1, 0x7F, 0x80, 0xFF),
        2: (0, 1, 0x7FFF, 0x8000, 0xFFFF),
        4: (0, 1, 2, 16, 255, 4096, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 0x7F800000, 0x7FC00000, 0xFF800000, -2),
        8: (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1),
    }.items()
    for value in values
)
"""numbers at the edges of their types, infinity and NaN among them"""
MOST = 1 << 20
"""bytes of a mutated file: repetition of repetitions would only make fuzzing slow"""
_MOST_GROWN = 1 << 16
"""bytes that one mutation adds"""


def mutate(files: Files, random: Random) -> Files:
    """A few mutations of some of the files; each knows the format of its file, or changes plain bytes."""
    changed = dict(files)
    for _ in range(random.choice((1, 1, 2, 4))):
        name = random.choice(sorted(changed))
        if random.randrange(20) == 0:
            _swap_files(changed, name, random)
        else:
            broken = mutation_for(name, random)(changed[name], random)
            changed[name] = broken if len(broken) <= MOST else changed[name]
        if not changed:
            return dict(files)
    return changed


def mutation_for(name: str, random: Random) -> Mutation:
    """A mutation for a file by its suffix: mostly one that keeps what its format asks of the rest."""
    knowing = KNOWING.get(PurePath(name).suffix)
    return mutate_bytes if knowing is None or random.randrange(4) == 0 else knowing


def _swap_files(files: Files, name: str, random: Random) -> None:
    """A file is missing, or holds what another one does."""
    if random.randrange(2) and len(files) > 1:
        del files[name]
    else:
        files[name] = files[random.choice(sorted(files))]


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """One change that knows nothing of the format."""
    return random.choice(BYTES)(content, random)


def flip(content: bytes, random: Random) -> bytes:
    """A few bits are turned."""
    out = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 16)) if out else 0):
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def flip_head(content: bytes, random: Random) -> bytes:
    """A few bits of the first 64 bytes are turned: headers lie there."""
    return flip(content[:64], random) + content[64:]


def insert(content: bytes, random: Random) -> bytes:
    """A number, or a run of one byte, comes in between."""
    at = random.randint(0, len(content))
    run = bytes([random.choice((0, 1, 0x0A, 0x7F, 0x80, 0xFF))]) * random.choice((1, 2, 7, 300, _MOST_GROWN))
    return content[:at] + random.choice((run, random.choice(WORDS))) + content[at:]


def delete(content: bytes, random: Random) -> bytes:
    """A part is gone."""
    start = random.randint(0, len(content))
    return content[:start] + content[start + random.choice((1, 2, 4, 8, 64, len(content) // 4)) :]


def truncate(content: bytes, random: Random) -> bytes:
    """The end is gone."""
    return content[: random.randint(0, len(content))]


def splice(content: bytes, random: Random) -> bytes:
    """A part stands where another was, or twice."""
    start, at = random.randint(0, len(content)), random.randint(0, len(content))
    part = content[start : start + random.choice((1, 4, 16, 256, 4096))]
    return content[:at] + part + content[at + random.choice((0, len(part))) :]


def overwrite(content: bytes, random: Random) -> bytes:
    """A number stands at some place."""
    at, word = random.randint(0, len(content)), random.choice(WORDS)
    return content[:at] + word + content[at + len(word) :]


def overwrite_header(content: bytes, random: Random) -> bytes:
    """A number stands at one of the first aligned places, where headers hold counts, dimensions and bits."""
    at = 4 * random.randrange(10)
    return content[:at] + random.choice([word for word in WORDS if len(word) == 4]) + content[at + 4 :]


def resize(content: bytes, random: Random) -> bytes:
    """The file has some bytes more, or less, behind an unchanged head."""
    size = max(0, len(content) + random.choice((-4096, -4, -1, 1, 4, 4096)))
    return content[:size].ljust(size, b"\0")


BYTES: tuple[Mutation, ...] = (flip, flip_head, insert, delete, truncate, splice, overwrite, overwrite_header, resize)
HEADERS: tuple[Mutation, ...] = (overwrite_header, resize, overwrite, flip)


def mutate_header(content: bytes, random: Random) -> bytes:
    """Files that begin with numbers: the numbers, or what they speak of."""
    return random.choice(HEADERS)(content, random)


KNOWING: dict[str, Mutation] = {
    ".caffemodel": messages.mutate_net,
    ".prototxt": messages.mutate_prototxt,
    ".binaryproto": messages.mutate_blob,
    ".onnx": messages.mutate_onnx,
    ".sqlite3": sql.mutate_database,
    ".png": mutate_picture,
    ".net": mutate_header,
    ".bin": mutate_header,
    ".cbn": mutate_header,
}
"""suffix -> what knows the format"""
