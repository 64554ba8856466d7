"""A process that times forwards of a backbone, without logits; asked by `performance.forward`.

The matrix products alone are those of the model's own linear layers, on inputs of the right shapes.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

from performance.children import serve


def load(request: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Load a checkpoint and return what can be timed.

    Args:
        request: "model", its directory; "rows" and "tokens" of the batch; "what" to time.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from mambabench.models.load import check
    from mambabench.models.load import load as load_model
    from mambabench.registry import resolve

    rows, tokens = request["rows"], request["tokens"]
    loaded: Any = load_model(check(resolve(request["model"]), dtype="float32", device="cpu"))
    steps, module = loaded.stateful, loaded.module
    ids = torch.randint(0, loaded.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def shipped(causal: Any) -> Callable[[], object]:
        def forward() -> object:
            with torch.inference_mode():
                return causal.base_model(input_ids=ids, use_cache=False)

        return forward

    layers = [m for m in module.base_model.modules() if isinstance(m, torch.nn.Linear)]
    inputs = {n: torch.randn(rows * tokens, n) for n in {layer.in_features for layer in layers}}

    def products() -> None:
        with torch.inference_mode():
            for layer in layers:
                torch.nn.functional.linear(inputs[layer.in_features], layer.weight)

    found: dict[str, Callable[[], object]] = {
        "ours": lambda: steps.step(ids.reshape(-1), [tokens] * rows),
        "transformers": shipped(module),
        "products": products,
    }
    if "mambapy" in request["what"] and not why_no_mambapy(module.config):
        with_scan: Any = AutoModelForCausalLM.from_pretrained(request["model"], use_mambapy=True)
        found["mambapy"] = shipped(with_scan)
    return found


def why_no_mambapy(config: Any) -> str:
    """Return why transformers cannot take the scan of the package mambapy; "" when it can."""
    if not hasattr(config, "use_mambapy"):
        return "none for this model"
    return "not installed" if importlib.util.find_spec("mambapy") is None else ""


def _config(model: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model)


def main() -> None:
    warnings.simplefilter("ignore")
    known: dict[str, Callable[[], object]] = {}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "load":
            known.update(load(request))
            return {"what": sorted(known), "why_no_mambapy": why_no_mambapy(_config(request["model"]))}
        began_s = time.perf_counter()
        known[request["do"]]()
        return {"wall_s": time.perf_counter() - began_s}

    serve(handle)


if __name__ == "__main__":
    main()
