from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import N_TOKENS, tiny_llama, tiny_mamba, tiny_mamba2, tiny_neox

from mambabench.errors import UsageError
from mambabench.models.base import SamplingOptions
from mambabench.models.fake import FakeModel
from mambabench.models.load import check, load
from mambabench.models.sampling import Sampler
from mambabench.registry import resolve

PROMPT = torch.tensor([[5, 99, 14, 203], [250, 1, 2, 3], [9, 9, 9, 9]])
BUILDERS = {"mamba": tiny_mamba, "mamba2": tiny_mamba2, "neox": tiny_neox, "llama": tiny_llama}


def _never(row: int, ids: Any) -> bool:
    return False


@pytest.fixture(scope="module", params=["fake", *BUILDERS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "fake":
        return FakeModel()
    options: dict[str, Any] = {}
    if request.param in ("mamba", "mamba2"):
        # Tied weights of a random model repeat the last token for ever.
        options["config"] = {"tie_word_embeddings": False}
    directory = BUILDERS[request.param](tmp_path_factory.mktemp("m") / "m", **options)
    return load(check(resolve(str(directory)), device="cpu"))


def _prompt(model: Any) -> torch.Tensor:
    return PROMPT.clamp(max=model.vocab_size - 1)


def _run(model: Any, prompt: torch.Tensor, n: int, stop: Any = _never, eos: Any = (), **options: Any) -> Any:
    return model.generate(
        prompt, max_new_tokens=n, options=SamplingOptions(**options), stop=stop, eos_ids=list(eos)
    )


def _greedy(model: Any, prompt: torch.Tensor, n: int) -> list[list[int]]:
    """Greedy continuations by forwarding the whole text for each token."""
    ids = prompt
    for _ in range(n):
        ids = torch.cat([ids, model.logits(ids, 1)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, prompt.shape[1] :].tolist()


def test_greedy_equals_forwarding_the_whole_text(model: Any) -> None:
    prompt = _prompt(model)
    assert _run(model, prompt, 8) == _greedy(model, prompt, 8)


def test_a_row_in_a_batch_is_as_good_as_alone(model: Any) -> None:
    prompt = _prompt(model)
    together = _run(model, prompt, 6)
    assert together == [_run(model, row[None], 6)[0] for row in prompt]


def test_rows_end_by_their_own_rule_and_keep_the_token_that_ended_them(model: Any) -> None:
    prompt = _prompt(model)
    free = _run(model, prompt, 8)
    seen: list[tuple[int, int]] = []

    def stop(row: int, ids: Any) -> bool:
        seen.append((row, len(ids)))
        return len(ids) == row + 2

    found = _run(model, prompt, 8, stop)
    assert found == [free[row][: row + 2] for row in range(3)]
    # Asked once a step, and never again after the row's end.
    assert sorted(seen) == [(row, n) for row in range(3) for n in range(1, row + 3)]


def test_an_end_of_text_id_ends_a_row(model: Any) -> None:
    prompt = _prompt(model)
    free = _run(model, prompt, 8)
    ends = {free[0][2]}
    found = _run(model, prompt, 8, eos=ends)
    for row, whole in zip(found, free, strict=True):
        first = next((i for i, token in enumerate(whole) if token in ends), len(whole) - 1)
        assert row == whole[: first + 1]


def test_no_new_tokens(model: Any) -> None:
    assert _run(model, _prompt(model), 0) == [[], [], []]


def test_sampling_follows_its_seed_and_disturbs_no_other_random_numbers(model: Any) -> None:
    prompt = _prompt(model)
    before = torch.random.get_rng_state()
    one = _run(model, prompt, 12, do_sample=True, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert _run(model, prompt, 12, do_sample=True, seed=1) == one
    assert _run(model, prompt, 12, do_sample=True, seed=2) != one


def test_the_narrowest_sampling_is_greedy(model: Any) -> None:
    prompt = _prompt(model)
    greedy = _run(model, prompt, 5)
    assert _run(model, prompt, 5, do_sample=True, top_k=1) == greedy
    assert _run(model, prompt, 5, do_sample=True, temperature=1e-4) == greedy


def test_without_top_k_the_whole_vocabulary_may_be_drawn(model: Any) -> None:
    # At this temperature all ids are about equally likely; transformers' default would keep 50.
    prompt = _prompt(model).repeat(40, 1)
    drawn = {t for row in _run(model, prompt, 3, do_sample=True, temperature=1e3) for t in row}
    assert len(drawn) > 120


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("build", [tiny_mamba, tiny_neox])
def test_padded_rows_are_never_generated(tmp_path: Path, build: Any, sample: bool) -> None:
    directory = build(tmp_path / "m", config={"tie_word_embeddings": False})
    model: Any = load(check(resolve(str(directory)), device="cpu"))
    head = model.module.get_output_embeddings()
    with torch.no_grad():
        # The padded rows would always win.
        head.weight[N_TOKENS:] = 50 * head.weight[:N_TOKENS].abs().max()
        head.weight[N_TOKENS + 1 :] *= -1
    found = _run(model, PROMPT, 10, do_sample=sample, temperature=5.0)
    assert max(token for row in found for token in row) < N_TOKENS


def test_further_options_reach_transformers(tmp_path: Path) -> None:
    model: Any = load(check(resolve(str(tiny_llama(tmp_path / "m"))), device="cpu"))
    free = _run(model, PROMPT, 6)
    banned = free[0][0]
    found = _run(model, PROMPT, 6, extra={"suppress_tokens": [banned]})
    assert banned not in found[0]
    assert _run(model, PROMPT, 6, repetition_penalty=50.0) != free


def test_generation_works_in_bf16(tmp_path: Path) -> None:
    for name, build in BUILDERS.items():
        model: Any = load(check(resolve(str(build(tmp_path / name))), device="cpu", dtype="bf16"))
        assert [len(row) for row in _run(model, PROMPT, 5)] == [5, 5, 5]


def test_the_sampler_agrees_with_transformers_penalty_and_cuts() -> None:
    ids = torch.tensor([[1, 2]])
    logits = torch.tensor([[0.0, 3.0, 2.9, 1.0]])
    cpu = torch.device("cpu")
    assert Sampler(SamplingOptions(), cpu).choose(logits, ids).item() == 1
    assert Sampler(SamplingOptions(repetition_penalty=10.0), cpu).choose(logits, ids).item() == 3
    for cut in ({"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.5}):
        options = SamplingOptions(do_sample=True, temperature=2.0, **cut)  # type: ignore[arg-type]
        sampler = Sampler(options, cpu)
        drawn = {int(sampler.choose(logits, ids)) for _ in range(200)}
        assert {1, 2} <= drawn
    with pytest.raises(UsageError, match="not supported here: num_beams"):
        Sampler(SamplingOptions(extra={"num_beams": 2}), cpu)


def test_the_fake_depends_on_every_token_of_the_prefix() -> None:
    fake = FakeModel()
    base = torch.tensor([[1, 2, 3, 4, 5]])
    for position in range(5):
        changed = base.clone()
        changed[0, position] += 1
        same = torch.isclose(fake.logits(changed, 5), fake.logits(base, 5)).all(-1)[0]
        assert same.tolist() == [i < position for i in range(5)]
    assert not torch.equal(FakeModel(seed=1).logits(base, 1), fake.logits(base, 1))
    text = "Any text: né 漢\n"
    ids = fake.tokenizer(text).input_ids
    assert fake.tokenizer.decode(ids) == text
    assert max(ids) < fake.vocab_size == fake.record.vocab_rows_used
    with pytest.raises(ValueError, match="keep is 6"):
        fake.logits(base, 6)
