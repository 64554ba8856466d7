"""Decoding token by token on the CPU: our step against transformers' `generate`, and against memory's speed.

    python tests/performance/decode.py [--model mamba-130m ...] [--repeats 5]

Random weights; a greedy step of ours is `step`, `logits` and `argmax` on a state that is given up. A step
cannot be faster than its weights come from memory and its states come and go: the ceiling is those bytes
over the bandwidth of a copy, read and written bytes counted, of buffers larger than the weights. Bandwidth,
ours and transformers are timed in turns. Idle threads sleep on both sides: on a busy machine transformers'
would otherwise spin away most of their time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from performance import tables
from performance.children import Child, our_environment

MODELS = ("mamba-130m", "mamba2-130m", "pythia-160m")
DTYPES = ("float32", "bfloat16")
BATCHES = (1, 8)
HEADER = (
    "decode", "weights", "batch", "mambabench", "transformers", "transformers / ours",
    "copy", "share of the ceiling", "load",
)  # fmt: skip


def measure(model: str, dtype: str, *, repeats: int) -> list[list[str]]:
    """Return a model's lines of the table, one a batch size."""
    command = [sys.executable, str(Path(__file__).with_name("decode_child.py"))]
    lines = []
    with Child(command, our_environment()) as a, Child(command, our_environment()) as b:
        for child, side in ((a, "ours"), (b, "theirs")):
            child.send(do="load", model=model, dtype=dtype, side=side)
        told, _ = (child.hear() for child in (a, b))
        for rows in BATCHES:
            turns: list[dict[str, float]] = []
            for child in (a, b):
                child.ask(do="decode", rows=rows)
            for _ in range(repeats):
                copied = a.ask(do="copy")["bytes_per_s"]
                ours, theirs = (child.ask(do="decode", rows=rows)["token_s"] for child in (a, b))
                turns.append({"copy": copied, "ours": ours, "theirs": theirs})
            lines.append(_line(model, dtype, rows, told, turns))
    return lines


def _line(
    model: str, dtype: str, rows: int, told: dict[str, Any], turns: list[dict[str, float]]
) -> list[str]:
    moved = told["weight_bytes"] + 2 * rows * told["state_bytes"]
    shares = [moved / turn["copy"] / turn["ours"] for turn in turns]
    ours, theirs, copied = ([turn[name] for turn in turns] for name in ("ours", "theirs", "copy"))
    low, high = (f"{edge(copied) / 1e9:.0f}" for edge in (min, max))
    return [
        model,
        dtype,
        str(rows),
        f"{1e3 * median(ours):.1f} ms",
        f"{1e3 * median(theirs):.1f} ms",
        tables.ratio(theirs, ours),
        f"{low}–{high} GB/s",
        f"{median(shares):.0%} ({min(shares):.0%}–{max(shares):.0%})",
        f"{os.getloadavg()[0]:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--dtype", nargs="+", default=DTYPES)
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: %(default)s)")
    chosen = parser.parse_args()
    print(tables.machine() + "\n")
    lines = [
        line
        for model in chosen.model
        for dtype in chosen.dtype
        for line in measure(model, dtype, repeats=chosen.repeats)
    ]
    print(tables.markdown(HEADER, lines))


if __name__ == "__main__":
    main()
