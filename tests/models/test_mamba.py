"""The package's own Mamba-1 against transformers': equal weights give equal logits and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from mambabench.models.mamba import MambaLM, MambaShape, MambaState

LOGIT_TOLERANCE = 2e-5
"""Absolute, in float32, on logits of size about 3."""


def pair(**changes: object) -> tuple[MambaForCausalLM, MambaLM]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 5}
    config = MambaConfig(**{**sizes, **changes})
    theirs = MambaForCausalLM(config)
    ours = MambaLM(MambaShape.from_transformers(theirs.config))
    # Zero biases would hide a forgotten one.
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith(
                ("conv1d.bias", "in_proj.bias", "out_proj.bias", "norm.weight", "norm_f.weight")
            ):
                parameter.add_(0.3 * torch.randn_like(parameter))
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conv_kernel": 3, "expand": 3, "time_step_rank": 2},
        {"use_bias": True, "use_conv_bias": False},
        {"tie_word_embeddings": False},
    ],
)
def test_logits_and_gradients_equal_transformers(changes: dict[str, object]) -> None:
    theirs, ours = pair(**changes)
    ids = torch.randint(0, 50, (3, 37))
    want = theirs(ids).logits
    got, _ = ours(ids)
    assert (got - want).abs().max() <= LOGIT_TOLERANCE
    for logits in (want, got):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    named = dict(theirs.named_parameters())
    assert named.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, named[name].grad, rtol=1e-3, atol=1e-5, msg=name)


def test_state_dicts_load_both_ways() -> None:
    theirs, ours = pair()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert set(theirs.state_dict()) == set(ours.state_dict())


def test_going_on_from_a_state_equals_the_whole_text() -> None:
    _, model = pair()
    ids = torch.randint(0, 50, (2, 20))
    with torch.no_grad():
        whole, end = model(ids)
        state: MambaState | None = None
        pieces = []
        for low, high in ((0, 1), (1, 3), (3, 4), (4, 13), (13, 20)):
            logits, state = model(ids[:, low:high], state)
            pieces.append(logits)
    assert state is not None
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)
    for got, want in zip((*state.conv, *state.ssm), (*end.conv, *end.ssm), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_several_continuations_can_share_a_state() -> None:
    _, model = pair()
    prefix = torch.randint(0, 50, (1, 9))
    with torch.no_grad():
        _, state = model(prefix)
        for tail in torch.randint(0, 50, (3, 1, 6)):
            got, _ = model(tail, state)
            want, _ = model(torch.cat([prefix, tail], dim=1), keep=6)
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_act"):
        MambaShape.from_transformers(MambaConfig(hidden_act="gelu"))
