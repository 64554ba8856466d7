"""A real Transformer against itself: in bfloat16, and with noise of three sizes added to one layer.

    python tests/performance/real_comparison.py --model SmolLM2-135M-Instruct.Q4_1.gguf --data DATA --work DIR

Where nothing is wrong a comparison must not raise an alarm, and where something is it must say how much: the
checkpoint in 32 bits is the baseline, its forward in bfloat16 the intact candidate, and copies of which one
matrix got normal noise of 0.4, 1.6 and 6.4 times its own standard deviation are the damaged ones. HellaSwag,
PIQA and ARC-Easy, the first 200 items each. The commands are those that a user would type; they print the
comparison, and below it stands what each side lost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NOISES = (0.4, 1.6, 6.4)
LAYER = "model.layers.12.mlp.down_proj.weight"
TASKS = ("hellaswag", "piqa", "arc_easy")
LIMIT = 200


def main() -> None:
    """Make the checkpoints, evaluate them, compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--data", type=Path, required=True, help="as --data-dir takes it")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of checkpoints (540 MB each) and runs"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    make_checkpoints(args.model, args.work)
    common = ["--data-dir", str(args.data), "--out", str(args.work / "results"), "--limit", str(LIMIT)]
    common += [part for task in TASKS for part in ("--task", task)]
    sides = []
    for label, folder, dtype in [
        ("base", "intact", "float32"),
        ("bf16", "intact", "bfloat16"),
        *((f"noise-{noise:g}", f"noise-{noise:g}", "float32") for noise in NOISES),
    ]:
        run = evaluated([*common, "--model", str(args.work / folder), "--dtype", dtype])
        sides.append(f"{label}={run}")
    print(mambabench("compare", *sides), flush=True)
    compared = json.loads(mambabench("compare", *sides, "--json"))
    print_order(compared)


def make_checkpoints(gguf: Path, work: Path) -> None:
    """Write the intact checkpoint and the damaged ones, each unless it is there."""
    names = ["intact", *(f"noise-{noise:g}" for noise in NOISES)]
    if all((work / name / "config.json").is_file() for name in names):
        return
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # What was read is no longer quantized, but the model would not be saved as one that is.
    model.hf_quantizer = None
    del model.config.quantization_config
    weight = model.get_parameter(LAYER).data
    intact = weight.clone()
    draws = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    for name, noise in zip(names, (0.0, *NOISES), strict=True):
        weight.copy_(intact + noise * intact.std() * draws)
        model.save_pretrained(work / name)
        tokenizer.save_pretrained(work / name)


def evaluated(options: list[str]) -> str:
    """Run `mambabench zeroshot` and return the run's directory."""
    return str(json.loads(mambabench("zeroshot", *options, "--json"))["run"])


def mambabench(*arguments: str) -> str:
    """Run a command of the package and return its stdout."""
    print("$ mambabench", *arguments, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "mambabench", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def print_order(comparison: dict[str, Any]) -> None:
    """Print what each side lost of the right answers' log-likelihood and of accuracy on average."""
    for overall in comparison["overall"]:
        mine = [
            c
            for c in comparison["contrasts"]
            if c["candidate"] == overall["candidate"] and c["measure"] == "log-likelihood"
        ]
        nats = sum(c["difference"] for c in mine) / len(mine)
        verdicts = ", ".join(f"{c['task']} {c['verdict']}" for c in mine)
        print(
            f"{overall['candidate']}: {overall['difference']:+.2f} points on average ({overall['verdict']}); "
            f"log-likelihood {nats:+.4f} nats ({verdicts})"
        )


if __name__ == "__main__":
    main()
