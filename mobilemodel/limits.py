"""The limits of format 1.0 (spec/security.md §3): checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mobilemodel.errors import UsageError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Limits:
    """Upper bounds that a reader enforces; a caller may lower any of them, never raise them past the format's.

    Raises UsageError for a bound that is negative or above the format's.

    >>> Limits(graph=64 * MIB).graph
    67108864
    """

    file: int = 2**31 - 1
    """bytes of the whole file"""
    manifest: int = 16 * MIB
    """bytes of the manifest"""
    tensors: int = 65_535
    """tensors of the manifest"""
    payloads: int = 65_535
    """payloads of the file, and of one tensor"""
    rank: int = 16
    """axes of a tensor or a view"""
    elements: int = 2**31 - 1
    """product of the non-zero dims"""
    name: int = 1_024
    """bytes of a tensor's, input's or output's name"""
    string: int = 65_536
    """bytes of any other string"""
    block: int = 16 * MIB
    """raw bytes of a block, a dense chunk or one row of codes"""
    pool: int = 64 * KIB
    """raw bytes of a payload that several slices share"""
    table: int = 64 * MIB
    """raw bytes of a payload that holds one table alone"""
    graph: int = 2**31 - 1
    """raw bytes of the graph"""
    labels: int = 16 * MIB
    """raw bytes of the class names"""
    mean: int = 64 * MIB
    """raw bytes of a mean picture"""
    picture_side: int = 16_384
    """pixels along one side of a resize, a crop or a mean picture"""
    report: int = 16 * MIB
    """raw bytes of the conversion report"""
    entries: int = 65_536
    """entries of a table"""
    vector: int = 256
    """values of a sub-vector"""
    table_values: int = 2**24
    """tables x entries x vector"""
    features: int = 64
    """required features of a file, or of a tensor"""
    nesting: int = 8
    """depth of nested messages"""
    messages: int = 2**20
    """messages within a manifest; 65,535 tensors with all their parts are 600,000"""

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not 0 <= value <= bound.default:
                raise UsageError(f"limit '{bound.name}'", expected=f"0 to {bound.default}", found=value)


FORMAT_LIMITS = Limits()
SMALL_DENSE = 4 * KIB
"""raw bytes up to which a dense tensor lies in a pool"""
