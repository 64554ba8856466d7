"""One operation by itself in place of a model: a selective scan or causal attention over a length.

`op:scan` and `op:attention` can be named wherever a model can, with one generated token: the figure is the
time to first token. Inputs are made beforehand. Gu & Dao 2023 (arXiv:2312.00752, Figure 8, left) compare the
two so, with 1024 channels, a state of 16 and bfloat16.

    >>> OpSpec.parse("op:attention,d=512").heads
    8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mambabench.bench.failures import UnsupportedError
from mambabench.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PREFIX = "op:"
KINDS = ("scan", "attention")
_HEAD_CHANNELS = 64


@dataclass(frozen=True)
class OpSpec:
    """An operation and its sizes."""

    text: str
    """As typed."""
    kind: str
    """Of `KINDS`."""
    d: int = 1024
    """Channels."""
    n: int = 16
    """States of a channel, for a scan."""

    @property
    def heads(self) -> int:
        """Attention heads of 64 channels."""
        return self.d // _HEAD_CHANNELS

    @classmethod
    def parse(cls, text: str) -> OpSpec:
        """Read a name such as `op:scan` or `op:scan,d=2048,n=16`.

        Raises:
            UsageError: no such operation or size.
        """
        kind, *sizes = text.removeprefix(PREFIX).split(",")
        given: dict[str, int] = {}
        for part in sizes:
            name, _, number = part.partition("=")
            if name not in ("d", "n") or not number.isdigit() or int(number) < 1:
                raise UsageError(f"'{part}' in '{text}' is no size", hint="Write op:scan,d=1024,n=16.")
            given[name] = int(number)
        if kind not in KINDS:
            raise UsageError(f"no operation '{kind}'", hint="There are op:scan and op:attention.")
        spec = cls(text, kind, **given)
        if kind == "attention" and spec.d % _HEAD_CHANNELS:
            raise UsageError(f"'{text}' has no whole number of heads", hint="Give d as a multiple of 64.")
        return spec


class OpDecoder:
    """An operation as a `mambabench.bench.decoders.Decoder` that generates one token without a meaning.

    Args:
        spec: which operation.
        device: where it runs.
        dtype: of its inputs; a scan on a CPU always computes in float32.
    """

    implementation = "mambabench OpDecoder"
    weights_bytes = 0
    vocab_size = 2
    state_tokens = 0

    def __init__(self, spec: OpSpec, *, device: str, dtype: str) -> None:
        import torch

        self.device = torch.device(device)
        self.logits = torch.zeros(1, self.vocab_size)
        self._spec = spec
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._work: Callable[[], object] = _nothing
        self.kernel_path = self._path()

    def prepare(self, *, batch_size: int, prompt_len_tokens: int, gen_len_tokens: int) -> None:
        """Make the inputs.

        Raises:
            UnsupportedError: more than one token is to be generated.
        """
        if gen_len_tokens != 1:
            raise UnsupportedError("an operation generates nothing", hint="Use --gen-len 1.")
        if self._spec.kind == "attention":
            self._work = self._attention(batch_size, prompt_len_tokens)
        elif self.device.type == "cuda":
            self._work = self._cuda_scan(batch_size, prompt_len_tokens)
        else:
            self._work = self._cpu_scan(batch_size, prompt_len_tokens)

    def prefill(self, prompts: Tensor) -> Tensor:
        """Run the operation over the prompts' length."""
        import torch

        with torch.inference_mode():
            self._work()
        return prompts[:, 0]

    def step(self, ids: Tensor) -> Tensor:
        """Return the ids: there is nothing to decode."""
        return ids

    def keep(self) -> None:
        """Do nothing: there is no state."""

    def rewind(self) -> Tensor:
        """Return ids of a batch of one."""
        import torch

        return torch.zeros(1, dtype=torch.int64, device=self.device)

    def state_bytes(self) -> int:
        """Return 0."""
        return 0

    def _path(self) -> str:
        if self._spec.kind == "attention":
            return "torch sdpa"
        return "mamba_ssm CUDA" if self.device.type == "cuda" else "mambabench compiled scan, float32"

    def _random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        import torch

        return torch.randn(*shape, device=self.device).to(dtype or self._dtype)

    def _attention(self, rows: int, length: int) -> Callable[[], object]:
        import torch

        heads = self._spec.heads
        q, k, v = (self._random(rows, heads, length, _HEAD_CHANNELS) for _ in range(3))
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def _cuda_scan(self, rows: int, length: int) -> Callable[[], object]:
        import importlib

        import torch

        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        d, n = self._spec.d, self._spec.n
        u, delta, z = (self._random(rows, d, length) for _ in range(3))
        b, c = (self._random(rows, 1, n, length) for _ in range(2))
        a = -torch.rand(d, n, device=self.device) - 0.5
        skip, bias = torch.ones(d, device=self.device), torch.zeros(d, device=self.device)
        scan: Any = interface.selective_scan_fn
        return lambda: scan(u, delta, a, b, c, skip, z=z, delta_bias=bias, delta_softplus=True)

    def _cpu_scan(self, rows: int, length: int) -> Callable[[], object]:
        import torch

        from mambabench.kernels.packed import kernels_for
        from mambabench.models.layers import row_starts

        d, n = self._spec.d, self._spec.n
        kernels, starts = kernels_for(self.device), row_starts([length] * rows)
        tokens, wide = rows * length, torch.float32
        u, delta, z = (self._random(tokens, d, dtype=wide) for _ in range(3))
        proj = self._random(tokens, 2 * n, dtype=wide)
        a = -torch.rand(n, d) - 0.5
        skip, bias = torch.ones(d), torch.zeros(d)
        return lambda: kernels.scan(u, delta, bias, a, proj, 0, skip, z, 0, starts, None, None)


def _nothing() -> None:
    """Stand for an operation before its inputs are made."""
