"""Exponentials that become vector code, and the widest vectors that the processor has.

LLVM leaves a call of `expf` alone, one lane at a time, and it would take most of a scan's time. These
are polynomials instead, written so that a loop over them has no branch and no call.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from numba.core import config
from numba.extending import register_jitable

_f = np.float32

# Adding 1.5 * 2^23 leaves the nearest integer in the low bits of a 32-bit float.
_ROUND = _f(12582912.0)
_MANTISSA_BITS = np.int32(23)
_SMALLEST = _f(-126.0)
_LARGEST = _f(126.0)
_ZERO, _ONE, _TWO = _f(0.0), _f(1.0), _f(2.0)
_LOG2_E = _f(1.4426950408889634)

# 2^r on [-1/2, 1/2], interpolated in Chebyshev points: within 8.1e-8 of it, relative.
_chebyshev = np.polynomial.Chebyshev.interpolate(lambda x: 2.0 ** (x / 2), 6)
_powers = np.asarray(_chebyshev.convert(kind=np.polynomial.Polynomial).coef, np.float64)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (_f(c * 2.0**i) for i, c in enumerate(_powers))
# log(1 + t) is twice the area tangent of s = t / (2 + t), whose series in s converges fast for s up to 1/3.
_L1, _L3, _L5, _L7, _L9, _L11, _L13 = (_f(2.0 / k) for k in range(1, 15, 2))

FASTMATH = {"contract", "nsz"}
"""Sums keep their order, so that results do not depend on the width of the vectors."""


def use_widest_vectors() -> None:
    """Let LLVM use 512-bit vectors where the processor has them; call it before anything is compiled.

    By default it stops at 256 bits on Intel's processors, for fear of a clock that drops; these loops
    are long enough to gain all the same. Features that the user has set are left as they are.
    """
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return
    features = llvm.get_host_cpu_features()
    if features.get("avx512f", False):
        config.CPU_NAME = llvm.get_host_cpu_name()
        config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


use_widest_vectors()


@register_jitable(fastmath=FASTMATH, error_model="numpy")
def exp2(x):  # type: ignore[no-untyped-def]
    """Return 2 to the power of a float32 up to 127; results below 2^-126 become about 2^-126."""
    # Comparisons are false for NaN, which therefore reaches the result.
    x = _SMALLEST if x < _SMALLEST else x
    shifted = x + _ROUND
    r = x - (shifted - _ROUND)
    p = (((((_P6 * r + _P5) * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    bits = _f(p).view(np.int32)
    exponent = np.int32(_f(shifted).view(np.int32) << _MANTISSA_BITS)
    return np.int32(bits + exponent).view(np.float32)


@register_jitable(fastmath=FASTMATH, error_model="numpy")
def softplus(x):  # type: ignore[no-untyped-def]
    """Return log(1 + exp(x)) of a float32."""
    t = exp2(-abs(x) * _LOG2_E)
    s = t / (t + _TWO)
    q = s * s
    series = (((((_L13 * q + _L11) * q + _L9) * q + _L7) * q + _L5) * q + _L3) * q + _L1
    return (x if x > _ZERO else _ZERO) + s * series


@register_jitable(fastmath=FASTMATH, error_model="numpy")
def silu(x):  # type: ignore[no-untyped-def]
    """Return x / (1 + exp(-x)) of a float32."""
    negative = -x * _LOG2_E
    negative = _LARGEST if negative > _LARGEST else negative
    return x / (_ONE + exp2(negative))
