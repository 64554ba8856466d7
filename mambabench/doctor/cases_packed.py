"""Cases for the kernels of a recurrent layer over sequences that lie end to end, on whatever device has them.

Those of mamba_ssm's scans from states have not run on hardware yet.

for case in packed_cases(kernels_for("cpu"), "cpu", "cpu"):
    print(measure(case))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from mambabench.doctor import plain
from mambabench.doctor.cases_official import DTYPES, PRODUCT_ALLOWED, SCAN_ALLOWED
from mambabench.doctor.measure import Case
from mambabench.doctor.plain import Outputs, decays, normal
from mambabench.kernels.packed import PackedKernels
from mambabench.kernels.rows import Rows
from mambabench.models.layers import row_starts

LOG2_E = 1.4426950408889634
_EPS = 1e-5
_SSD_NAME = "Mamba-2 scan"
# Tokens of each row, channels or heads, states, and whether rows go on from a state.
_CONVS: Final[tuple[tuple[tuple[int, ...], int, bool], ...]] = (
    ((300,), 192, False),
    ((5, 1, 40), 257, True),
    ((1, 1, 1), 64, True),
)
_SCANS: Final[tuple[tuple[tuple[int, ...], int, int, bool], ...]] = (
    ((300,), 128, 16, False),
    ((64, 1, 17), 96, 16, True),
    ((3, 40), 257, 5, True),
)
# Tokens of each row, heads, their width, states, groups, and whether rows go on from a state.
_SSDS: Final[tuple[tuple[tuple[int, ...], int, int, int, int, bool], ...]] = (
    ((300,), 4, 64, 64, 1, False),
    ((130, 1, 40), 6, 32, 16, 2, True),
)
_NORMS = ((7, 192), (1, 768))
# Longer than `kernels.gpu.choice` calls long; of the two rows the second has seen nothing.
_LONG_SCAN: Final = ((300, 270), 64, 16, True)
_LONG_SSD: Final = ((300, 260), (4, 64, 64, 1), True)
_FEW_ELEMENTS: Final = 16_000
"""Of a call's largest tensor, so that the rows are cut."""


def packed_cases(
    kernels: PackedKernels,
    device: str,
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    allowed: float | None = None,
    allowed_products: float | None = None,
) -> Iterator[Case]:
    """Return cases of all methods of `PackedKernels`.

    Args:
        kernels: to be tried.
        device: "cpu", or "cuda:0".
        path: they belong to.
        dtype: of the activations; parameters and states are float32.
        allowed: as of `Case`.
        allowed_products: the same for Mamba-2's scan, which multiplies matrices.
    """

    def case(
        name: str,
        shape: str,
        run: Callable[[], Outputs],
        by_torch: Callable[[], Outputs],
        exact: Callable[[], Outputs],
    ) -> Case:
        most = allowed_products if name == _SSD_NAME else allowed
        return Case(path, name, shape, str(dtype).removeprefix("torch."), run, by_torch, exact, allowed=most)

    for lengths, channels, keeps in _CONVS:
        yield case(
            "convolution",
            _rows(lengths, f"{channels} channels", keeps),
            *_conv(kernels, device, dtype, lengths, channels, keeps),
        )
    for lengths, channels, n_states, keeps in _SCANS:
        shape = _rows(lengths, f"{channels} x {n_states}", keeps)
        yield case(
            "selective scan", shape, *_scan(kernels, device, dtype, lengths, channels, n_states, keeps)
        )
    for lengths, heads, width, n_states, groups, keeps in _SSDS:
        shape = _rows(lengths, f"{heads} heads of {width} x {n_states}", keeps)
        sizes = heads, width, n_states, groups
        yield case(_SSD_NAME, shape, *_ssd(kernels, device, dtype, lengths, sizes, keeps))
    for tokens, size in _NORMS:
        yield case(
            "add and normalise", f"{tokens} x {size}", *_add_norm(kernels, device, dtype, tokens, size)
        )
        yield case(
            "gate and normalise", f"{tokens} x {size}", *_gate_norm(kernels, device, dtype, tokens, size)
        )


def long_row_cases(device: str) -> Iterator[Case]:
    """Return cases of mamba_ssm's scans from states, under the path "official".

    There are none where mamba_ssm does not load: then its functions' own cases say so.

    Args:
        device: "cuda:0".
    """
    from mambabench.kernels.gpu.choice import ChosenKernels
    from mambabench.kernels.gpu.official import MOST_ELEMENTS, functions

    found = functions()
    if found is None:
        return
    for dtype in DTYPES:
        for most_elements in (MOST_ELEMENTS, _FEW_ELEMENTS):
            kernels = ChosenKernels(dtype, found, most_elements=most_elements)
            cut = "" if most_elements == MOST_ELEMENTS else ", in pieces"
            name = str(dtype).removeprefix("torch.")
            lengths, channels, n_states, keeps = _LONG_SCAN
            shape = _rows(lengths, f"{channels} x {n_states}", keeps) + cut
            run, by_torch, exact = _scan(kernels, device, dtype, *_LONG_SCAN)
            yield Case(
                "official", "selective_scan_fn", shape, name, run, by_torch, exact, allowed=SCAN_ALLOWED
            )
            if dtype != torch.bfloat16:
                # Of these rows our own scan of Mamba-2 is in use.
                continue
            lengths, (heads, width, n_states, _), keeps = _LONG_SSD
            shape = _rows(lengths, f"{heads} heads of {width} x {n_states}", keeps) + cut
            run, by_torch, exact = _ssd(kernels, device, dtype, *_LONG_SSD)
            most = PRODUCT_ALLOWED[dtype]
            yield Case(
                "official", "mamba_chunk_scan_combined", shape, name, run, by_torch, exact, allowed=most
            )


def _rows(lengths: tuple[int, ...], what: str, keeps: bool) -> str:
    tokens = " + ".join(map(str, lengths))
    return f"{tokens} tokens, {what}, {'from states' if keeps else 'from zero'}"


def _places(device: str, state: Tensor, keeps: bool) -> tuple[Rows | None, Rows]:
    """Return the rows' states, the second of which has seen nothing, and places for the next ones."""
    like = torch.empty(0, device=device)
    after = Rows.places(None, like, state.shape[1:], len(state))
    if not keeps:
        return None, after
    given = [None if row == 1 else one.to(device) for row, one in enumerate(state.clone())]
    return Rows(given, state.shape[1:]), after


def _started(state: Tensor, keeps: bool) -> Tensor:
    """Return the states as the kernel takes them: zero for rows that have seen nothing."""
    state = state.clone()
    if not keeps:
        return torch.zeros_like(state)
    state[1:2] = 0
    return state


def _parts(lengths: tuple[int, ...], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(v, list(lengths)) for v in tensors), strict=True))


def _conv(
    kernels: PackedKernels,
    device: str,
    dtype: torch.dtype,
    lengths: tuple[int, ...],
    channels: int,
    keeps: bool,
) -> tuple[Callable[[], Outputs], ...]:
    x, weight = normal(1, sum(lengths), channels + 8).to(dtype), normal(2, 4, channels)
    bias = normal(3, channels)
    window = normal(4, len(lengths), 3, channels).to(dtype).float()
    on = [v.to(device) for v in (x, weight, bias)]

    def run() -> Outputs:
        before, after = _places(device, window, keeps)
        y = kernels.conv_silu(on[0], 8, on[1], on[2], row_starts(lengths), before, after)
        return {"output": y, "state": after.stacked()}

    def plainly(wide: torch.dtype) -> Outputs:
        # The windows are float32, so that nothing is rounded to the activations' dtype but the output.
        found = [
            plain.conv(part.to(wide), weight.to(wide), bias.to(wide), start.to(wide))
            for (part,), start in zip(_parts(lengths, x[:, 8:]), _started(window, keeps), strict=True)
        ]
        y, seen = torch.cat([y for y, _ in found]), torch.stack([s for _, s in found])
        return {"output": y if wide == torch.float64 else y.to(dtype), "state": seen}

    return run, lambda: plainly(torch.float32), lambda: plainly(torch.float64)


def _scan(
    kernels: PackedKernels,
    device: str,
    dtype: torch.dtype,
    lengths: tuple[int, ...],
    channels: int,
    n_states: int,
    keeps: bool,
) -> tuple[Callable[[], Outputs], ...]:
    tokens = sum(lengths)
    u, dt, bias = normal(1, tokens, channels), normal(2, tokens, channels) - 2.0, normal(3, channels) / 4
    A, D = decays(channels, n_states), normal(4, channels)
    proj, xz = normal(5, tokens, 6 + 2 * n_states), normal(6, tokens, 2 * channels)
    u, dt, proj, xz = (v.to(dtype) for v in (u, dt, proj, xz))
    state = normal(7, len(lengths), n_states, channels)
    a_log2 = (A.t().double() * LOG2_E).float().contiguous()
    on = [v.to(device) for v in (u, dt, bias, a_log2, proj, D, xz)]

    def run() -> Outputs:
        before, after = _places(device, state, keeps)
        y = kernels.scan(
            on[0], on[1], on[2], on[3], on[4], 6, on[5], on[6], channels, row_starts(lengths), before, after
        )
        return {"output": y, "state": after.stacked()}

    def plainly(scan: Callable[..., tuple[Tensor, Tensor]]) -> Outputs:
        found = []
        cut = _parts(lengths, u, dt, proj[:, 6 : 6 + n_states], proj[:, 6 + n_states :], xz[:, channels:])
        for (x, step, b, c, z), start in zip(cut, _started(state, keeps), strict=True):
            first = start.t()[None]
            found.append(scan([x[None], step[None], A, b[None], c[None], D, z[None], bias], first))
        last = torch.stack([h[0].t() for _, h in found])
        return {"output": torch.cat([y[0] for y, _ in found]), "state": last}

    return run, lambda: plainly(plain.scan), lambda: plainly(plain.exact_scan)


def _ssd(
    kernels: PackedKernels,
    device: str,
    dtype: torch.dtype,
    lengths: tuple[int, ...],
    sizes: tuple[int, int, int, int],
    keeps: bool,
) -> tuple[Callable[[], Outputs], ...]:
    heads, width, n_states, groups = sizes
    tokens, columns = sum(lengths), groups * n_states
    xbc, proj = normal(1, tokens, heads * width + 2 * columns), normal(2, tokens, 8 + heads) - 2.0
    xbc, proj = xbc.to(dtype), proj.to(dtype)
    bias, A, D = normal(3, heads) / 4, decays(heads) / 4, normal(4, heads)[:, None].expand(heads, width)
    state = normal(5, len(lengths), heads, n_states, width)
    D = D.contiguous()
    on = [v.to(device) for v in (xbc, proj, bias, (A.double() * LOG2_E).float(), D)]

    def run() -> Outputs:
        before, after = _places(device, state, keeps)
        y = kernels.ssd(on[0], on[1], 8, on[2], on[3], on[4], groups, row_starts(lengths), before, after)
        return {"output": y, "state": after.stacked()}

    def plainly(ssd: Callable[..., tuple[Tensor, Tensor]]) -> Outputs:
        found = []
        x, b, c = torch.split(xbc, [heads * width, columns, columns], dim=1)
        for (one, step, b_one, c_one), start in zip(
            _parts(lengths, x, proj[:, 8:], b, c), _started(state, keeps), strict=True
        ):
            shared = (v.view(-1, groups, n_states) for v in (b_one, c_one))
            found.append(ssd(one.view(-1, heads, width), step, A, *shared, D, bias, start))
        last = torch.stack([h for _, h in found])
        return {"output": torch.cat([y.flatten(1) for y, _ in found]), "state": last}

    return run, lambda: plainly(plain.ssd), lambda: plainly(plain.exact_ssd)


def _add_norm(
    kernels: PackedKernels, device: str, dtype: torch.dtype, tokens: int, size: int
) -> tuple[Callable[[], Outputs], ...]:
    residual, x, weight = normal(1, tokens, size), normal(2, tokens, size).to(dtype), normal(3, size)

    def run() -> Outputs:
        total = residual.clone().to(device)
        y = kernels.add_norm(total, x.to(device), weight.to(device), _EPS)
        return {"output": y, "sum": total}

    def plainly(wide: torch.dtype) -> Outputs:
        # The sum is kept in float32, so that its rounding is no error of the normalisation.
        total = (residual + x).to(wide)
        y = plain.norm(total, weight.to(wide), _EPS)
        exact = residual.to(wide) + x.to(wide)
        return {"output": y if wide == torch.float64 else y.to(dtype), "sum": exact}

    return run, lambda: plainly(torch.float32), lambda: plainly(torch.float64)


def _gate_norm(
    kernels: PackedKernels, device: str, dtype: torch.dtype, tokens: int, size: int
) -> tuple[Callable[[], Outputs], ...]:
    y, z, weight = normal(1, tokens, size).to(dtype), normal(2, tokens, size + 4).to(dtype), normal(3, size)

    def run() -> Outputs:
        out = y.clone().to(device)
        kernels.gate_norm(out, z.to(device), 4, weight.to(device), _EPS, 1)
        return {"output": out}

    def plainly(wide: torch.dtype) -> Outputs:
        gated = y.to(wide) * functional.silu(z[:, 4:].to(wide))
        out = plain.norm(gated, weight.to(wide), _EPS)
        return {"output": out if wide == torch.float64 else out.to(dtype)}

    return run, lambda: plainly(torch.float32), lambda: plainly(torch.float64)
