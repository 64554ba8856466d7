"""A process that decodes with one side's code; asked by `performance.decode`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

from performance.children import serve

PROMPT_TOKENS = 32
_OUR_TOKENS, _THEIR_TOKENS = 24, 16
_COPIED_BYTES = 3 << 28


def ours(model: Any) -> Callable[[int], float]:
    """Return what decodes some tokens for so many rows, and gives the median seconds of a token."""
    import torch

    steps = model.stateful

    def decode(rows: int) -> float:
        ids = _prompts(rows, model.vocab_size)
        step = steps.step(ids.flatten(), [PROMPT_TOKENS] * rows)
        chosen = steps.logits(step.hidden[PROMPT_TOKENS - 1 :: PROMPT_TOKENS]).argmax(-1)
        times = []
        for _ in range(_OUR_TOKENS):
            began_s = time.perf_counter()
            step = steps.step(chosen, [1] * rows, step.state, consume=True)
            chosen = steps.logits(step.hidden).argmax(-1)
            times.append(time.perf_counter() - began_s)
        assert isinstance(chosen, torch.Tensor)
        return median(times)

    return decode


def theirs(model: Any) -> Callable[[int], float]:
    """Return the same by transformers: what each token beyond the first takes."""
    import torch

    def decode(rows: int) -> float:
        ids = _prompts(rows, model.vocab_size)
        took = []
        for n in (1, 1 + _THEIR_TOKENS):
            began_s = time.perf_counter()
            with torch.inference_mode():
                model.module.generate(
                    ids, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0
                )
            took.append(time.perf_counter() - began_s)
        return (took[1] - took[0]) / _THEIR_TOKENS

    return decode


def copied() -> Callable[[], float]:
    """Return what copies a buffer larger than the weights, and gives bytes read and written a second."""
    import torch

    source = torch.ones(_COPIED_BYTES // 4)
    target = source.clone()

    def copy() -> float:
        began_s = time.perf_counter()
        target.copy_(source)
        return 2 * _COPIED_BYTES / (time.perf_counter() - began_s)

    return lambda: max(copy() for _ in range(3))


def _prompts(rows: int, vocab_size: int) -> Any:
    import torch

    return torch.randint(0, vocab_size, (rows, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))


def _state_bytes(steps: Any) -> int:
    size = steps.state_size
    return int(size.fixed_bytes + (PROMPT_TOKENS + _OUR_TOKENS // 2) * size.bytes_per_token)


def main() -> None:
    warnings.simplefilter("ignore")
    known: dict[str, Callable[..., float]] = {}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "load":
            from mambabench.models.load import check, load
            from mambabench.registry import resolve

            plan = check(
                resolve(request["model"]),
                weights="random",
                dtype=request["dtype"],
                device="cpu",
                need_tokenizer=False,
            )
            model: Any = load(plan)
            is_ours = request["side"] == "ours"
            known["decode"] = ours(model) if is_ours else theirs(model)
            if is_ours:
                known["copy"] = copied()
            # A head of its own is read, but then no embedding; a tied one is read as the head.
            tensors = {p.data_ptr(): p for p in model.module.parameters()}
            head, words = (
                m.weight for m in (model.module.get_output_embeddings(), model.module.get_input_embeddings())
            )
            unread = words.data_ptr() if words.data_ptr() != head.data_ptr() else 0
            size = sum(p.numel() * p.element_size() for at, p in tensors.items() if at != unread)
            return {"weight_bytes": size, "state_bytes": _state_bytes(model.stateful)}
        if request["do"] == "copy":
            return {"bytes_per_s": known["copy"]()}
        return {"token_s": known["decode"](request["rows"])}

    serve(handle)


if __name__ == "__main__":
    main()
