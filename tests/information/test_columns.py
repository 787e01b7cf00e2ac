"""What has no multiinformation is refused in one sentence, or left out and reported."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from sparsejepa.chapters.multiinformation import equicorrelation
from sparsejepa.information.estimate import DroppedColumn
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.randomness import generator
from tests.information.known import gaussian_rows, interval_hit

CONTINUOUS = ["gaussian", "copula", "ksg"]


def rows(n: int = 400, d: int = 4) -> torch.Tensor:
    return gaussian_rows(n, equicorrelation(d, 0.4), "columns")


def normalised() -> torch.Tensor:
    """Features behind a LayerNorm with learned scales, averaged over 8 patches, in float32."""
    z = torch.randn(900, 8, 16, generator=generator(0, "tokens"))
    scale = 0.5 + torch.rand(16, generator=generator(0, "scale"))
    return (layer_norm(z, (16,)) * scale + 2).mean(1)


@pytest.mark.parametrize("method", [*CONTINUOUS, "discrete"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(method: str, bad: float):
    x = rows()
    x[7, 2] = bad
    with pytest.raises(ValueError, match="contain NaN or infinity"):
        total_correlation(x, method)


@pytest.mark.parametrize(("n", "d"), [(99, 20), (19, 2)])
def test_too_few_rows_are_refused(n: int, d: int):
    with pytest.raises(ValueError, match=f"{n} rows are too few for {d} columns: at least {n + 1}"):
        total_correlation(torch.rand(n, d))


@pytest.mark.parametrize("method", CONTINUOUS)
@pytest.mark.parametrize("value", [0.1, -1e6])
def test_dead_units_are_refused_or_dropped(method: str, value: float):
    """A constant has no density; without it, the estimate is that of the others, and says so."""
    x = rows()
    dead = torch.cat([x[:, :1], torch.full((400, 1), value), x[:, 1:]], dim=1)
    with pytest.raises(ValueError, match=r"Column 1 is constant \(a dead unit\); pass drop=True"):
        total_correlation(dead, method)
    result, others = total_correlation(dead, method, drop=True), total_correlation(x, method)
    assert (result.value, result.d) == (others.value, 4)
    assert result.dropped == (DroppedColumn(1, "constant"),)
    with pytest.raises(ValueError, match="Every column is constant"):
        total_correlation(torch.ones(50, 3), method, drop=True)


@pytest.mark.parametrize("method", CONTINUOUS)
def test_a_function_of_a_column_is_dependence(method: str):
    """Linear, or monotone, which ranks show: the truth is infinite; of one that is nearly, not."""
    x = rows()
    with pytest.raises(ValueError, match="linearly dependent .* infinite.* leave out 1 and"):
        total_correlation(torch.cat([x, 3 - x[:, :1]], dim=1), method)
    if method != "gaussian":
        with pytest.raises(ValueError, match="infinite; leave out what is a monotone function"):
            total_correlation(torch.cat([x, -(x[:, 1:2] ** 3)], dim=1), method)
    near = torch.cat([x, x[:, :1] + 1e-3 * gaussian_rows(400, torch.eye(1).double())], dim=1)
    assert total_correlation(near, method).dropped == ()


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
    # As many as there are null directions.
    extra = rows(600, 5) @ torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    result = total_correlation(torch.cat([rows(600, 5), extra], dim=1), "gaussian", drop=True)
    assert (len(result.dropped), result.d) == (3, 5) and math.isfinite(result.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_number_format_neither_hides_nor_feigns_dependence(dtype: torch.dtype):
    x = rows(2000).to(dtype)
    assert interval_hit(total_correlation(x), total_correlation(rows(2000)).value)
    for method in (*CONTINUOUS, "discrete"):
        few = x[:400, :2].round() if method == "discrete" else x[:400, :2]
        assert total_correlation(few, method) == total_correlation(few.double(), method)
    x[:, 0] = 0.1
    with pytest.raises(ValueError, match="Column 0 is constant"):
        total_correlation(x)


def first_row(x: np.ndarray, value: float) -> np.ndarray:
    return np.concatenate([np.full((1, x.shape[1]), value), x[1:]])


UNITS = {
    "offset 1e7": lambda x: x + 1e7,
    "offset -1e12": lambda x: x - 1e12,
    "an offset of half a million deviations in float32": lambda x: (x + 5e5).astype(np.float32),
    "time in seconds, of a few minutes": lambda x: x * [100, 1] + [1.7e9, 0],
    "tiny": lambda x: x * 1e-170,
    "huge": lambda x: x * [1e300, 1],
}
LEAST = float(np.finfo(np.float32).min)
SENTINELS = {
    "1e9": lambda x: first_row(x, 1e9),
    "the least of float32": lambda x: first_row(x, LEAST).astype(np.float32),
    "-999 in 1 of 100 rows": lambda x: np.where(np.arange(len(x))[:, None] % 100 == 3, -9999.0, x),
}


@pytest.mark.parametrize("method", CONTINUOUS)
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_no_unit_feigns_dependence(method: str, drop: bool, unit: str):
    x = gaussian_rows(500, equicorrelation(2, 0.8), "units").numpy()
    plain, found = (total_correlation(z, method, drop=drop) for z in (x, UNITS[unit](x)))
    rounded = "float32" in unit or "1e12" in unit
    assert found.value == pytest.approx(plain.value, abs=0.01 if rounded else 1e-6)
    assert found.d == 2 and found.dropped == ()


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("sentinel", SENTINELS)
def test_a_sentinel_row_is_no_dependence(drop: bool, sentinel: str):
    """Ranks hardly see it; the plug-in sees nothing else, and says so instead of dropping."""
    x = gaussian_rows(500, equicorrelation(2, 0.8), "sentinel").numpy()
    marked = SENTINELS[sentinel](x)
    for method in ("copula", "ksg"):
        found = total_correlation(marked, method, drop=drop)
        assert found.d == 2 and interval_hit(found, total_correlation(x, method).value)
    if "999" not in sentinel:
        with pytest.raises(ValueError, match="Outliers, the farthest in row .* see ranks"):
            total_correlation(marked, "gaussian", drop=drop)


def test_a_sentinel_row_does_not_hide_dependence():
    x = normalised()
    expected = total_correlation(x, drop=True).dropped
    x[3] = 1e9
    assert total_correlation(x, drop=True).dropped == expected


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dependence_to_the_rounding_of_the_format(dtype: torch.dtype, offset: float):
    """Computed in float32 and kept in any format, one column is left out, and the rest is kept."""
    x = normalised()
    if offset and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("half precision holds two or three digits: the offset is all that is left")
    kept = (x.double() + offset if dtype == torch.float64 else x + offset).to(dtype)
    found = total_correlation(kept, drop=True)
    assert [c.reason for c in found.dropped] == ["linearly dependent on the others"]
    assert interval_hit(found, total_correlation(x, drop=True).value)


def with_unit(active: int, seed: int) -> torch.Tensor:
    x = torch.cat([gaussian_rows(80, equicorrelation(2, 0.8), "unit", seed), torch.zeros(80, 1)], 1)
    x[torch.randperm(80, generator=generator(seed))[:active], 2] = 1.0 + seed
    return x


def test_a_unit_that_is_active_for_one_image():
    """The plug-in would rest on that image: refused, or left out and reported; ranks can do it."""
    for seed in range(30):
        x = with_unit(1, seed)
        with pytest.raises(ValueError, match="Column 2 is constant but for row .* drop=True"):
            total_correlation(x, "gaussian")
        found = total_correlation(x, "gaussian", drop=True)
        assert found.value == pytest.approx(total_correlation(x[:, :2], "gaussian").value)
        row = int(x[:, 2].argmax())
        assert found.dropped == (DroppedColumn(2, f"constant but for row {row}"),)
        assert all(map(math.isfinite, total_correlation(with_unit(2, seed), "gaussian").interval()))
    assert total_correlation(x).d == 3


def test_columns_that_one_row_keeps_apart():
    """A copy but for one row, of the plug-in's columns: without that row the truth is infinite."""
    x = rows()
    twin = torch.cat([x, x[:, :1]], dim=1)
    twin[5, 4] += 1
    with pytest.raises(ValueError, match="linearly dependent on the others but for row 5"):
        total_correlation(twin, "gaussian")
    found = total_correlation(twin, "gaussian", drop=True)
    assert found.value == pytest.approx(total_correlation(x, "gaussian").value, abs=0.02)
