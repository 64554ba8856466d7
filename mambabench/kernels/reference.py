"""The selective scan one step at a time in float64: slow, obvious, and what every other version must equal.

The recurrence is algorithm 2 of Gu & Dao 2023 (arXiv:2312.00752, section 3) with the simplified
discretisation that their code uses: the input matrix is `delta * B`, not the zero-order hold of B.

    >>> import numpy as np
    >>> ones = np.ones((1, 3, 1))
    >>> y, state = selective_scan_reference(ones, ones, np.zeros((1, 1)), ones, ones)
    >>> y[0, :, 0].tolist(), state.item()
    ([1.0, 2.0, 3.0], 3.0)

`ssd_reference` does the same for Mamba-2 (Dao & Gu 2024, arXiv:2405.21060, section 7), where a head's
channels share one decay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ArrayLike = npt.NDArray[Any]


def selective_scan_reference(
    u: ArrayLike,
    delta: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    *,
    z: ArrayLike | None = None,
    delta_bias: ArrayLike | None = None,
    delta_softplus: bool = False,
    initial_state: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the scan in float64, whatever the inputs' dtype.

    Args:
        u: input, [B, L, d].
        delta: step sizes before bias and softplus, [B, L, d].
        A: state matrix, one diagonal a channel, [d, N]; negative in a trained model.
        B: input projection, [B, L, N].
        C: output projection, [B, L, N].
        D: skip weights, [d].
        z: gate, [B, L, d]; the output is multiplied by z * sigmoid(z).
        delta_bias: added to delta first, [d].
        delta_softplus: whether delta then goes through log(1 + exp(delta)).
        initial_state: state before the first step, [B, d, N]; zero when absent.

    Returns:
        The output [B, L, d] and the state after the last step [B, d, N].
    """
    x, step, a, b, c = (np.asarray(v, dtype=np.float64) for v in (u, delta, A, B, C))
    batch, length, channels = x.shape
    if delta_bias is not None:
        step = step + np.asarray(delta_bias, dtype=np.float64)
    if delta_softplus:
        step = np.logaddexp(0.0, step)
    state = np.zeros((batch, channels, a.shape[1]))
    if initial_state is not None:
        state = state + np.asarray(initial_state, dtype=np.float64)
    y = np.zeros((batch, length, channels))
    for t in range(length):
        decay = np.exp(step[:, t, :, None] * a)
        state = decay * state + (step[:, t] * x[:, t])[:, :, None] * b[:, t, None, :]
        y[:, t] = (state * c[:, t, None, :]).sum(axis=-1)
    if D is not None:
        y = y + x * np.asarray(D, dtype=np.float64)
    if z is not None:
        gate = np.asarray(z, dtype=np.float64)
        y = y * gate * np.exp(-np.logaddexp(0.0, -gate))
    return y, state


def ssd_reference(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike,
    *,
    dt_bias: ArrayLike | None = None,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    initial_state: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run the scan of Mamba-2 over one sequence in float64, whatever the inputs' dtype.

    Args:
        x: input, [L, H, P].
        dt: step sizes before bias and softplus, [L, H].
        A: state matrix, one number a head, [H]; negative in a trained model.
        B: input projection of each group of heads, [L, G, N].
        C: output projection, [L, G, N].
        D: skip weights, [H, P].
        dt_bias: added to dt first, [H].
        dt_limit: smallest and largest step size after softplus.
        initial_state: state before the first step, [H, N, P]; zero when absent.

    Returns:
        The output [L, H, P] and the state after the last step [H, N, P].
    """
    u, step, a, b, c, skip = (np.asarray(v, dtype=np.float64) for v in (x, dt, A, B, C, D))
    length, heads, width = u.shape
    if dt_bias is not None:
        step = step + np.asarray(dt_bias, dtype=np.float64)
    step = np.clip(np.logaddexp(0.0, step), *dt_limit)
    b, c = (v.repeat(heads // v.shape[1], axis=1) for v in (b, c))
    state = np.zeros((heads, b.shape[2], width))
    if initial_state is not None:
        state = state + np.asarray(initial_state, dtype=np.float64)
    y = np.zeros((length, heads, width))
    for t in range(length):
        decay = np.exp(step[t] * a)[:, None, None]
        state = decay * state + step[t][:, None, None] * b[t][:, :, None] * u[t][:, None, :]
        y[t] = np.einsum("hn,hnp->hp", c[t], state) + skip * u[t]
    return y, state
