"""Make three checkpoints of each bundled model to compare: as it is, tuned well, tuned at too high a rate.

    python tools/finetune_tiny.py --out build/finetuned
    cd build/finetuned/pythia-tiny
    mambabench compare base ft-lr1e-3 ft-lr5e-2 --suite smoke

Both tuned ones go on from the bundled weights over the same fresh documents of the made-up world, step for
step, in longer windows than those they were trained in, which also hold stories that were too long for them;
they differ in nothing but the learning rate. Documents with a held-out key are left out here as well.

`pythia-tiny` has room to gain: it was trained on 256 tokens and guesses in the recall over 512. `mamba-tiny`
is at 100% in four of the suite's six accuracies, and minutes of training do not teach it the last words that
it lacks (common nouns): what it gains shows in its perplexity.

Along the way each leaves `checkpoint-<step>` folders with a `trainer_state.json`, as trainers do, for curves
over steps. From one seed everything is made again with the same bits, on the same machine with the same
number of threads; after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from train_tiny import descend, make_optimizer, pack_windows, save, trainable
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mambabench.assets import bundled_dir
from mambabench.tasks.smoke.texts import is_held_out, story, training_documents

BASE = "base"
RATES = {
    "mamba-tiny": {"ft-lr2e-3": 2e-3, "ft-lr5e-2": 5e-2},
    "pythia-tiny": {"ft-lr1e-3": 1e-3, "ft-lr5e-2": 5e-2},
}
"""Highest learning rates by folder. The bundled models were trained at 3e-3 and 2e-3."""
DEFAULT_STEPS = 700
ROWS = 4
WINDOW_TOKENS = 640
LONGEST_TOKENS = 1024
"""Positions of a model with positions, after tuning."""
LONG_SHARE = 0.1
"""Of the documents."""
LONG_EVENTS = (17, 60)
"""Sentences of a long story; the usual ones have up to 16."""
DEFAULT_KEPT = 6
WARMUP_SHARE = 0.05
DECAY_SHARE = 0.5
DEFAULT_SEED = 100
"""Not the bundled model's, so that it sees documents that are new to it."""
_STATE = "training.pt"
_FINISHED = "trainer_state.json"


def main() -> None:
    """Parse the command line and make what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/finetuned"), help="folder of the checkpoints")
    parser.add_argument("--model", choices=list(RATES), action="append", help="only this one")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument(
        "--keep-steps", help="steps to keep, with commas; by default six at equal distances", metavar="STEPS"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    try:
        kept = steps_to_keep(args.keep_steps, args.steps)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)

    start_s = time.monotonic()
    for model in args.model or RATES:
        bundled = bundled_dir() / model
        shutil.copytree(bundled, args.out / model / BASE, dirs_exist_ok=True)
        windows = pack_windows(
            PreTrainedTokenizerFast.from_pretrained(bundled),
            args.seed,
            count=args.steps * ROWS,
            documents=documents(args.seed),
            window_tokens=WINDOW_TOKENS,
        )
        for name, peak in RATES[model].items():
            finetune(bundled, args.out / model / name, peak, windows, kept, seed=args.seed)
    print(f"{args.out}: made in {(time.monotonic() - start_s) / 60:.1f} min", flush=True)


def steps_to_keep(text: str | None, steps: int) -> tuple[int, ...]:
    """Return the steps of which checkpoints are kept, ascending.

    Args:
        text: numbers with commas; None for `DEFAULT_KEPT` at equal distances, the last one included.
        steps: of the training.

    Raises:
        ValueError: no steps, or numbers that are not among them.
    """
    if steps < 1:
        raise ValueError(f"at least one step is needed, not {steps}")
    if text is None:
        return tuple(sorted({round(steps * i / DEFAULT_KEPT) for i in range(1, DEFAULT_KEPT + 1)} - {0}))
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= steps for part in parts):
        raise ValueError(f"--keep-steps takes numbers from 1 to {steps} with commas, not '{text}'")
    return tuple(sorted({int(part) for part in parts}))


def documents(seed: int) -> Iterator[str]:
    """Yield the usual training texts with some longer stories among them, without end, none held out."""
    rng = random.Random(seed)
    usual = training_documents(seed)
    while True:
        if rng.random() >= LONG_SHARE:
            yield next(usual)
        elif not is_held_out(text := story(rng, rng.randint(*LONG_EVENTS)).text):
            yield text


def finetune(
    bundled: Path,
    folder: Path,
    peak: float,
    windows: npt.NDArray[np.int16],
    kept: Sequence[int],
    *,
    seed: int,
) -> None:
    """Go on training a bundled model, one pass over the windows.

    Args:
        bundled: its folder.
        folder: gets the last weights, and `checkpoint-<step>` folders; left alone when it is finished.
        peak: highest learning rate.
        windows: from `pack_windows`.
        kept: steps to keep.
        seed: that the windows are from.

    Raises:
        SystemExit: the folder holds a training of other settings.
    """
    steps = len(windows) // ROWS
    settings = {"max_steps": steps, "learning_rate": peak, "seed": seed}
    if (folder / _FINISHED).is_file():
        _must_be(settings, json.loads((folder / _FINISHED).read_text("utf-8")), folder)
        print(f"{folder}: is there already", flush=True)
        return
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bundled)
    network = _load(bundled)
    trained = trainable(network)
    name = f"{bundled.name} {folder.name}"
    optimizer = make_optimizer(trained, peak)
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    if (folder / _STATE).is_file():
        state: dict[str, Any] = torch.load(folder / _STATE, weights_only=True)
        _must_be(settings, state, folder)
        trained.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        print(f"{name}: going on from step {first}", flush=True)
    start_s = time.monotonic()
    recent: list[float] = []
    for step, loss in descend(
        trained, optimizer, windows, ROWS, rate=lambda step: schedule(step, steps), first=first
    ):
        recent.append(loss)
        if step % 25 == 0 or step == steps:
            left_s = (time.monotonic() - start_s) / (step - first) * (steps - step)
            mean = sum(recent) / len(recent)
            print(f"{name}: step {step}/{steps} loss {mean:.3f}, {left_s:.0f} s left", flush=True)
            recent.clear()
        if step in kept:
            _take(network, trained)
            _keep(network, tokenizer, folder / f"checkpoint-{step}", step, settings)
            state = {"model": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            state |= settings
            torch.save(state, folder / f"{_STATE}.tmp")
            (folder / f"{_STATE}.tmp").replace(folder / _STATE)
    _take(network, trained)
    _keep(network, tokenizer, folder, steps, settings)
    (folder / _STATE).unlink(missing_ok=True)


def schedule(step: int, steps: int) -> float:
    """Return the share of the highest learning rate: up, flat, and down to a fiftieth."""
    warm = min(1.0, (step + 1) / max(1.0, WARMUP_SHARE * steps))
    return warm * min(1.0, 0.02 + (steps - step) / (DECAY_SHARE * steps))


def _take(network: PreTrainedModel, trained: nn.Module) -> None:
    if trained is not network:
        network.load_state_dict(trained.state_dict())


def _load(bundled: Path) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(bundled)
    if hasattr(network.config, "max_position_embeddings"):
        # Rotary positions are computed, so that there can be more of them.
        network = AutoModelForCausalLM.from_pretrained(bundled, max_position_embeddings=LONGEST_TOKENS)
    return network


Settings = Mapping[str, float]


def _must_be(settings: Settings, found: Mapping[str, Any], folder: Path) -> None:
    if any(found.get(key) != value for key, value in settings.items()):
        raise SystemExit(f"{folder} holds a training of other settings: delete it, or name another --out")


def _keep(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    step: int,
    settings: Settings,
) -> None:
    save(network, tokenizer, folder)
    # Last, so that a folder with it is complete.
    text = json.dumps({"global_step": step, **settings})
    (folder / _FINISHED).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
