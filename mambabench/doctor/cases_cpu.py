"""Cases for what only a processor has: the scan with gradients, and one token of a few rows at a time.

for case in cpu_cases():
    print(measure(case))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mambabench.doctor import plain
from mambabench.doctor.cases_packed import LOG2_E, packed_cases
from mambabench.doctor.measure import Case
from mambabench.doctor.plain import Outputs, decays, normal
from mambabench.kernels.cpu import selective_scan
from mambabench.kernels.packed import kernels_for
from mambabench.kernels.program import DTYPES, Program, usual_threads
from mambabench.kernels.rows import Rows

_PATH = "cpu"
_THREE_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Rows of activations, inputs, outputs.
_PRODUCTS = ((1, 768, 1536), (5, 100, 130))

Functions = tuple[Callable[[], Outputs], Callable[[], Outputs], Callable[[], Outputs]]


def cpu_cases() -> Iterator[Case]:
    """Return all cases of the processor's kernels."""
    yield from packed_cases(kernels_for("cpu"), "cpu", _PATH)
    for dtype in _THREE_DTYPES:
        keeps = dtype in (torch.float32, torch.bfloat16)
        shape = f"2 x 65 tokens, 48 x 16, {'from states' if keeps else 'from zero'}"
        yield Case(_PATH, "scan of a batch", shape, _name(dtype), *_scan(dtype, keeps))
    yield Case(_PATH, "gradients of the scan", "2 x 33 tokens, 20 x 8, from states", "float32", *_gradients())
    for dtype in DTYPES:
        for rows, inputs, outputs in _PRODUCTS:
            shape = f"{rows} x {inputs} to {outputs}"
            yield Case(
                _PATH, "product of a step", shape, _name(dtype), *_product(rows, inputs, outputs, dtype)
            )
    for rows in (1, 3):
        yield Case(_PATH, "convolution of a step", f"{rows} x 160", "float32", *_conv_step(rows, 160))
        yield Case(_PATH, "scan of a step", f"{rows} x 160 x 16", "float32", *_scan_step(rows, 160, 16))
        shape = f"{rows} x 4 heads of 64 x 64"
        yield Case(_PATH, "Mamba-2 scan of a step", shape, "float32", *_ssd_step(rows, 4, 64, 64))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _scan_inputs(batch: int, length: int, channels: int, n_states: int) -> dict[str, Tensor]:
    return {
        "u": normal(1, batch, length, channels),
        "delta": normal(2, batch, length, channels) - 2.0,
        "A": decays(channels, n_states),
        "B": normal(3, batch, length, n_states),
        "C": normal(4, batch, length, n_states),
        "D": normal(5, channels),
        "z": normal(6, batch, length, channels),
        "bias": normal(7, channels) / 4,
        "state": normal(8, batch, channels, n_states),
    }


def _ours(v: dict[str, Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
    return selective_scan(
        *(v[name] for name in ("u", "delta", "A", "B", "C", "D")),
        z=v["z"],
        delta_bias=v["bias"],
        delta_softplus=True,
        initial_state=state,
    )


def _scan(dtype: torch.dtype, keeps: bool) -> Functions:
    v = {name: value.to(dtype) for name, value in _scan_inputs(2, 65, 48, 16).items()}
    state = v.pop("state") if keeps else None
    v.pop("state", None)

    def named(found: tuple[Tensor, Tensor]) -> Outputs:
        return {"output": found[0], "state": found[1]}

    return (
        lambda: named(_ours(v, state)),
        lambda: named(plain.scan(list(v.values()), state)),
        lambda: named(plain.exact_scan(list(v.values()), state)),
    )


def _gradients() -> Functions:
    v = _scan_inputs(2, 33, 20, 8)
    weights = normal(9, 2, 33, 20), normal(10, 2, 20, 8)

    def slopes(scan: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype) -> Outputs:
        leaves = {name: value.detach().clone().to(dtype).requires_grad_() for name, value in v.items()}
        y, last = scan(leaves)
        total = (y * weights[0].to(dtype)).sum() + (last * weights[1].to(dtype)).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
        return {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}

    def by_torch(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        *inputs, state = leaves.values()
        return plain.scan(inputs, state)

    return (
        lambda: slopes(lambda leaves: _ours(leaves, leaves["state"]), torch.float32),
        lambda: slopes(by_torch, torch.float32),
        lambda: slopes(by_torch, torch.float64),
    )


def _product(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Functions:
    x, bias = normal(1, rows, inputs), normal(3, outputs)
    weight = (normal(2, outputs, inputs) / inputs**0.5).to(dtype)

    def run() -> Outputs:
        program = Program(rows, usual_threads())
        y = program.shared(outputs)
        program.product(x, weight, y, bias=bias)
        program.run([], [])
        return {"output": y}

    def plainly(wide: torch.dtype) -> Outputs:
        return {"output": functional.linear(x.to(wide), weight.to(wide), bias.to(wide))}

    return run, partial(plainly, torch.float32), partial(plainly, torch.float64)


def _step(states: Tensor, width: int, write: Callable[[Program, Tensor], None]) -> Callable[[], Outputs]:
    """Return what runs a program of one operation with a state, [rows, ...], and an output of `width`."""

    def run() -> Outputs:
        rows, shape = states.shape[0], states.shape[1:]
        program = Program(rows, usual_threads())
        y = program.shared(width)
        write(program, y)
        before = Rows.apart(states)
        after = Rows.places(None, y, shape, rows)
        program.run(*([r.addresses(rows, shape, torch.float32)] for r in (before, after)))
        return {"output": y, "state": after.stacked()}

    return run


def _stacked(found: list[tuple[Tensor, Tensor]]) -> Outputs:
    return {"output": torch.stack([y for y, _ in found]), "state": torch.stack([h for _, h in found])}


def _conv_step(rows: int, channels: int) -> Functions:
    x, weight, bias = normal(1, rows, channels), normal(2, 4, channels), normal(3, channels)
    window = normal(4, rows, 3, channels)

    def plainly(dtype: torch.dtype) -> Outputs:
        found = [
            plain.conv(x[r : r + 1].to(dtype), weight.to(dtype), bias.to(dtype), window[r].to(dtype))
            for r in range(rows)
        ]
        return _stacked([(y[0], seen) for y, seen in found])

    run = _step(window, channels, lambda program, y: program.conv_silu(x, 0, weight, bias, y))
    return run, partial(plainly, torch.float32), partial(plainly, torch.float64)


def _scan_step(rows: int, channels: int, n_states: int) -> Functions:
    v = {
        name: value[:, 0] if value.dim() == 3 else value
        for name, value in _scan_inputs(rows, 1, channels, n_states).items()
        if name != "state"
    }
    state = normal(9, rows, n_states, channels)
    a_log2 = (v["A"].t().double() * LOG2_E).float().contiguous()
    proj = torch.cat([v["B"], v["C"]], 1)

    def write(program: Program, y: Tensor) -> None:
        program.scan(
            v["u"].contiguous(),
            v["delta"].contiguous(),
            v["bias"],
            a_log2,
            proj,
            0,
            v["D"],
            v["z"].contiguous(),
            0,
            y,
        )

    def plainly(scan: Callable[..., tuple[Tensor, Tensor]]) -> Outputs:
        names = ("u", "delta", "A", "B", "C", "D", "z", "bias")
        found = []
        for r in range(rows):
            one = [v[n][r][None, None] if n in ("u", "delta", "B", "C", "z") else v[n] for n in names]
            y, last = scan(one, state[r].t()[None])
            found.append((y[0, 0], last[0].t()))
        return _stacked(found)

    return _step(state, channels, write), partial(plainly, plain.scan), partial(plainly, plain.exact_scan)


def _ssd_step(rows: int, heads: int, width: int, n_states: int) -> Functions:
    xbc, dt = normal(1, rows, heads * width + 2 * n_states), normal(2, rows, heads) - 2.0
    bias, A, D = normal(3, heads) / 4, decays(heads) / 4, normal(4, heads, width)
    state, a_log2 = normal(5, rows, heads, n_states, width), (A.double() * LOG2_E).float()

    def write(program: Program, y: Tensor) -> None:
        program.ssd(xbc, dt, 0, bias, a_log2, D, 1, y, dt_limit=(0.0, float("inf")))

    def plainly(ssd: Callable[..., tuple[Tensor, Tensor]]) -> Outputs:
        found = []
        for r in range(rows):
            x, b, c = torch.split(xbc[r : r + 1], [heads * width, n_states, n_states], dim=1)
            sides = x.view(1, heads, width), dt[r : r + 1], A, b[:, None], c[:, None]
            y, last = ssd(*sides, D, bias, state[r])
            found.append((y[0].flatten(), last))
        return _stacked(found)

    run = _step(state, heads * width, write)
    return run, partial(plainly, plain.ssd), partial(plainly, plain.exact_ssd)
