"""Model -> Model: the same network in fewer nodes and weights, or one that is nearly the same and cheaper.

``transformed = fold(model)`` gives ``transformed.model`` and says in ``changes`` what was done and what it cost, in
``kept`` what was left alone and why. The old model stays as it was.
"""

from mobilemodel.transforms.dead import remove_dead
from mobilemodel.transforms.duplicates import remove_duplicates
from mobilemodel.transforms.factoring import low_rank, low_rank_layers
from mobilemodel.transforms.folding import fold
from mobilemodel.transforms.ordering import order_units
from mobilemodel.transforms.pruning import prune
from mobilemodel.transforms.report import Change, Kept, Size, Transformed

__all__ = [
    "Change", "Kept", "Size", "Transformed", "fold", "low_rank", "low_rank_layers", "order_units", "prune",
    "remove_dead", "remove_duplicates",
]  # fmt: skip
