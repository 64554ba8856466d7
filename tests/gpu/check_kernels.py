"""The compiled kernels of mamba_ssm and causal_conv1d, and its model, against float64 and against the CPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from make_checkpoint import write_small

if TYPE_CHECKING:
    from checks import Figures

# The scan is compiled with fast exponentials, so that its error is above float32's own.
SCAN_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-3


def kernels(figures: Figures, options: argparse.Namespace) -> None:
    """Compare the compiled scan and convolution with float64."""
    import causal_conv1d
    import mamba_ssm
    import torch
    import torch.nn.functional as F
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    from mambabench.kernels.reference import selective_scan_reference

    figures.add(mamba_ssm=mamba_ssm.__version__, causal_conv1d=causal_conv1d.__version__)
    torch.manual_seed(0)
    batch, length, channels, states = 2, 300, 64, 16
    u, delta, z = (torch.randn(batch, length, channels) for _ in range(3))
    A, D = -torch.rand(channels, states) - 0.1, torch.randn(channels)
    B, C = torch.randn(batch, length, states), torch.randn(batch, length, states)
    y, state = selective_scan_reference(
        *(t.numpy() for t in (u, delta, A, B, C, D)), z=z.numpy(), delta_softplus=True
    )
    swapped = {
        name: t.mT.contiguous().cuda() for name, t in {"u": u, "d": delta, "B": B, "C": C, "z": z}.items()
    }
    got, last = selective_scan_fn(
        swapped["u"], swapped["d"], A.cuda(), swapped["B"], swapped["C"], D.cuda(), z=swapped["z"],
        delta_softplus=True, return_last_state=True,
    )  # fmt: skip
    scan_error = _relative_error(got.mT, torch.from_numpy(y))
    state_error = _relative_error(last, torch.from_numpy(state))
    figures.add(scan_relative_error=scan_error, state_relative_error=state_error)

    weight, bias = torch.randn(channels, 4), torch.randn(channels)
    x = u.mT.contiguous()
    exact = F.silu(
        F.conv1d(x.double(), weight.double()[:, None], bias.double(), padding=3, groups=channels)[
            ..., :length
        ]
    )
    convolved = causal_conv1d_fn(x.cuda(), weight.cuda(), bias.cuda(), activation="silu")
    conv_error = _relative_error(convolved, exact)
    figures.add(conv_relative_error=conv_error)
    if max(scan_error, state_error, conv_error) > SCAN_TOLERANCE:
        sys.exit(f"a kernel is off by more than {SCAN_TOLERANCE}")


def _relative_error(got: Any, exact: Any) -> float:
    """Return the largest error over the largest exact value."""
    return float((got.detach().double().cpu() - exact).abs().max() / exact.abs().max())


def official(figures: Figures, options: argparse.Namespace) -> None:
    """Load a mamba_ssm checkpoint into the official model, directly and through mambabench."""
    import torch
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    directory = write_small(options.work / "checkpoint")
    torch.manual_seed(1)
    ids = torch.randint(1, 300, (2, 200))
    on_cpu = load(directory, "cpu")
    expected = on_cpu.logits(ids, keep=200)
    figures.add(cpu_implementation=on_cpu.record.implementation, cpu_kernels=on_cpu.record.kernel_path)
    shipped = MambaLMHeadModel.from_pretrained(str(directory), device="cuda", dtype=torch.float32).eval()
    with torch.inference_mode():
        direct = shipped(ids.cuda()).logits[..., : expected.shape[-1]]
    direct_error = float((direct.cpu() - expected).abs().max())
    figures.add(direct_largest_logit_difference=direct_error)
    on_cuda = load(directory, "cuda")
    figures.add(
        implementation=on_cuda.record.implementation,
        kernels=on_cuda.record.kernel_path,
        dtypes=on_cuda.record.dtypes,
    )
    ours_error = float((on_cuda.logits(ids.cuda(), keep=200).cpu() - expected).abs().max())
    figures.add(largest_logit_difference=ours_error)
    if not max(direct_error, ours_error) <= LOGIT_TOLERANCE:
        sys.exit(f"logits differ by more than {LOGIT_TOLERANCE}")
    if "MambaLMHeadModel" not in on_cuda.record.implementation:
        sys.exit(f"mambabench did not use the official model: {on_cuda.record.implementation}")


def load(directory: Path, device: str) -> Any:
    """Load a checkpoint through mambabench in float32."""
    from mambabench.models.load import check
    from mambabench.models.load import load as load_plan
    from mambabench.registry import resolve

    return load_plan(check(resolve(str(directory)), dtype="float32", device=device))
