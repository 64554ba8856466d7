"""Time and memory of planning a million requests, beside the targets.

    python tests/performance/plan_million.py             1,000,000 sequences of 100 tokens on average
    python tests/performance/plan_million.py --n 10000   fewer of them
    python tests/performance/plan_million.py --mmlu      14,042 questions with 5 examples, 4 choices each

Targets at 1,000,000 sequences, one core: 30 s, 2 GB of memory at the peak of the whole process, input
included. For --mmlu: 10 s. The ids are random, the shapes are those of multiple-choice tasks: few-shot
prefixes of 40 tokens shared by 500 questions, four choices a question, and single texts between them.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np

from mambabench.scoring.trie import Costs, Sequences, plan

MB = 1 << 20


def choices(
    rng: np.random.Generator, subjects: int, questions: int, n_read: int, sizes: tuple[range, range, range]
) -> Sequences:
    """Make sequences of a prefix by subject, a question and one of four choices; every tenth has none."""
    prefix, question, choice = sizes
    prefix_length = rng.integers(prefix.start, prefix.stop, subjects)
    question_length = rng.integers(question.start, question.stop, questions)
    choice_length = rng.integers(choice.start, choice.stop, 4 * questions)
    subject = np.sort(rng.integers(0, subjects, questions))
    lengths = (prefix_length[subject] + question_length).repeat(4) + choice_length
    offsets = np.append(0, np.cumsum(lengths))
    ids = rng.integers(0, 50_277, offsets[-1], dtype=np.int32)
    prefixes = [rng.integers(0, 50_277, n, dtype=np.int32) for n in prefix_length]
    for q in range(questions):
        if q % 10 == 9:
            continue
        start = offsets[4 * q]
        n_prefix, n_shared = prefix_length[subject[q]], prefix_length[subject[q]] + question_length[q]
        ids[start : start + n_prefix] = prefixes[subject[q]]
        for other in offsets[4 * q + 1 : 4 * q + 4]:
            ids[other : other + n_shared] = ids[start : start + n_shared]
    return Sequences(ids, offsets, np.minimum(choice_length, n_read).astype(np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of planning many requests.")
    parser.add_argument("--n", type=int, default=1_000_000, help="sequences, a multiple of 4")
    parser.add_argument("--mmlu", action="store_true", help="the shape of 5-shot MMLU instead")
    parser.add_argument("--padded", action="store_true", help="batches as rectangles, states that grow")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    if given.mmlu:
        shape = (range(450, 750), range(40, 160), range(1, 4))
        sequences = choices(rng, 57, 14_042, 1, shape)
    else:
        questions = max(given.n // 4, 1)
        shape = (range(30, 51), range(30, 51), range(10, 31))
        sequences = choices(rng, max(questions // 500, 1), questions, 30, shape)
    costs = Costs(
        split_tokens=4,
        state_bytes=3 * MB,
        state_bytes_per_token=36_864 if given.padded else 0,
        budget_bytes=512 * MB,
        batch_tokens=4096,
        batch_rows=256,
        padded=given.padded,
    )
    start = time.process_time(), time.perf_counter()
    made = plan(sequences, costs)
    cpu_s, wall_s = time.process_time() - start[0], time.perf_counter() - start[1]
    # Kilobytes, but bytes on macOS.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    target_s = 10 if given.mmlu else 30
    n_tokens, input_gb = len(sequences.ids), sequences.ids.nbytes / 1e9
    print(f"{len(sequences):,} sequences, {n_tokens:,} tokens ({n_tokens / len(sequences):.1f} each)")
    print(f"planning     {wall_s:.2f} s, {cpu_s:.2f} s of CPU (target {target_s} s)")
    print(f"peak memory  {peak_bytes / 1e9:.2f} GB (target 2 GB), input of {input_gb:.2f} GB included")
    print(f"tokens       {made.n_tokens:,}, {made.n_tokens / made.n_tokens_minimum:.3f} of the minimum;")
    print(f"             {made.n_tokens_unshared / made.n_tokens:.2f} times as many without sharing")
    print(f"segments     {made.n_segments:,} in {made.n_batches:,} batches")
    print(f"             of {made.n_tokens / made.n_batches:.0f} tokens (at most {costs.batch_tokens})")
    print(f"live states  {made.peak_state_bytes / MB:.0f} MiB (at most {costs.budget_bytes / MB:.0f} MiB)")


if __name__ == "__main__":
    main()
