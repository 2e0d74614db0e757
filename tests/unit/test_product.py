"""Product codebooks: what is refused, what degenerates, what they cost, and a layer whose inputs are correlated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mobilemodel.errors import LimitExceededError, UsageError
from mobilemodel.quantize.product import Product, quantize_product
from mobilemodel.quantize.product_cost import default_option, product_options, theoretical_cost
from mobilemodel.quantize.product_parts import cut, shape_of
from mobilemodel.quantize.product_passes import in_turn, refit, upper_factor
from mobilemodel.quantize.response import Response, response_error, response_signal

Floats = npt.NDArray[np.float32]


def layer(rows: int, columns: int, groups: int = 1, seed: int = 1) -> Response:
    """Random weights whose inputs are correlated, as a network's are."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(groups, 3 * columns, columns)) @ generator.normal(size=(groups, columns, columns))
    moments = mixed.transpose(0, 2, 1) @ mixed / (3 * columns)
    power = np.einsum("gcc->g", moments) / columns
    moments += 0.01 * power[:, None, None] * np.eye(columns)
    return Response(
        generator.normal(0, 0.05, (rows, columns)).astype(np.float32), moments.astype(np.float32),
        generator.uniform(0.5, 2, rows),
    )  # fmt: skip


def plain(response: Response) -> Response:
    """The same weights with nothing known about their inputs."""
    moments = np.broadcast_to(np.eye(response.target.shape[1], dtype=np.float32), response.moments.shape)
    return Response(response.target, moments, np.ones(len(response.target)))


def decibels(response: Response, product: Product) -> float:
    return float(10 * np.log10(response_signal(response).sum() / response_error(response, product.decoded).sum()))


@pytest.mark.parametrize(
    ("segment", "groups", "shared"), [(0, 1, False), (0, 1, True), (8, 1, False), (8, 2, False), (8, 2, True)]
)
def test_the_response_guides_tables_and_codes(segment: int, groups: int, shared: bool) -> None:
    """At the same sizes of tables and codes, the response is kept better than by k-means on the weights."""
    response = layer(96, 72, groups)
    known = quantize_product(response, vector=4, entries=16, segment=segment, seed=0, shared=shared)
    blind = quantize_product(plain(response), vector=4, entries=16, segment=segment, seed=0, shared=shared)
    assert known.codes.shape == blind.codes.shape
    assert known.tables.nbytes == blind.tables.nbytes
    assert decibels(response, known) > decibels(response, blind) + 2.5
    assert decibels(plain(response), known) < decibels(plain(response), blind)


def test_the_response_is_kept_on_inputs_that_were_not_seen() -> None:
    """A linear layer run on samples: half of them give the moments, the others judge."""
    generator = np.random.default_rng(5)
    samples = np.maximum(generator.normal(size=(4000, 24)) @ generator.normal(size=(24, 64)), 0).astype(np.float32)
    samples -= samples.mean(axis=0)
    moments = samples[:2000].T @ samples[:2000] / 2000
    moments += np.float32(0.01 * np.trace(moments) / 64) * np.eye(64, dtype=np.float32)
    weights = generator.normal(size=(128, 64)).astype(np.float32)
    response = Response(weights, moments[None].astype(np.float32), np.ones(128))
    wanted = samples[2000:] @ weights.T
    noise = []
    for known in (response, plain(response)):
        made = quantize_product(known, vector=4, entries=32, segment=0, seed=0)
        noise.append(float(((samples[2000:] @ made.decoded.T - wanted) ** 2).sum()))
    assert noise[0] < 0.6 * noise[1]


def test_a_price_saves_bits() -> None:
    response = layer(128, 64)
    unit = float(response_signal(response).sum()) / response.target.size
    sizes, errors = [], []
    for price in (0.0, 0.1, 0.4):
        made = quantize_product(response, vector=2, entries=64, segment=0, seed=0, price=price * unit, shared=True)
        sizes.append(made.size)
        errors.append(made.error)
        assert list(made.counts) == sorted(made.counts, reverse=True)
    assert sizes[0] > 1.05 * sizes[1] > 1.05 * 1.05 * sizes[2]
    assert errors == sorted(errors)


def test_row_weights_say_which_rows_matter() -> None:
    response = layer(64, 32)
    heavy = np.where(np.arange(64) < 8, 1000.0, 1.0)
    made = [
        quantize_product(Response(response.target, response.moments, weights), vector=4, entries=8, segment=0, seed=0)
        for weights in (np.ones(64), heavy)
    ]
    even, uneven = (response_error(layer(64, 32), product.decoded)[:8].sum() for product in made)
    assert uneven < 0.2 * even


@pytest.mark.parametrize("power", [-100, -24, 40, 100])
def test_the_scale_of_weights_does_not_matter(power: int) -> None:
    """Powers of two change no digit of the codes; tables that float16 cannot hold are float32."""
    response = layer(32, 24)
    scaled = Response(np.ldexp(response.target, power), response.moments, response.row_weights)
    one, other = (quantize_product(given, vector=4, entries=8, segment=0, seed=0) for given in (response, scaled))
    assert one.tables.dtype == np.float16
    assert other.tables.dtype == np.float32
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(np.ldexp(other.decoded, -power), one.decoded, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("weights", [np.zeros((6, 8)), np.full((6, 8), 0.3), np.full((6, 8), -3e38), np.ones((1, 1))])
@pytest.mark.parametrize("shared", [False, True])
def test_constant_weights(weights: Floats, shared: bool) -> None:
    """One entry is enough, and exact; no more are stored."""
    target = weights.astype(np.float32)
    rows, columns = target.shape
    made = quantize_product(
        Response(target, np.eye(columns, dtype=np.float32)[None], np.ones(rows)),
        vector=4, entries=16, segment=0, seed=0, shared=shared,
    )  # fmt: skip
    assert made.tables.shape[1] == 1
    np.testing.assert_array_equal(made.decoded, target)
    assert made.error == 0


def test_zero_rows_and_inputs_that_never_vary() -> None:
    response = layer(24, 16)
    target, moments = response.target.copy(), response.moments.copy()
    target[5:9] = 0
    moments[:, 4:8, :] = 0
    moments[:, :, 4:8] = 0
    made = quantize_product(Response(target, moments, np.ones(24)), vector=4, entries=8, segment=0, seed=0)
    assert np.isfinite(made.decoded).all()
    assert made.error < 0.5 * response_signal(Response(target, moments, np.ones(24))).sum()


def test_more_entries_than_rows() -> None:
    made = quantize_product(layer(5, 12), vector=4, entries=256, segment=0, seed=0)
    assert made.tables.shape == (3, 5, 4)


def test_sub_vectors_are_no_longer_than_segments() -> None:
    made = quantize_product(layer(6, 27), vector=8, entries=4, segment=3, seed=0)
    assert made.tables.shape[::2] == (1, 3)
    assert made.codes.shape == (6, 9)


def test_depthwise_convolution() -> None:
    """Each row has inputs of its own."""
    response = layer(40, 9, groups=40)
    made = quantize_product(response, vector=4, entries=16, segment=1, seed=0)
    assert made.tables.shape == (1, 16, 1)
    assert decibels(response, made) > 15


@pytest.mark.parametrize(
    "sizes", [{"vector": 0}, {"vector": 257}, {"entries": 0}, {"entries": 257}, {"segment": 5}, {"segment": -4}]
)
def test_sizes_that_do_not_fit(sizes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="product codebooks"):
        quantize_product(layer(4, 8), **{"vector": 4, "entries": 4, "segment": 0, "seed": 0} | sizes)


def test_too_many_tables() -> None:
    with pytest.raises(LimitExceededError):
        shape_of(1 << 20, 1 << 17, 1, 256, 0, shared=False)


def test_values_that_are_not_finite() -> None:
    sound = layer(4, 8)
    infinite, moments, weights = sound.target.copy(), sound.moments.copy(), sound.row_weights.copy()
    infinite[1, 2], moments[0, 3, 3], weights[2] = np.inf, np.nan, np.nan
    for broken in (
        Response(infinite, sound.moments, sound.row_weights), Response(sound.target, moments, sound.row_weights),
        Response(sound.target, sound.moments, weights),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="not finite"):
            quantize_product(broken, vector=4, entries=4, segment=0, seed=0)


def test_shapes_and_powers_that_make_no_quadratic() -> None:
    sound = layer(4, 8)
    for broken in (
        Response(sound.target, sound.moments[:, :4, :4], sound.row_weights),
        Response(sound.target, np.zeros_like(sound.moments), sound.row_weights),
        Response(sound.target, sound.moments, -sound.row_weights),
        Response(sound.target, sound.moments, sound.row_weights[:2]),
        Response(sound.target[:0], sound.moments, sound.row_weights[:0]),
    ):
        with pytest.raises(UsageError):
            quantize_product(broken, vector=4, entries=4, segment=0, seed=0)


def test_a_factor_is_upper_triangular() -> None:
    """V V^T = H, V upper triangular; moments that are not quite positive definite are damped until they have one."""
    moments = layer(4, 12, groups=1).moments
    factor = upper_factor(moments)
    np.testing.assert_allclose(factor[0] @ factor[0].T, moments[0], rtol=1e-3, atol=1e-4)
    assert not np.tril(factor[0], -1).any()
    flat = np.ones((1, 12, 12), np.float32)
    assert np.isfinite(upper_factor(flat)).all()


def test_a_refit_of_few_entries_looks_at_some_rows() -> None:
    """1024 sub-vectors for each entry tell it well enough: the error of all rows falls."""
    response = layer(640, 64)
    parts = cut(response, shape_of(640, 64, 4, 2, 0, shared=True))
    tables = np.array([[[-0.1] * 4, [0.1] * 4]], np.float32)
    progress = in_turn(parts, parts.target(response.target), upper_factor(parts.moments), tables)
    before = progress.error
    assert progress.codes.size > 4 * 1024 * 2
    gain = refit(parts, progress)
    assert gain > 0.02
    assert progress.error == pytest.approx((1 - gain) * before)
    assert not refit(parts, progress) > 0.5 * gain


def test_what_has_most_power_comes_first() -> None:
    response = layer(4, 12)
    parts = cut(response, shape_of(4, 12, 5, 4, 6, shared=False))
    power = np.pad(np.diag(response.moments[0]).reshape(2, 6), ((0, 0), (0, 4))).reshape(4, 5).sum(axis=1)
    assert parts.order.tolist() == np.argsort(-power).tolist()


def test_theoretical_cost_of_a_convolution() -> None:
    """AlexNet's conv2: 256 outputs of 5 x 5 x 48 in two groups, 27 x 27 to 27 x 27."""
    cost = theoretical_cost(256, 5 * 5 * 48, vector=8, entries=128, segment=48, groups=2,
                            input_positions=27 * 27, output_positions=27 * 27)  # fmt: skip
    assert cost.multiply_adds == 27 * 27 * 256 * 1200
    assert cost.table_multiply_adds == 27 * 27 * 96 * 128
    assert cost.additions == 27 * 27 * 256 * 25 * 6
    assert cost.speed_up == pytest.approx(223_948_800 / (8_957_952 + 27_993_600))


def test_theoretical_cost_counts_a_short_sub_vector_as_it_is() -> None:
    """The products of 10 inputs with 4 entries, whichever way they are cut."""
    cost = theoretical_cost(6, 10, vector=4, entries=4)
    assert cost == (60, 40, 18)


def test_groups_that_do_not_divide_the_rows() -> None:
    with pytest.raises(UsageError):
        theoretical_cost(6, 10, vector=4, entries=4, groups=4)


def test_options_are_smaller_than_float16() -> None:
    for rows, columns, segment in ((2048, 4096, 0), (10, 2048, 0), (256, 576, 64), (192, 9, 1), (64, 75, 3), (1, 1, 0)):
        options = product_options(rows, columns, segment=segment)
        assert list(options) == sorted(options, key=lambda option: option.bytes)
        assert all(option.bytes < 2 * rows * columns for option in options)
    assert any(not option.shared for option in product_options(2048, 4096))
    assert all(option.shared for option in product_options(10, 2048))


def test_options_predict_sizes() -> None:
    response = layer(256, 96)
    for option in product_options(256, 96)[::3]:
        made = quantize_product(
            response, vector=option.vector, entries=option.entries, segment=0, seed=0, shared=option.shared
        )
        assert made.size == pytest.approx(option.bytes, rel=0.08)


def test_the_scheme_takes_the_papers_sizes_where_their_tables_pay() -> None:
    large, last = default_option(4096, 9216), default_option(1000, 4096, last=True)
    assert (large.vector, large.entries, large.shared) == (4, 32, False)
    assert (last.vector, last.entries, last.shared) == (1, 16, False)
    small = default_option(128, 576, segment=64)
    assert (small.vector, small.entries, small.shared) == (4, 256, True)
    assert default_option(10, 2048, last=True).shared
