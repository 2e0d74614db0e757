"""What codes cost: code lengths for choosing levels, and the size that the packed and coded streams will have.

Levels are chosen by ideal code lengths, because those change smoothly. Streams are coded by zstd or deflate, whose
Huffman codes see packed bytes (spec/tensors.md §3.3): 8 codes of 1 bit, 4 of 2, 2 of 4 or one of 8 are one symbol.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from mobilemodel.encodings.matrix import SPLIT_BELOW, depth_for, entropy_bits

Floats = npt.NDArray[np.float64]

LARGEST_PACKED = 17
"""levels that 4-bit codes can name, with a background"""
LARGEST_SPLIT = 257
"""the same of 8-bit codes"""
_SPARSE, _SPARSE_BYTES = 1.05, 1.2
"""size over entropy that match searching reaches on sparse planes, where Huffman codes of bytes end at 1 bit"""


def code_lengths(counts: npt.ArrayLike, entry_bits: float = 0.0) -> Floats:
    """Ideal bits of each symbol, log2(total / count); one that does not occur costs as much as one that occurs once.

    ``entry_bits``, what a symbol's table entry takes, is shared by the symbol's occurrences.

    >>> code_lengths([2, 1, 1, 0]).tolist()
    [1.0, 2.0, 2.0, 2.0]
    """
    occurrences = np.maximum(np.asarray(counts, np.float64), 1.0)
    total = max(float(np.asarray(counts, np.float64).sum()), 1.0)
    return np.asarray(np.log2(total / occurrences) + entry_bits / occurrences)


def coder_lengths(counts: npt.ArrayLike, entry_bits: float = 0.0) -> Floats:
    """Bits of each symbol as the coder spends them: whole ones where a byte is one symbol, from 18 to 257 levels on.

    Of a split stream the ideal length of a sample of the plane, and whole bits for a code that is not the background.
    For all other numbers of levels the ideal ones: several codes share a byte, or two planes a code.
    """
    given = np.maximum(np.asarray(counts, np.float64), 1.0)
    if not LARGEST_PACKED < given.size <= LARGEST_SPLIT:
        return code_lengths(given, entry_bits)
    background, total = int(given.argmax()), float(given.sum())
    others = np.delete(given, background)
    rest = float(others.sum())
    split = np.insert(_huffman_lengths(others) + np.log2(total / rest), background, np.log2(total / given[background]))
    plain = _huffman_lengths(given)
    best = split if given.size > 256 or np.dot(given, split) < np.dot(given, plain) else plain
    return np.asarray(best + entry_bits / given)


def coded_bits(counts: npt.ArrayLike) -> float:
    """Bits that independent codes with these counts will take, as the smaller of a plain and a split stream.

    >>> round(coded_bits([500, 500]) / 1000, 2)
    1.0
    """
    given = np.asarray(counts, np.float64)
    total = float(given.sum())
    if total <= 0:
        return 0.0
    plain = _packed_bits(given)
    background = int(given.argmax())
    others = np.delete(given, background)
    rest = float(others.sum())
    if others.size == 0 or entropy_bits(given) > SPLIT_BELOW:
        return plain
    plane = _packed_bits(np.array([given[background], rest]))
    return min(plain, plane + (_packed_bits(others) if rest else 0.0))


def _packed_bits(counts: Floats) -> float:
    """Bits of a plain stream of independent codes."""
    total = float(counts.sum())
    depth = depth_for(counts.size)
    if depth == 16:
        falling = np.zeros(256 * -(-counts.size // 256))
        falling[: counts.size] = np.sort(counts)[::-1]
        planes = falling.reshape(-1, 256)
        return _plane_bits(planes.sum(axis=1)) + _plane_bits(planes.sum(axis=0))
    law = counts / total
    joint = law
    for _ in range(8 // depth - 1):
        joint = np.multiply.outer(joint, law).reshape(-1)
    return min(_huffman_bits(joint) * total * depth / 8, _SPARSE * total * entropy_bits(counts))


def by_frequency(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Rank of each level, 0 for the most frequent: codes of 16 bits whose two byte planes cost little more together.

    Laws of weights fall off almost exponentially. By rank, a low byte then has nearly the same law whatever the high
    byte is, and the high byte is nearly always 0.

    >>> by_frequency([1, 5, 5, 7]).tolist()
    [3, 1, 2, 0]
    """
    ranks = np.empty(np.size(counts), np.int64)
    ranks[np.argsort(-np.asarray(counts, np.float64), kind="stable")] = np.arange(ranks.size)
    return ranks


def _plane_bits(counts: Floats) -> float:
    """Bits of a plane of bytes; runs of a frequent byte become matches."""
    return min(_huffman_bits(counts), float(_SPARSE_BYTES * counts.sum() * entropy_bits(counts)))


def _huffman_lengths(weights: Floats) -> Floats:
    """Code length of each symbol in an optimal prefix code of positive weights."""
    heap: list[tuple[float, int]] = [(weight, symbol) for symbol, weight in enumerate(weights.tolist())]
    heapq.heapify(heap)
    parents = np.zeros(2 * weights.size, np.int64)
    for node in range(weights.size, 2 * weights.size - 1):
        first, second = heapq.heappop(heap), heap[0]
        parents[[first[1], second[1]]] = node
        heapq.heapreplace(heap, (first[0] + second[0], node))
    lengths = np.zeros(2 * weights.size)
    for node in range(2 * weights.size - 3, -1, -1):
        lengths[node] = lengths[parents[node]] + 1
    return lengths[: weights.size]


def _huffman_bits(weights: Floats) -> float:
    """Sum of weight times code length over an optimal prefix code: the sum of its inner nodes."""
    heap = weights[weights > 0].tolist()
    if len(heap) < 2:
        return 0.0
    heapq.heapify(heap)
    bits = 0.0
    while len(heap) > 1:
        node = heapq.heappop(heap) + heap[0]
        heapq.heapreplace(heap, node)
        bits += node
    return float(bits)
