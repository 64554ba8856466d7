"""Any model of mamba_ssm as a function of a state, from its state dict: Mamba-1 or Mamba-2 layers, attention
layers, and both with gated MLPs.

mamba_ssm itself needs a CUDA GPU and goes on from a state by one token at a time; transformers has no such
hybrids. One block is norm, mixer and, with `d_intermediate`, norm and MLP, on a residual stream in float32.

    steps = HybridSteps(config, read_state(files), vocab_size=50277, dtype=torch.float32)
    step = steps.step(ids, [7, 3])                      # two rows, 10 ids
    steps.step(more_ids, [1, 300], step.state)          # both go on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mambabench.errors import CheckpointError
from mambabench.kernels.packed import PackedKernels, kernels_for
from mambabench.models.convert import NORM_EPSILON
from mambabench.models.hybrid_shapes import mixer_settings, obstacle, parameter_shapes
from mambabench.models.layers import linear, row_starts
from mambabench.models.official import describe_mismatch
from mambabench.models.packed_attention import PackedAttention
from mambabench.models.record import FP32_NAMES
from mambabench.models.recurrent_state import RecurrentLayers, RecurrentState
from mambabench.models.stateful import LayerState, State, StateSize, Step, check_step
from mambabench.models.static_attention import StaticAttention
from mambabench.models.step_mamba import MambaLayer
from mambabench.models.step_mamba2 import Mamba2Layer
from mambabench.models.step_mha import AnyState, AttentionLayer, GatedMLP, Rotation, rotary


@dataclass(frozen=True)
class _Call:
    """What all layers of one forward share."""

    starts: npt.NDArray[np.int64]
    keep: Sequence[int] | None
    consume: bool
    attention: PackedAttention | StaticAttention | None
    rotation: Rotation | None


@dataclass(frozen=True)
class _Norm:
    """Adds to the residual stream and normalises it."""

    kernels: PackedKernels
    weight: Tensor
    bias: Tensor | None
    rms: bool

    def __call__(self, residual: Tensor, x: Tensor | None) -> Tensor:
        if self.rms:
            return self.kernels.add_norm(residual, x, self.weight, NORM_EPSILON)
        if x is not None:
            residual += x
        y = functional.layer_norm(residual, self.weight.shape, self.weight, self.bias, NORM_EPSILON)
        return y.to(self.kernels.dtype)


@dataclass(frozen=True)
class _Block:
    norm: _Norm
    mixer: MambaLayer | Mamba2Layer | AttentionLayer
    norm2: _Norm | None
    mlp: GatedMLP | None

    @property
    def n_states(self) -> int:
        return self.mixer.n_states if isinstance(self.mixer, AttentionLayer) else 1

    @property
    def token_bytes(self) -> int:
        mixer = self.mixer
        return mixer.token_bytes if self.mlp is None else max(mixer.token_bytes, self.mlp.token_bytes)

    def mixed(
        self, x: Tensor, call: _Call, before: Any, place: RecurrentState | None, read: Tensor | None
    ) -> tuple[Tensor, list[Any]]:
        """Run the mixer on normalised inputs; `before` is a list of its states or null.

        Returns:
            What it adds, and the states of an attention layer; another's goes to `place`.
        """
        mixer = self.mixer
        if isinstance(mixer, AttentionLayer):
            assert call.attention is not None
            # In float32 whatever the kernels' dtype, as its keys and values are kept.
            return mixer.step(
                x.float(), call.starts, call.rotation, call.attention, before, read=read, keep=call.keep
            )
        state: RecurrentState | None = None if before is None else before[0]
        return mixer.step(x, call.starts, state, place, read=read), []


class HybridSteps:
    """A language model of mamba_ssm; see `mambabench.models.stateful.StatefulModel` for the contract.

    Args:
        config: mamba_ssm's configuration.
        state: mamba_ssm's state dict, on the device; tensors that have the right dtype are shared.
        vocab_size: ids that may be predicted.
        dtype: of the matrix products' weights; the recurrence's parameters keep float32.

    Raises:
        CheckpointError: the configuration has something that is not known here, or the weights do not fit it.
    """

    def __init__(
        self, config: dict[str, Any], state: Mapping[str, Tensor], *, vocab_size: int, dtype: torch.dtype
    ) -> None:
        if reason := obstacle(config):
            raise CheckpointError(f"this model cannot be run without mamba-ssm: {reason}")
        weights = _checked(config, state, dtype)
        self.weights_bytes = sum(
            {t.data_ptr(): t.numel() * t.element_size() for t in weights.values()}.values()
        )
        """Of the parameters, tied ones once."""
        self._embedding = weights["backbone.embedding.weight"]
        self._head = weights.get("lm_head.weight", self._embedding)
        self.vocab_size = vocab_size
        self.device, self.dtype = self._embedding.device, dtype
        self._kernels = kernels_for(self.device, dtype)
        self._attn_cfg: dict[str, Any] = config.get("attn_cfg") or {}
        self._rms = bool(config.get("rms_norm", True))
        attention = set(config.get("attn_layer_idx") or [])
        self._blocks = [
            self._block(_below(weights, f"backbone.layers.{index}."), config, index in attention)
            for index in range(int(config["n_layer"]))
        ]
        self._last_norm = self._norm(weights, "backbone.norm_f")
        mixers = [block.mixer for block in self._blocks]
        attending = [mixer for mixer in mixers if isinstance(mixer, AttentionLayer)]
        ways = [mixer.way for mixer in mixers if not isinstance(mixer, AttentionLayer)]
        kinds = [*dict.fromkeys(way.name for way in ways), *["torch sdpa, packed"] * bool(attending)]
        self.kernel_path = "; ".join(kinds)
        self.workspace_bytes = max((way.workspace_bytes for way in ways), default=0)
        self._recurs = [not isinstance(mixer, AttentionLayer) for mixer in mixers]
        self._recurrent = RecurrentLayers([m.shapes for m in mixers if not isinstance(m, AttentionLayer)])
        self.state_size = StateSize(
            sum(mixer.row_bytes for mixer in mixers), sum(mixer.token_state_bytes for mixer in attending)
        )
        # The residual stream, its normalised copy and the mixer's output beside what a layer holds.
        width = self._embedding.shape[1]
        self.activation_bytes_per_token = max(block.token_bytes for block in self._blocks) + 12 * width

    def start(self, rows: int) -> State:
        """Return the state of rows that have seen nothing."""
        recurrent = iter(self._recurrent.start(rows))
        layers: list[LayerState] = []
        for block in self._blocks:
            mixer = block.mixer
            layers += mixer.start(rows) if isinstance(mixer, AttentionLayer) else [next(recurrent)]
        return State((0,) * rows, tuple(layers))

    def step(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        state: State | None = None,
        *,
        read: Tensor | None = None,
        keep: Sequence[int] | None = None,
        consume: bool = False,
    ) -> Step:
        """Forward rows of tokens end to end, each on from its state."""
        check_step(input_ids, lengths, state)
        seen = (0,) * len(lengths) if state is None else state.lengths
        kept = range(len(lengths)) if keep is None else keep
        given = None if state is None else self._by_block(state.layers)
        with torch.inference_mode():
            call = self._call(lengths, given, keep, consume)
            hidden, after = self._forward(input_ids, call, given, read)
        if not len(kept):
            return Step(hidden, None)
        return Step(hidden, State(tuple(seen[row] + lengths[row] for row in kept), tuple(after)))

    def step_in_place(
        self,
        input_ids: Tensor,
        starts: npt.NDArray[np.int64],
        layers: Sequence[AnyState],
        attention: StaticAttention,
    ) -> tuple[Tensor, list[AnyState]]:
        """Forward one token of each row over memory that stays at its address.

        Nothing in it depends on how many tokens the rows have, so that a CUDA graph may repeat it. See
        `mambabench.models.static_steps`.

        Args:
            input_ids: int64 [rows].
            starts: 0 to rows, [rows + 1].
            layers: a state's, with those of attention layers static; they are given up.
            attention: of these rows.

        Returns:
            Hidden rows [rows, d_model] and the layers after the step.
        """
        with torch.inference_mode():
            attention.begin()
            rotation = rotary(attention.positions, self._attn_cfg)
            call = _Call(starts, None, True, attention, rotation)
            return self._forward(input_ids, call, self._by_block(layers), None)

    def logits(self, hidden: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Return the logits of hidden rows for ids from `first` to `last`."""
        with torch.inference_mode():
            return linear(hidden, self._head[first : self.vocab_size if last is None else last])

    def _forward(
        self, input_ids: Tensor, call: _Call, given: list[list[Any]] | None, read: Tensor | None
    ) -> tuple[Tensor, list[Any]]:
        """Return the hidden rows that are read and the layers' states, as the blocks have them."""
        after: list[Any] = []
        known = None if given is None else [g[0] for g, own in zip(given, self._recurs, strict=True) if own]
        places, done = self._recurrent.places(
            known, self._last_norm.weight, len(call.starts) - 1, keep=call.keep, consume=call.consume
        )
        rest = zip(places, done, strict=True) if places else repeat((None, None))
        residual = functional.embedding(input_ids, self._embedding).float()
        added: Tensor | None = None
        for index, block in enumerate(self._blocks):
            wanted = read if index == len(self._blocks) - 1 else None
            before = None if given is None else given[index]
            place, kept = next(rest) if self._recurs[index] else (None, None)
            added, states = block.mixed(block.norm(residual, added), call, before, place, wanted)
            after += states if kept is None else [kept]
            if wanted is not None:
                residual = residual[wanted]
            if block.norm2 is not None and block.mlp is not None:
                added = block.mlp.step(block.norm2(residual, added))
        return self._last_norm(residual, added), after

    def _block(self, weights: Mapping[str, Tensor], config: dict[str, Any], attends: bool) -> _Block:
        mixer_weights = _below(weights, "mixer.")
        mixer: MambaLayer | Mamba2Layer | AttentionLayer
        settings = mixer_settings(config)
        if attends:
            mixer = AttentionLayer(mixer_weights, self._attn_cfg, d_model=self._embedding.shape[1])
        elif settings["layer"] == "Mamba1":
            mixer = MambaLayer(mixer_weights, self._kernels)
        else:
            low, high = settings["dt_limit"]
            mixer = Mamba2Layer(
                mixer_weights,
                self._kernels,
                d_state=int(settings["d_state"]),
                n_groups=int(settings["ngroups"]),
                norm_eps=NORM_EPSILON,
                dt_limit=(float(low), float(high)),
                gate_first=not settings["norm_before_gate"],
            )
        has_mlp = "mlp.fc1.weight" in weights
        return _Block(
            self._norm(weights, "norm"),
            mixer,
            self._norm(weights, "norm2") if has_mlp else None,
            GatedMLP(_below(weights, "mlp.")) if has_mlp else None,
        )

    def _norm(self, weights: Mapping[str, Tensor], name: str) -> _Norm:
        bias = weights.get(f"{name}.bias")
        weight = weights[f"{name}.weight"].float().contiguous()
        return _Norm(self._kernels, weight, None if bias is None else bias.float(), self._rms)

    def _by_block(self, layers: Sequence[Any]) -> list[list[Any]]:
        """Deal a state's layers out to the blocks, of which some have two."""
        rest = iter(layers)
        return [[next(rest) for _ in range(block.n_states)] for block in self._blocks]

    def _call(
        self,
        lengths: Sequence[int],
        given: list[list[Any]] | None,
        keep: Sequence[int] | None,
        consume: bool,
    ) -> _Call:
        starts = row_starts(lengths)
        attending = [i for i, block in enumerate(self._blocks) if isinstance(block.mixer, AttentionLayer)]
        if not attending:
            return _Call(starts, keep, consume, None, None)
        first: Any = None if given is None else given[attending[0]][-1]
        rows = PackedAttention(lengths, first, device=self.device, keep=keep, consume=consume)
        return _Call(starts, keep, consume, rows, rotary(rows.positions, self._attn_cfg))


def _checked(config: dict[str, Any], state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the parameters that the configuration means, in their dtypes."""
    shapes = parameter_shapes(config)
    unused = {"lm_head.weight"} if config.get("tie_embeddings", True) else set()
    extra = [
        n for n in state if n not in shapes and n not in unused and not n.endswith("rotary_emb.inv_freq")
    ]
    missing = [name for name in shapes if name not in state]
    if missing or extra:
        raise CheckpointError(describe_mismatch(missing, extra))
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"the weights do not fit config.json: {name} is {tuple(state[name].shape)}, not {shape}"
            )
    return {
        name: state[name].detach().to(torch.float32 if name.rpartition(".")[2] in FP32_NAMES else dtype)
        for name in shapes
    }


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
