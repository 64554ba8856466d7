"""Random inputs for the kernels of a GPU, on any device, and what they must give, from float64 loops.

Not tests by themselves: `triton_interpreted.py` runs them in Triton's interpreter, and the tests for a GPU on
the GPU. Each check returns the largest error as a multiple of what is allowed.

    case = Shape([5, 0, 1], torch.bfloat16, seed=1)
    error = check_scan(TritonKernels(torch.bfloat16), case, channels=70, n_states=16)
    assert error <= 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mambabench.kernels.reference import selective_scan_reference, ssd_reference
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

LOG2_E = 1.4426950408889634
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""What the result's own dtype costs, relative to each number: Triton's interpreter cuts off, a GPU rounds."""
FLOAT32 = 1e-5
"""Error of sums in float32, relative to the largest number of a result, which they cancel down from."""
TF32 = 2e-3
"""The same for products of 16-bit numbers with states on matrix units, whose numbers have 11 bits."""


@dataclass(frozen=True)
class Shape:
    """Rows and a seed of a case."""

    rows: list[int]
    dtype: torch.dtype
    seed: int
    device: str = "cpu"
    has_state: bool = True
    """Whether rows go on from states; every third row is then one that begins."""
    keeps: bool = True
    """Whether states are wanted; of every fourth row none is then."""

    @property
    def tokens(self) -> int:
        return sum(self.rows)

    def normal(self, salt: int, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        drawn = torch.randn(*shape, generator=generator)
        return drawn.to(self.device, self.dtype if dtype is None else dtype)

    def parameter(self, salt: int, *shape: int) -> torch.Tensor:
        return self.normal(salt, *shape, dtype=torch.float32)

    def states(self, *shape: int) -> Rows | None:
        if not self.has_state:
            return None
        drawn = self.parameter(90, len(self.rows), *shape)
        return Rows([None if row % 3 == 2 else t.clone() for row, t in enumerate(drawn)], shape)

    def places(self, *shape: int) -> Rows | None:
        if not self.keeps:
            return None
        like = self.parameter(91, 1)
        kept = [row for row in range(len(self.rows)) if row % 4 != 3]
        return Rows.places(None, like, shape, len(self.rows), keep=kept)


def _exact(tensor: torch.Tensor) -> Any:
    return tensor.double().cpu().numpy()


def _error(got: torch.Tensor, want: Any, dtype: torch.dtype, tolerance: float) -> float:
    """Return the largest error over what is allowed: the dtype's rounding, and float32's of the whole."""
    if not want.size:
        return 0.0
    allowed = ROUNDING[dtype] * np.abs(want) + tolerance * max(1.0, float(np.abs(want).max()))
    return float((np.abs(_exact(got) - want) / allowed).max())


def _state(rows: Rows | None, row: int, *shape: int) -> Any:
    found = None if rows is None else rows.tensors[row]
    return np.zeros(shape) if found is None else _exact(found)


def check_scan(kernels: Any, case: Shape, *, channels: int, n_states: int, dt_scale: float = 1.0) -> float:
    """Compare `scan`, row by row."""
    total, past = case.tokens, 5
    u, dt = case.normal(1, total, channels), case.normal(2, total, channels) * dt_scale
    bias, skip = case.parameter(3, channels) * dt_scale, case.parameter(4, channels)
    a = -(case.parameter(5, n_states, channels).abs() + 0.01) * 4
    proj, xz = case.normal(6, total, past + 2 * n_states), case.normal(7, total, 2 * channels + 1)
    before, after = case.states(n_states, channels), case.places(n_states, channels)
    y = kernels.scan(
        u, dt, bias, (a.double() * LOG2_E).float(), proj, past, skip, xz, channels, row_starts(case.rows),
        before, after,
    )  # fmt: skip
    assert y.dtype == case.dtype
    worst, begin = 0.0, 0
    for row, length in enumerate(case.rows):
        part = slice(begin, begin + length)
        begin += length
        want, want_last = selective_scan_reference(
            *(_exact(x[part])[None] for x in (u, dt)), _exact(a).T,
            *(_exact(proj[part, first : first + n_states])[None] for first in (past, past + n_states)),
            _exact(skip), z=_exact(xz[part, channels : 2 * channels])[None], delta_bias=_exact(bias),
            delta_softplus=True, initial_state=_state(before, row, n_states, channels).T[None],
        )  # fmt: skip
        worst = max(worst, _error(y[part], want[0], case.dtype, FLOAT32))
        if after is not None and (last := after.tensors[row]) is not None:
            worst = max(worst, _error(last.T, want_last[0], torch.float32, FLOAT32))
    return worst


def check_ssd(
    kernels: Any,
    case: Shape,
    *,
    sizes: tuple[int, int, int, int],
    dt_scale: float = 1.0,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    uses_matrix_units: bool = False,
) -> float:
    """Compare `ssd`, row by row; `sizes` are heads, their width, groups and states."""
    heads, width, groups, n = sizes
    total = case.tokens
    xbc = case.normal(1, total, heads * width + 2 * groups * n)
    zxbcdt = case.normal(2, total, 3 + heads) * dt_scale
    bias, skip = case.parameter(3, heads) * dt_scale, case.parameter(4, heads, width)
    a = -(case.parameter(5, heads).abs() + 0.01) * 4
    before, after = case.states(heads, n, width), case.places(heads, n, width)
    y = kernels.ssd(
        xbc, zxbcdt, 3, bias, (a.double() * LOG2_E).float(), skip, groups, row_starts(case.rows), before,
        after, dt_limit=dt_limit,
    )  # fmt: skip
    assert y.dtype == case.dtype
    tolerance = TF32 if uses_matrix_units and case.dtype != torch.float32 else FLOAT32
    cuts = [heads * width, heads * width + groups * n]
    worst, begin = 0.0, 0
    for row, length in enumerate(case.rows):
        part = slice(begin, begin + length)
        begin += length
        x, b, c = np.split(_exact(xbc[part]), cuts, axis=1)
        want, want_last = ssd_reference(
            x.reshape(length, heads, width), _exact(zxbcdt[part, 3:]), _exact(a),
            b.reshape(length, groups, n), c.reshape(length, groups, n), _exact(skip), dt_bias=_exact(bias),
            dt_limit=dt_limit, initial_state=_state(before, row, heads, n, width),
        )  # fmt: skip
        worst = max(worst, _error(y[part], want.reshape(length, heads * width), case.dtype, tolerance))
        if after is not None and (last := after.tensors[row]) is not None:
            worst = max(worst, _error(last, want_last, torch.float32, tolerance))
    return worst


def check_conv(kernels: Any, case: Shape, *, channels: int, taps: int, column: int) -> float:
    """Compare `conv_silu` and the windows that it leaves, row by row."""
    x = case.normal(1, case.tokens, column + channels + 1)
    weight, bias = case.parameter(2, taps, channels), case.parameter(3, channels)
    before, after = case.states(taps - 1, channels), case.places(taps - 1, channels)
    y = kernels.conv_silu(x, column, weight, bias, row_starts(case.rows), before, after)
    assert y.dtype == case.dtype
    worst, begin = 0.0, 0
    for row, length in enumerate(case.rows):
        part = slice(begin, begin + length)
        begin += length
        window = _state(before, row, taps - 1, channels)
        seen = np.concatenate([window, _exact(x[part, column : column + channels])])
        total = _exact(bias) + sum(_exact(weight[k]) * seen[k : k + length] for k in range(taps))
        worst = max(worst, _error(y[part], total * np.exp(-np.logaddexp(0, -total)), case.dtype, FLOAT32))
        if after is not None and (last := after.tensors[row]) is not None:
            assert np.array_equal(_exact(last), seen[len(seen) - taps + 1 :])
    return worst


def check_add_norm(kernels: Any, case: Shape, *, size: int, adds: bool) -> float:
    """Compare `add_norm`; the sum itself is exact."""
    residual, weight = case.parameter(1, case.tokens, size), case.parameter(2, size)
    x = case.normal(3, case.tokens, size) if adds else None
    want = residual if x is None else residual + x
    total = residual.clone()
    y = kernels.add_norm(total, x, weight, 1e-5)
    assert torch.equal(total, want)
    assert y.dtype == kernels.dtype
    exact = _exact(want)
    exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-5) * _exact(weight)
    return _error(y, exact, kernels.dtype, FLOAT32)


def check_gate_norm(
    kernels: Any, case: Shape, *, groups: int, size: int, norms: bool, gate_first: bool
) -> float:
    """Compare `gate_norm`."""
    channels, tokens = groups * size, case.tokens
    y, z = case.normal(1, tokens, channels), case.normal(2, tokens, 5 + channels)
    weight = case.parameter(3, channels)
    want, gate = _exact(y), _exact(z[:, 5:])
    gate = gate * np.exp(-np.logaddexp(0, -gate))
    if gate_first:
        want = want * gate
    if norms:
        grouped = want.reshape(tokens, groups, size)
        scale = 1 / np.sqrt((grouped**2).mean(axis=2, keepdims=True) + 1e-5)
        want = (grouped * scale).reshape(tokens, channels) * _exact(weight)
    if not gate_first:
        want = want * gate
    kernels.gate_norm(y, z, 5, weight if norms else None, 1e-5, groups, gate_first=gate_first)
    return _error(y, want, case.dtype, FLOAT32)
