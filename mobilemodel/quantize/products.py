"""Product codebooks of a tensor: sizes by its shape or its rule, and the value that a bundle stores."""

from __future__ import annotations

import numpy as np

from mobilemodel.model import MatrixOrder, QuantizedValue, Role, SourceTensor
from mobilemodel.quantize.product import Product, quantize_product
from mobilemodel.quantize.product_cost import default_option
from mobilemodel.quantize.response import Float32, Response
from mobilemodel.quantize.rules import Rule
from mobilemodel.v1 import bundle_pb2 as pb


def tensor_product(tensor: SourceTensor, rule: Rule, response: Response, *, seed: int) -> Product:
    """Product codebooks with the sizes that a rule names, else with those that suit the tensor's shape.

    Sub-vectors of a convolution lie along the input channels of a group, at each kernel position.
    """
    rows, columns = response.target.shape
    spatial = tensor.role is Role.CONV and len(tensor.dims) > 2
    segment = tensor.dims[1] if spatial and tensor.order.perm else 0
    if rule.vector:
        return quantize_product(response, vector=rule.vector, entries=rule.entries, segment=segment, seed=seed)
    option = default_option(rows, columns, segment=segment)
    return quantize_product(response, vector=option.vector, entries=option.entries, segment=segment, seed=seed,
                            shared=option.shared)  # fmt: skip


def plain_response(matrix: Float32) -> Response:
    """The response without data: every column counts alike, and so does every row."""
    columns = matrix.shape[1]
    return Response(matrix, np.eye(columns, dtype=np.float32)[None], np.ones(len(matrix)))


def product_value(product: Product, order: MatrixOrder) -> QuantizedValue:
    """The palette that stores product codebooks (spec/tensors.md §5)."""
    encoding = pb.Palette()
    encoding.codes.view.extend(order.view)
    encoding.codes.perm.extend(order.perm)
    encoding.codes.row_axes = order.row_axes
    encoding.codes.segment = product.segment
    encoding.tables_by.CopyFrom(product.tables_by)
    return QuantizedValue(encoding, product.codes, product.tables)


def product_words(product: Product) -> str:
    """For the report."""
    tables, entries, vector = product.tables.shape
    each = "one table" if tables == 1 else f"{tables} tables"
    return f"product codebooks, {each} of {entries} sub-vectors of {vector}"
