"""The compiled scan against the sequential float64 one, and its gradient against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.kernels import _scan_numba
from mambabench.kernels.cpu import selective_scan
from mambabench.kernels.reference import selective_scan_reference

SHAPES = st.tuples(
    st.integers(1, 3),
    st.integers(1, 70),
    st.sampled_from([1, 3, 16, 63, 64, 65, 130]),
    st.integers(1, 17),
)
"""(B, L, d, N): lengths across two chunks and widths across three blocks of channels."""

few = settings(max_examples=25, deadline=None)


def draw(
    shape: tuple[int, int, int, int],
    seed: int,
    dtype: torch.dtype,
    delta_scale: float = 1.0,
    options: bool = True,
) -> dict[str, torch.Tensor]:
    batch, length, channels, n_states = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {
        "u": normal(batch, length, channels),
        "delta": normal(batch, length, channels).abs() * delta_scale,
        "A": -(normal(channels, n_states).abs() + 0.01) * 4,
        "B": normal(batch, length, n_states),
        "C": normal(batch, length, n_states),
    }
    if options:
        inputs["D"] = normal(channels)
        inputs["z"] = normal(batch, length, channels)
        inputs["delta_bias"] = normal(channels) * delta_scale
        inputs["initial_state"] = normal(batch, channels, n_states)
    return inputs


def reference(inputs: dict[str, torch.Tensor], **options: Any) -> tuple[np.ndarray, np.ndarray]:
    return selective_scan_reference(**{k: v.detach().double().numpy() for k, v in inputs.items()}, **options)


@few
@given(SHAPES, st.integers(0, 99), st.sampled_from([1e-6, 1e-2, 1.0, 50.0]), st.booleans(), st.booleans())
def test_float32_agrees_with_the_float64_reference(
    shape: tuple[int, int, int, int], seed: int, delta_scale: float, softplus: bool, options: bool
) -> None:
    # Without softplus a negative step would let the state grow without bound.
    inputs = draw(shape, seed, torch.float32, delta_scale, options)
    if not softplus:
        inputs.pop("delta_bias", None)
    y, last = selective_scan(**inputs, delta_softplus=softplus)
    want, want_last = reference(inputs, delta_softplus=softplus)
    # Sums over states cancel, so errors are held against the size of the whole output.
    assert np.abs(y.numpy() - want).max() <= 2e-6 * shape[3] * max(1.0, np.abs(want).max())
    assert np.abs(last.numpy() - want_last).max() <= 5e-6 * max(1.0, np.abs(want_last).max())


@few
@given(SHAPES, st.integers(0, 99))
def test_float64_agrees_almost_exactly(shape: tuple[int, int, int, int], seed: int) -> None:
    inputs = draw(shape, seed, torch.float64)
    y, last = selective_scan(**inputs, delta_softplus=True)
    want, want_last = reference(inputs, delta_softplus=True)
    # torch's softplus turns linear above 20, which is good to 2e-9 there.
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(last.numpy(), want_last, rtol=1e-7, atol=1e-7)


@few
@given(st.integers(2, 70), st.data())
def test_a_text_may_be_fed_in_pieces(length: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, length - 1))
    inputs = draw((2, length, 65, 4), 0, torch.float32)
    whole, last = selective_scan(**inputs, delta_softplus=True)
    timed = ("u", "delta", "B", "C", "z")
    head = {k: v[:, :cut] if k in timed else v for k, v in inputs.items()}
    tail = {k: v[:, cut:] if k in timed else v for k, v in inputs.items()}
    first, state = selective_scan(**head, delta_softplus=True)
    kept = state.clone()
    second, end = selective_scan(**{**tail, "initial_state": state}, delta_softplus=True)
    # torch's own functions round differently at the ragged end of a vector.
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end, last, rtol=1e-5, atol=1e-5)
    assert torch.equal(state, kept), "the given state must stay as it was"


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 2), (1, 35, 2, 3), (1, 3, 67, 1)])
def test_gradients_equal_finite_differences(shape: tuple[int, int, int, int]) -> None:
    inputs = draw(shape, 1, torch.float64)
    names = list(inputs)
    leaves = [v.requires_grad_() for v in inputs.values()]

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return selective_scan(**dict(zip(names, tensors, strict=True)), delta_softplus=True)

    # The projected check needs one backward, not one an output; both outputs take part.
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@few
@given(SHAPES, st.sampled_from([1e-3, 1.0]))
def test_float32_gradients_agree_with_float64_ones(
    shape: tuple[int, int, int, int], delta_scale: float
) -> None:
    gradients = {}
    for dtype in (torch.float32, torch.float64):
        inputs = {k: v.requires_grad_() for k, v in draw(shape, 2, dtype, delta_scale).items()}
        y, last = selective_scan(**inputs, delta_softplus=True)
        (y.square().sum() + last.sum()).backward()
        gradients[dtype] = {k: v.grad for k, v in inputs.items()}
    for name, got in gradients[torch.float32].items():
        want = gradients[torch.float64][name]
        assert got is not None
        assert want is not None
        assert (got - want).abs().max() <= 2e-5 * max(1.0, float(want.abs().max())), name


def test_forward_keeps_no_states_unless_a_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    loop = _scan_numba.forward

    def spy(*args: Any) -> None:
        seen.append(args[7].shape)
        loop(*args)

    monkeypatch.setattr(_scan_numba, "forward", spy)
    inputs = draw((2, 100, 5, 4), 0, torch.float32, options=False)
    selective_scan(**inputs)
    inputs["u"].requires_grad_()
    selective_scan(**inputs)
    # Each thread calls it once.
    assert list(dict.fromkeys(seen)) == [(2, 0, 4, 5), (2, 4, 4, 5)]


def test_threads_do_not_change_the_result() -> None:
    inputs = {k: v.requires_grad_() for k, v in draw((3, 40, 130, 7), 0, torch.float32).items()}
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for tensor in inputs.values():
                tensor.grad = None
            y, _ = selective_scan(**inputs, delta_softplus=True)
            y.sum().backward()
            results.append((y.detach(), inputs["B"].grad, inputs["A"].grad))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(value: float) -> None:
    inputs = draw((1, 6, 20, 3), 0, torch.float32, options=False)
    inputs["u"][0, 2, 7] = value
    y, _ = selective_scan(**inputs)
    assert torch.isfinite(y[0, :2]).all()
    assert not torch.isfinite(y[0, 2:, 7]).any()
    assert torch.isfinite(y[0, :, :7]).all(), "channels do not mix"


def test_a_step_of_nan_reaches_the_output() -> None:
    inputs = draw((1, 4, 20, 3), 0, torch.float32, options=False)
    inputs["delta"][0, 1, 5] = float("nan")
    y, _ = selective_scan(**inputs)
    assert torch.isnan(y[0, 1:, 5]).all()


def test_half_precision_is_computed_in_float32() -> None:
    inputs = draw((1, 30, 20, 3), 0, torch.bfloat16)
    y, last = selective_scan(**inputs, delta_softplus=True)
    want, _ = reference(inputs, delta_softplus=True)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    np.testing.assert_allclose(y.float().numpy(), want, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_a_wrong_shape_is_named(name: str) -> None:
    inputs = draw((2, 4, 6, 3), 0, torch.float32)
    inputs[name] = inputs[name][:1] if name != "A" else inputs[name][:, :, None]
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        selective_scan(**inputs)
