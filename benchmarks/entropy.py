"""Index streams beside the zeroth-order entropy of their codes, through the real writer.

The FC codes of a full-size AlexNet at 8, 4 and 2 bits, and i.i.d. matrices of a known low entropy, with zstd and png.
A stream's size is what the bundle stores for the tensor, its table included; the entropy is that of the codes as they
were drawn, not of the law they were drawn from.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

CODECS = ("zstd", "png")
FC_BITS = (8, 4, 2)
FC_LIMIT = 1.01
IID_LIMITS = {1.4: {"zstd": 1.04, "png": 1.04}, 0.8: {"zstd": 1.04, "png": 1.04}, 0.4: {"zstd": 1.05, "png": 1.08}}
"""bits of entropy -> codec -> largest stored size / entropy"""
IID_LEVELS = (3, 9, 33)


def main() -> int:
    options = measuring.arguments(__doc__)
    columns = ("codes", "codec", "stream", "bits/code", "entropy bytes", "stored bytes", "ratio")
    results = measuring.Results("entropy", columns)
    with measuring.workspace(options.model) as (folder, model):
        out, drawn = folder / "out.mm", folder / "drawn.onnx"

        def measure(what: str, codec: str, limit: float) -> None:
            for row in measuring.job("jobs.py", "streams", out):
                bound = row["codes"] * row["entropy"] / 8
                kind = f"{'split' if row['split'] else 'plain'} {row['depth']}"
                name, ratio = f"{what} {row['name']}", row["stored"] / bound
                results.rows.append((name, codec, kind, row["entropy"], round(bound), row["stored"], ratio))
                results.targets.append(measuring.Target(f"{name}, {codec}: stored bytes / entropy", ratio, limit))

        for bits in FC_BITS:
            for codec in CODECS:
                measuring.convert(model, out, "--scheme", f"kmeans-{bits}", "--codec", codec, "--force")
                measure(f"{bits} bit", codec, FC_LIMIT)
        for entropy, limits in IID_LIMITS.items():
            for levels in IID_LEVELS:
                measuring.job("jobs.py", "draw", drawn, str(levels), str(entropy))
                for codec, limit in limits.items():
                    # A tensor of few distinct values becomes a palette without loss.
                    measuring.convert(drawn, out, "--scheme", "lossless", "--codec", codec, "--force")
                    measure(f"i.i.d. {entropy} bit, {levels} levels,", codec, limit)
    return results.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
