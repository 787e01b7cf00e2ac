"""What has no multiinformation is refused in one sentence, or left out and reported."""

import math

import pytest
import torch
from torch.nn.functional import layer_norm

from sparsejepa.chapters.multiinformation import equicorrelation
from sparsejepa.information.columns import usable_columns
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.randomness import generator
from tests.information.known import gaussian_rows, interval_hit

CONTINUOUS = ["gaussian", "copula", "ksg"]


def rows(n: int = 400, d: int = 4) -> torch.Tensor:
    return gaussian_rows(n, equicorrelation(d, 0.4), "columns")


def normalised(d: int = 16, weight: bool = True) -> torch.Tensor:
    """Features behind a LayerNorm with learned scales, averaged over 8 patches, in float32."""
    z = torch.randn(900, 8, d, generator=generator(0, "tokens"))
    scale = 0.5 + torch.rand(d, generator=generator(0, "scale")) if weight else torch.ones(d)
    return (layer_norm(z, (d,)) * scale + 2).mean(1)


@pytest.mark.parametrize("method", [*CONTINUOUS, "discrete"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(method: str, bad: float):
    x = rows()
    x[7, 2] = bad
    with pytest.raises(ValueError, match="contain NaN or infinity"):
        total_correlation(x, method)


@pytest.mark.parametrize("method", CONTINUOUS)
def test_too_few_rows_are_refused(method: str):
    """Below 5 rows a column, or 20 in all."""
    with pytest.raises(ValueError, match="99 rows are too few for 20 columns: at least 100"):
        total_correlation(gaussian_rows(99, torch.eye(20).double()), method)
    with pytest.raises(ValueError, match="19 rows are too few for 2 columns: at least 20"):
        total_correlation(gaussian_rows(19, torch.eye(2).double()), method)


@pytest.mark.parametrize("method", CONTINUOUS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_dead_units_are_refused_or_dropped(method: str, value: float):
    """A constant has no density; without it, the estimate is that of the others, and says so."""
    x = rows()
    dead = torch.cat([x[:, :1], torch.full((400, 1), value), x[:, 1:]], dim=1)
    with pytest.raises(ValueError, match=r"Column 1 is constant \(a dead unit\); pass drop=True"):
        total_correlation(dead, method)
    result = total_correlation(dead, method, drop=True)
    assert result.value == total_correlation(x, method).value
    assert result.d == 4
    assert [(c.column, c.reason) for c in result.dropped] == [(1, "constant")]


def test_nothing_but_dead_units_is_refused():
    with pytest.raises(ValueError, match="Every column is constant"):
        total_correlation(torch.ones(50, 3), drop=True)


@pytest.mark.parametrize("method", CONTINUOUS)
def test_the_null_direction_of_a_layer_norm_is_refused_or_dropped(method: str):
    """One column less is full rank, whatever float32 rounding left of the eigenvalue."""
    x = normalised()
    with pytest.raises(ValueError, match="linearly dependent .* final LayerNorm .* leave out 1"):
        total_correlation(x, method)
    result = total_correlation(x, method, drop=True)
    assert result.d == 15
    assert [c.reason for c in result.dropped] == ["linearly dependent on the others"]


@pytest.mark.parametrize("method", CONTINUOUS)
def test_a_duplicate_column_is_linear_dependence(method: str):
    """A copy, to the rounding of its number format, has infinite multiinformation."""
    x = rows()
    with pytest.raises(ValueError, match="infinite"):
        total_correlation(torch.cat([x, 3 - x[:, :1]], dim=1), method)
    near = torch.cat([x, x[:, :1] + 1e-3 * gaussian_rows(400, torch.eye(1).double())], dim=1)
    assert total_correlation(near, method).dropped == ()


@pytest.mark.parametrize("method", ["copula", "ksg"])
def test_a_monotone_function_of_a_column_is_dependence(method: str):
    """Not linear, yet exact: ranks show it, and the truth is infinite."""
    x = rows()
    for twin in (x[:, 1].exp(), -(x[:, 1] ** 3)):
        with pytest.raises(ValueError, match="monotone function of another .* infinite"):
            total_correlation(torch.cat([x, twin[:, None]], dim=1), method)


def test_which_column_is_left_out():
    """Of null direction v the one of largest |v|; leaving out j instead adds ln |v_i / v_j|."""
    x = normalised().double()
    x -= x.mean(0)
    x /= x.std(0)
    result = total_correlation(x, "gaussian", drop=True)
    v = torch.linalg.eigh(torch.corrcoef(x.T))[1][:, 0].abs()
    assert [c.column for c in result.dropped] == [int(v.argmax())]
    for other in (0, 3):
        kept = [i for i in range(16) if i != other]
        expected = result.value + (v.max() / v[other]).log().item()
        assert total_correlation(x[:, kept], "gaussian").value == pytest.approx(expected, rel=1e-6)


def test_several_null_directions():
    """Three columns that others determine: three are left out, the rest is full rank."""
    x = rows(600, 5)
    extra = x @ torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    result = total_correlation(torch.cat([x, extra], dim=1), "gaussian", drop=True)
    assert len(result.dropped) == 3 and result.d == 5
    assert math.isfinite(result.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_number_format_neither_hides_nor_feigns_dependence(dtype: torch.dtype):
    """Correlated features pass in every format; a constant is one in every format."""
    x = rows(2000).to(dtype)
    assert interval_hit(total_correlation(x), total_correlation(rows(2000)).value)
    x[:, 0] = 0.1
    with pytest.raises(ValueError, match="Column 0 is constant"):
        total_correlation(x)


def test_a_large_mean_is_no_reason_to_drop():
    """In float32 a column of mean 1000 and deviation 1 is still a column."""
    x = rows().float() + 1000
    values, kept, dropped = usable_columns(x, drop=False)
    assert kept.tolist() == [0, 1, 2, 3] and dropped == () and values.shape == (400, 4)


def test_an_unknown_method_is_refused():
    """The tests' type checks would step in front of it, so the check is called on its own."""
    from sparsejepa.information.multiinformation import _usable

    with pytest.raises(ValueError, match="method 'mine' is unknown; choose gaussian or copula"):
        _usable(rows(), "mine", False)
