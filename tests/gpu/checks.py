"""What `drive.py` finds out with torch, one step a call; figures go to a JSON file as soon as they are known.

python tests/gpu/checks.py official --found figures.json --work DIR
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The scan is compiled with fast exponentials, so that its error is above float32's own.
SCAN_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-3
DEVICES = ("cpu", "cuda")
DECODE_SHORT_TOKENS, DECODE_LONG_TOKENS, DECODE_REPEATS = 65, 193, 10


class Figures:
    """What was found so far; rewritten on every addition, so that a timeout loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        """Add figures and write all of them."""
        self._values |= values
        self._path.write_text(json.dumps(self._values, indent=1))
        print(json.dumps(values), flush=True)


def environment(figures: Figures, options: argparse.Namespace) -> None:
    """Describe the machine, and say in words what would break the build."""
    import torch

    figures.add(
        python=sys.version.split()[0],
        platform=platform.platform(),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        cores=len(os.sched_getaffinity(0)),
    )
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    card = torch.cuda.get_device_properties(0)
    figures.add(
        card=card.name,
        capability=f"{card.major}.{card.minor}",
        memory_bytes=card.total_memory,
        driver=_driver(),
    )
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME) / "bin" / "nvcc" if CUDA_HOME else None
    if nvcc is None or not nvcc.is_file():
        sys.exit("torch finds no nvcc: install the CUDA toolkit or set CUDA_HOME")
    words = subprocess.run([nvcc, "-V"], capture_output=True, text=True, check=True).stdout.split()
    release = words[words.index("release") + 1].rstrip(",")
    figures.add(nvcc=str(nvcc), nvcc_release=release)
    if release.split(".")[0] != str(torch.version.cuda).split(".")[0]:
        sys.exit(f"nvcc is of CUDA {release}, torch of CUDA {torch.version.cuda}: majors must agree")


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return result.stdout.strip() or "unknown"


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


def write_checkpoint(directory: Path) -> Path:
    """Write a random Mamba-1 as state-spaces publish theirs, with a small tokenizer beside it."""
    import torch
    from builders import N_TOKENS, build_tokenizer, mamba_config, mamba_ssm_config
    from transformers import MambaForCausalLM

    if (directory / "config.json").exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    # The published initialisation: with wider weights rounding alone would move log-probabilities.
    shape = {"hidden_size": 256, "state_size": 16, "num_hidden_layers": 4, "initializer_range": 0.02}
    model = MambaForCausalLM(mamba_config(**shape))
    state = {
        name.replace("backbone.embeddings.", "backbone.embedding."): tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, directory / "pytorch_model.bin")
    build_tokenizer(directory, N_TOKENS)
    config = mamba_ssm_config(d_model=256, n_layer=4, ssm_cfg={"d_state": 16})
    # Last: a directory with a config.json is complete.
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def official(figures: Figures, options: argparse.Namespace) -> None:
    """Load a mamba_ssm checkpoint into the official model, directly and through mambabench."""
    import torch
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    directory = write_checkpoint(options.work / "checkpoint")
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


def parity(figures: Figures, options: argparse.Namespace) -> None:
    """Run the smoke suite on both devices and compare every sample."""
    checkpoint = write_checkpoint(options.work / "checkpoint")
    _compare_devices(figures, options, ["mamba-tiny", str(checkpoint)], ["--suite", "smoke"])


def parity_data(figures: Figures, options: argparse.Namespace) -> None:
    """Run real tasks on both devices and compare every sample."""
    data = options.data / "eval" if (options.data / "eval").is_dir() else options.data
    tasks = {
        "hellaswag": "Rowan/hellaswag",
        "piqa": "baber/piqa",
        "arc_easy": "allenai/ai2_arc",
        "lambada_openai": "EleutherAI/lambada_openai",
    }
    here = [task for task, folder in tasks.items() if (data / folder).is_dir()]
    if not here:
        sys.exit(f"{data} holds none of {', '.join(tasks.values())}")
    arguments = [word for task in here for word in ("--task", task)]
    checkpoint = write_checkpoint(options.work / "checkpoint")
    _compare_devices(figures, options, ["mamba-tiny", str(checkpoint)], [*arguments, "--data-dir", str(data)])


def _compare_devices(
    figures: Figures, options: argparse.Namespace, models: list[str], arguments: list[str]
) -> None:
    from compare_samples import compare

    from mambabench.store import StoredRun

    runs = {}
    for device in DEVICES:
        command = [sys.executable, "-m", "mambabench", "zeroshot", "--json", "--dtype", "float32"]
        command += ["--device", device, "--limit", str(options.limit), *arguments]
        command += ["--out", str(options.work / f"results-{device}")]
        command += [word for model in models for word in ("--model", model)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            sys.exit(f"zeroshot on {device} ended with exit code {result.returncode}")
        runs[device] = StoredRun(Path(json.loads(result.stdout)["run"]))
    reference, tested = DEVICES
    cells = {
        device: {(cell.model, cell.task.task): cell for cell in run.cells()} for device, run in runs.items()
    }
    agree = cells[reference].keys() == cells[tested].keys() and bool(cells[reference])
    for key in sorted(cells[reference].keys() & cells[tested].keys()):
        pair = [runs[device].read_samples(cells[device][key].fingerprint) for device in (tested, reference)]
        found = compare(*pair)
        agree = agree and found.agrees
        walls = {f"{device}_wall_s": round(cells[device][key].wall_s, 3) for device in cells}
        figures.add(**{" on ".join(key): {**found.as_dict(), **walls}})
    kernel_paths = {name: record.kernel_path for name, record in runs[tested].checkpoints().items()}
    figures.add(agree=agree, cuda_kernels=kernel_paths)
    if not agree:
        sys.exit("the devices differ")


def decode(figures: Figures, options: argparse.Namespace) -> None:
    """Time greedy decoding of the official model with random weights, step by step and by CUDA graph.

    Two lengths are generated and subtracted, so that the prompt's forward drops out.
    """
    import torch
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    torch.manual_seed(0)
    config = MambaConfig(d_model=768, n_layer=24, vocab_size=50277)
    model = MambaLMHeadModel(config, device="cuda", dtype=torch.bfloat16).eval()
    prompt = torch.randint(1, 50277, (1, 512), device="cuda")
    figures.add(model="mamba-130m sizes, random weights", dtype="bfloat16", batch=1, prompt_tokens=512)
    figures.add(n_parameters=sum(p.numel() for p in model.parameters()))
    for arm, graph in (("eager", False), ("graph", True)):

        def generate(n_tokens: int, graph: bool = graph) -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            model.generate(prompt, max_length=prompt.shape[1] + n_tokens, cg=graph, eos_token_id=None)
            end.record()
            torch.cuda.synchronize()
            return float(begin.elapsed_time(end)) / 1e3

        # A graph captured for another arm or length would be timed instead.
        model._decoding_cache = None
        generate(DECODE_LONG_TOKENS)
        generate(DECODE_SHORT_TOKENS)
        per_token_s = [
            (generate(DECODE_LONG_TOKENS) - generate(DECODE_SHORT_TOKENS))
            / (DECODE_LONG_TOKENS - DECODE_SHORT_TOKENS)
            for _ in range(DECODE_REPEATS)
        ]
        median_s = sorted(per_token_s)[len(per_token_s) // 2]
        figures.add(**{f"{arm}_tpot_s": per_token_s, f"{arm}_decode_tokens_per_s": 1 / median_s})
    figures.add(peak_vram_bytes=torch.cuda.max_memory_allocated())


CHECKS: dict[str, Callable[[Figures, argparse.Namespace], None]] = {
    "environment": environment,
    "kernels": kernels,
    "official": official,
    "parity": parity,
    "parity_data": parity_data,
    "decode": decode,
}


@contextlib.contextmanager
def _errors_last() -> Iterator[None]:
    """Print an exception's own words as the last line, where `drive.py` looks."""
    try:
        yield
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def main() -> None:
    """Do one check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=list(CHECKS))
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path())
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=50)
    options = parser.parse_args()
    with _errors_last():
        CHECKS[options.check](Figures(options.found), options)


if __name__ == "__main__":
    main()
