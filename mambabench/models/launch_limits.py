"""How many tokens one forward over CUDA kernels may have before the kernels' own offsets overflow.

The kernels below count elements in 32 bits and do not look whether that is enough: past it they read and
write somewhere else, and what comes out is wrong without an error. Past the blocks of a grid's axis CUDA
refuses to launch. Rows do not depend on each other, so that
a batch can be forwarded in parts. What is counted, in mamba_ssm 2.3.1 and 2.3.2 and causal_conv1d 1.7.0, for
B rows of L tokens, each of C = ceil(L / chunk_size) chunks:

=========================  ==================================================  =============================
kernel                     its offset, and the product that it is below        bound
=========================  ==================================================  =============================
`ssd_chunk_state.py`,      int32, into views of in_proj's output of W columns  B L W <= 2**31
`ssd_chunk_scan.py`,       (`pid_b * stride_dt_batch + pid_c * chunk_size *
`layernorm_gated.py`       stride_dt_seqlen`, `row * stride_z_row`)
`ssd_chunk_state.py`,      int32, into a state a chunk, H heads of P channels  B C H P N <= 2**31
`ssd_state_passing.py`     of N (`pid_b * stride_states_batch + ...`)
`ssd_bmm.py`,              int32, into G groups' scores a chunk                B C G chunk_size**2 <= 2**31
`ssd_chunk_scan.py`
`ssd_chunk_state.py`       int32, into step sizes padded to whole chunks       B C H chunk_size <= 2**31
`ssd_chunk_state.py`       a CUDA grid's second axis                           B C <= 65,535
`ssd_bmm.py`               a CUDA grid's third axis                            C G <= 65,535
`layer_norm.py`            int32, into the residual stream (`row *             B L d_model <= 2**31
                           stride_x_row`)
`selective_scan_fwd_       int, into a state each 2,048 tokens of D channels   B D N ceil(L / 2048) <= 2**31
kernel.cuh`                (`(batch_id * params.dim + dim_id) * n_chunks *
                           dstate`)
`selective_scan.h`         uint32 strides in 2.3.1, 64 bits in 2.3.2           B L D <= 2**32
                           (`index_t`, `batch_id * params.u_batch_stride`)
`causal_conv1d_fwd.cu`     uint32 (`batch_id * params.x_batch_stride`,         B L D <= 2**32 in mamba_ssm,
                           `channel_id * params.x_c_stride`)                   B L W in transformers, where
                                                                               inputs lie token by token
`causal_conv1d_fwd.cu`     a CUDA grid's second axis, 64 tokens a block,       ceil(L / 64) <= 65,535
                           where inputs lie token by token
=========================  ==================================================  =============================

A row shorter than a chunk takes a whole one of the states, so that many short rows reach a bound long before
many tokens do. A step of one token is like such a row (`selective_state_update.py`: `pid_b *
stride_state_batch`). flash-attn's rotary kernel was not read; its bound is taken to be 2**31 elements of the
attention's joint projection. None of this has run on a GPU here.

    limits = limits_of(module, torch.device("cuda"))
    for rows in limits.parts(*ids.shape, name="mamba2-2.7b"):
        logits = forward(ids[rows])
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.errors import UsageError

if TYPE_CHECKING:
    import torch

INT32_ELEMENTS = 2**31
UINT32_ELEMENTS = 2**32
GRID_BLOCKS = 65_535
SCAN_CHUNK_TOKENS = 2048
"""Of the scan of Mamba-1, which keeps a state after each."""
CONVOLVED_TOKENS = 64
"""Of a row, by one block of the convolution of inputs that lie token by token."""
_ANY_ROWS = sys.maxsize


@dataclass(frozen=True)
class Bound:
    """A tensor that a kernel addresses with numbers that can be too small, or an axis of its grid.

    >>> Bound("a projection", 1, 10576, 2**31).rows(4096)
    49
    """

    what: str
    piece_tokens: int
    """A row counts as whole pieces of so many tokens."""
    elements: int
    """Of each piece."""
    most: int
    """Elements that can be addressed, or blocks of the axis."""
    is_grid: bool = False
    """Whether CUDA refuses what is past it; the kernel computes it wrongly otherwise."""
    by_row: bool = False
    """Whether each row is counted alone, so that their number is not bounded."""

    def rows(self, length_tokens: int) -> int:
        """Return how many rows of a length one call may have."""
        fit = self.most // (-(-length_tokens // self.piece_tokens) * self.elements)
        return _ANY_ROWS if self.by_row and fit else fit

    @property
    def longest_tokens(self) -> int:
        """The longest row that a call may have."""
        return self.most // self.elements * self.piece_tokens


@dataclass(frozen=True)
class LaunchLimits:
    """The bounds of all kernels that a model's forward calls; none where it calls none."""

    bounds: tuple[Bound, ...] = ()

    def rows(self, length_tokens: int) -> int | None:
        """Return how many rows of a length one forward may have; null where nothing bounds it."""
        return min((bound.rows(length_tokens) for bound in self.bounds), default=None)

    def obstacle(self, rows: int, length_tokens: int) -> str:
        """Say why one forward of so many rows of a length would be wrong or refused; empty if neither."""
        most = self.rows(length_tokens)
        if most is None or rows <= most:
            return ""
        tightest = min(self.bounds, key=lambda bound: bound.rows(length_tokens))
        if most == 0:
            fits = f"the longest row has {min(b.longest_tokens for b in self.bounds):,} tokens"
        else:
            fits = f"at most {most:,} rows of this length fit"
        past = (
            "the blocks of a CUDA grid's axis, and would be refused"
            if tightest.is_grid
            else "what the CUDA kernels count in 32 bits, and would be computed wrongly"
        )
        return f"{rows:,} x {length_tokens:,} tokens at once are past {past} ({tightest.what}): {fits}"

    def parts(self, rows: int, length_tokens: int, *, name: str) -> list[slice]:
        """Divide the rows of a batch among as few forwards as the bounds allow.

        Args:
            rows: how many; of none there are no parts.
            length_tokens: of each.
            name: of the model, for the error.

        Raises:
            UsageError: a single row is too long.
        """
        most = self.rows(length_tokens)
        if most == 0:
            raise UsageError(
                f"{name}: {self.obstacle(1, length_tokens)}",
                hint="`--engine shared` takes a long text in pieces; a shorter `--max-length` does, too.",
            )
        step = max(1, rows if most is None else min(rows, most))
        return [slice(first, min(rows, first + step)) for first in range(0, rows, step)]


_CONVOLUTION_GRID = Bound(
    "causal_conv1d_fwd.cu: its grid", CONVOLVED_TOKENS, 1, GRID_BLOCKS, is_grid=True, by_row=True
)


def limits_of(module: Any, device: torch.device) -> LaunchLimits:
    """Return what bounds a forward of a model as shipped.

    Args:
        module: mamba_ssm's `MambaLMHeadModel`, or transformers' model of any architecture.
        device: where it runs; only CUDA has these kernels.
    """
    kernels = ("mamba_ssm", "causal_conv1d")
    if device.type != "cuda" or all(importlib.util.find_spec(name) is None for name in kernels):
        return LaunchLimits()
    found = [bound for part in module.modules() for bound in _bounds(part)]
    if found and getattr(getattr(module, "config", None), "fused_add_norm", False):
        width = int(module.backbone.embedding.weight.shape[1])
        found.append(Bound("layer_norm.py: the residual stream", 1, width, INT32_ELEMENTS))
    return LaunchLimits(tuple(dict.fromkeys(found)))


def _bounds(part: Any) -> Iterator[Bound]:
    """Yield the bounds of one layer of either library; none of what is no mixer over these kernels."""
    if not hasattr(part, "in_proj"):
        return
    columns = int(part.in_proj.weight.shape[0])
    # Zamba's has a head of its own for each part of its channels.
    if hasattr(part, "A_log") and (hasattr(part, "x_proj") or hasattr(part, "x_proj_weight")):
        yield from _mamba1(part, columns)
    elif hasattr(part, "A_log") and hasattr(part, "chunk_size"):
        yield from _mamba2(part, columns)
    elif hasattr(part, "rotary_emb_dim"):
        # mamba_ssm's attention; transformers' has no joint projection, and kernels of its own.
        yield Bound("attention: its projection", 1, columns, INT32_ELEMENTS)
        if getattr(part, "d_conv", 0):
            yield _CONVOLUTION_GRID


def _mamba1(mixer: Any, columns: int) -> Iterator[Bound]:
    # A head's scan is a call of its own.
    channels, n_states = (int(size) for size in mixer.A_log.shape[-2:])
    by_token = hasattr(mixer, "ssm_state_size") and hasattr(mixer, "x_proj")
    # It covers the strides of the scan, which are of as many columns or fewer.
    convolved = columns if by_token else columns // 2
    yield Bound("causal_conv1d_fwd.cu: its input", 1, convolved, UINT32_ELEMENTS)
    if by_token:
        yield _CONVOLUTION_GRID
    yield Bound(
        "selective_scan_fwd_kernel.cuh: states", SCAN_CHUNK_TOKENS, channels * n_states, INT32_ELEMENTS
    )


def _mamba2(mixer: Any, columns: int) -> Iterator[Bound]:
    heads, chunk = int(mixer.A_log.shape[0]), int(mixer.chunk_size)
    n_states, groups, width = (
        int(getattr(mixer, name) if hasattr(mixer, name) else getattr(mixer, other))
        for name, other in (("d_state", "ssm_state_size"), ("ngroups", "n_groups"), ("headdim", "head_dim"))
    )
    yield Bound("ssd_chunk_state.py: in_proj's output", 1, columns, INT32_ELEMENTS)
    yield Bound("ssd_chunk_state.py: states", chunk, heads * width * n_states, INT32_ELEMENTS)
    yield Bound("ssd_bmm.py: scores", chunk, groups * chunk * chunk, INT32_ELEMENTS)
    yield Bound("ssd_chunk_state.py: step sizes", chunk, heads * chunk, INT32_ELEMENTS)
    yield Bound("ssd_chunk_state.py: its grid", chunk, 1, GRID_BLOCKS, is_grid=True)
    yield Bound("ssd_bmm.py: its grid", chunk, groups, GRID_BLOCKS, is_grid=True, by_row=True)
    yield _CONVOLUTION_GRID
