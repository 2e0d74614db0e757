"""What a layer's weights are to reproduce: its response to real inputs, as second moments.

For inputs x with second moments H = E[x x^T] about their mean, replacing a row w of the weights by w' changes the
row's response by (w - w') H (w - w')^T on average (the mean itself goes into the bias). Rows differ in what their
response means to the network's output: ``row_weights``. Optimal brain surgeon (Hassibi and Stork 1993) and its
descendants (GPTQ, arXiv 2210.17323) start from the same quadratic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """The quadratic of one layer. Rows and columns are those of the tensor's matrix of codes (spec/tensors.md §3.1).

    Attributes:
        target: float32 (rows, columns), the weights whose response is wanted.
        moments: float32 (groups, columns, columns), symmetric and positive definite: damped second moments of the
            inputs about their mean. Rows of a grouped convolution belong to groups of equal size in order; others
            have one group.
        row_weights: float64 (rows,), positive: what an error of a row's response costs the network's output.
    """

    target: Float32
    moments: Float32
    row_weights: Float64

    @property
    def group_rows(self) -> int:
        """Rows of each group."""
        return len(self.target) // len(self.moments)

    def group(self, index: int) -> slice:
        """The rows of one group."""
        return slice(index * self.group_rows, (index + 1) * self.group_rows)


def response_error(response: Response, weights: Float32) -> Float64:
    """The weighted error of each row's response, (rows,): row_weights x (w - w') H (w - w')^T.

    >>> moments = np.float32([[[2, 0], [0, 1]]])
    >>> wanted = Response(np.float32([[1, 1]]), moments, np.array([3.0]))
    >>> response_error(wanted, np.float32([[0, 1]])).tolist()
    [6.0]
    """
    errors = np.empty(len(weights), np.float64)
    for index, moments in enumerate(response.moments):
        rows = response.group(index)
        apart = response.target[rows] - weights[rows]
        errors[rows] = np.einsum("rc,rc->r", apart @ moments, apart, dtype=np.float64)
    return errors * response.row_weights


def response_signal(response: Response) -> Float64:
    """The weighted power of each row's wanted response about its mean, (rows,)."""
    return response_error(response, np.zeros_like(response.target))
