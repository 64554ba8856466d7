"""Train the two bundled models, `mamba-tiny` and `pythia-tiny`, and their tokenizer on a CPU.

One command makes everything from the seed, in under an hour on two cores:

    python tools/train_tiny.py

It prints its progress. After an interruption the same command goes on from the last checkpoint in
`--work` (deleted at the end), and ends with the same weights as an undisturbed run on the same machine
with the same number of threads. Both models see the same windows in the same order.
Afterwards `python -m mambabench.tasks.smoke.items` writes the items that test them.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mambabench.assets import bundled_dir
from mambabench.models.mamba import MambaLM, MambaShape
from mambabench.tasks.smoke.texts import training_documents

END = "<|endoftext|>"
END_ID = 0
VOCAB_SIZE = 1024
WINDOW_TOKENS = 256
BATCH_ROWS = {"mamba-tiny": 16, "pythia-tiny": 8}
TOKENIZER_DOCUMENTS = 20_000
CHECKPOINT_STEPS = 250
DEFAULT_WINDOWS = 40_000
PEAK_LEARNING_RATE = {"mamba-tiny": 3e-3, "pythia-tiny": 2e-3}
WARMUP_STEPS = 150
DECAY_SHARE = 0.3
STORED_DTYPE = torch.float32
MAMBA_WINDOW_TOKENS = 1024
"""Longest window that tools score at once; four times what the model was trained on."""


def main() -> None:
    """Parse the command line and train what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=bundled_dir(), help="folder of the bundled models")
    parser.add_argument("--work", type=Path, default=Path("build/train_tiny"), help="folder of checkpoints")
    parser.add_argument(
        "--model", action="append", choices=["mamba-tiny", "pythia-tiny"], help="only this one"
    )
    parser.add_argument("--windows", type=int, default=DEFAULT_WINDOWS, help="windows of 256 tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    args.work.mkdir(parents=True, exist_ok=True)

    tokenizer = train_tokenizer(args.seed)
    start_s = time.monotonic()
    windows = pack_windows(tokenizer, args.seed, count=args.windows)
    print(f"packed {windows.size / 1e6:.1f}M tokens in {time.monotonic() - start_s:.0f} s", flush=True)
    for name in args.model or ["mamba-tiny", "pythia-tiny"]:
        torch.manual_seed(args.seed)
        network = build(name)
        start_s = time.monotonic()
        train(name, network, windows, args.work / f"{name}.pt")
        print(f"{name}: trained in {(time.monotonic() - start_s) / 60:.1f} min", flush=True)
        save(network, tokenizer, args.out / name)
    shutil.rmtree(args.work)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE: all 256 bytes are in the vocabulary, so that any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(training_documents(seed), TOKENIZER_DOCUMENTS), trainer)
    if tokenizer.token_to_id(END) != END_ID or tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise AssertionError("the tokenizer's vocabulary is not what the models expect")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )


def pack_windows(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    count: int,
    *,
    documents: Iterator[str] | None = None,
    window_tokens: int = WINDOW_TOKENS,
) -> npt.NDArray[np.int16]:
    """Fill windows with whole documents, each followed by the end token, and pad with -1.

    Args:
        tokenizer: of the models.
        seed: of the documents, where none are given.
        count: of the windows.
        documents: without end; those that are too long for a window are left out.
        window_tokens: length of a window.

    Returns:
        [count, window_tokens + 1]; every other window begins with the end token, because text is
        scored with it and without it.
    """
    encoded = _encode(tokenizer, documents or training_documents(seed + 1), window_tokens)
    windows = np.full((count, window_tokens + 1), -1, dtype=np.int16)
    pending = list(itertools.islice(encoded, 64))
    for row, window in enumerate(windows):
        used = row % 2
        window[:used] = END_ID
        while True:
            room = window.size - used
            fitting = next((i for i, ids in enumerate(pending) if len(ids) <= room), None)
            if fitting is None:
                break
            ids = pending.pop(fitting)
            window[used : used + len(ids)] = ids
            used += len(ids)
            pending.append(next(encoded))
    return windows


def _encode(
    tokenizer: PreTrainedTokenizerFast, documents: Iterator[str], window_tokens: int
) -> Iterator[list[int]]:
    while True:
        for ids in tokenizer(list(itertools.islice(documents, 2000)))["input_ids"]:
            if len(ids) < window_tokens:
                yield [*ids, END_ID]


def build(name: str) -> PreTrainedModel:
    """Return the untrained model."""
    common: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "bos_token_id": END_ID, "eos_token_id": END_ID}
    if name == "mamba-tiny":
        config = MambaConfig(hidden_size=128, num_hidden_layers=4, pad_token_id=END_ID, **common)
        return MambaForCausalLM(config)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=WINDOW_TOKENS,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            **common,
        )
    )


def train(name: str, network: PreTrainedModel, windows: npt.NDArray[np.int16], checkpoint: Path) -> None:
    """Train in place, one pass over the windows."""
    trained = trainable(network)
    optimizer = make_optimizer(trained, PEAK_LEARNING_RATE[name])
    rows = BATCH_ROWS[name]
    steps = len(windows) // rows
    first = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        trained.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        print(f"{name}: going on from step {first}", flush=True)
    start_s = time.monotonic()
    recent: list[float] = []
    for step, loss in descend(
        trained, optimizer, windows, rows, rate=lambda step: _schedule(step, steps), first=first
    ):
        recent.append(loss)
        if step % 50 == 0:
            speed = (step - first) * rows * WINDOW_TOKENS / (time.monotonic() - start_s)
            mean = sum(recent) / len(recent)
            print(f"{name}: step {step}/{steps} loss {mean:.3f} {speed:,.0f} tokens/s", flush=True)
            recent.clear()
        if step % CHECKPOINT_STEPS == 0:
            state = {"model": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    if trained is not network:
        network.load_state_dict(trained.state_dict())


def trainable(network: PreTrainedModel) -> nn.Module:
    """Return what is trained in a model's place: transformers' Mamba has no fast CPU scan, ours takes and
    gives back the same parameters."""
    trained: nn.Module = network
    if isinstance(network, MambaForCausalLM):
        trained = MambaLM(MambaShape.from_transformers(network.config))
        trained.load_state_dict(network.state_dict())
    return trained.train()


def descend(
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    windows: npt.NDArray[np.int16],
    rows: int,
    *,
    rate: Callable[[int], float],
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train in place, one pass over the windows; yield the steps done and the loss after each.

    Args:
        trained: the model.
        optimizer: from `make_optimizer`.
        windows: from `pack_windows`.
        rows: windows in a step.
        rate: share of the highest learning rate at a step, counted from 0.
        first: step to begin at.
    """
    for step in range(first, len(windows) // rows):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step)
        batch = torch.from_numpy(windows[step * rows : (step + 1) * rows].astype(np.int64))
        loss = _loss(trained, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield step + 1, loss.item()


def _loss(network: nn.Module, batch: Tensor) -> Tensor:
    inputs, targets = batch[:, :-1].clamp(min=END_ID), batch[:, 1:]
    output = network(inputs)
    logits = output[0] if isinstance(output, tuple) else output.logits
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def make_optimizer(network: nn.Module, peak: float) -> torch.optim.Optimizer:
    """Return AdamW with the highest learning rate in each group's "peak"; only matrices decay."""
    named = list(network.named_parameters())
    decays = [p for n, p in named if p.dim() == 2 and "embed" not in n and not n.endswith("A_log")]
    others = [p for n, p in named if not any(p is d for d in decays)]
    groups = [
        {"params": decays, "weight_decay": 0.1, "peak": peak},
        {"params": others, "weight_decay": 0.0, "peak": peak},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)


def _schedule(step: int, steps: int) -> float:
    # Flat until the last part, so that a checkpoint from the flat part serves a run of any length.
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * min(1.0, 0.02 + (steps - step) / (DECAY_SHARE * steps))


def save(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder in transformers' format with the weights rounded to the stored dtype."""
    network.to(dtype=STORED_DTYPE)  # type: ignore[call-arg]
    network.save_pretrained(folder)
    # The configuration of a model without positions names no window, so the tokenizer has to.
    tokenizer.model_max_length = getattr(network.config, "max_position_embeddings", MAMBA_WINDOW_TOKENS)
    tokenizer.save_pretrained(folder)
    # safetensors writes files that only their owner may read.
    for file in folder.iterdir():
        file.chmod(0o644)
    size_bytes = sum(f.stat().st_size for f in folder.iterdir())
    count = sum(p.numel() for p in network.parameters())
    print(f"{folder.name}: {count:,} parameters, {size_bytes:,} bytes in {folder}", flush=True)


if __name__ == "__main__":
    main()
