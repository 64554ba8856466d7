"""Suites of points load, say what they measure, and report all of their mistakes at once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.bench.points import Block
from mambabench.errors import ConfigError, UnknownNameError, UsageError
from mambabench.suite import list_suites, load_suite
from mambabench.sweep.defaults import Asked, complete
from mambabench.sweep.options import SpeedOptions
from mambabench.sweep.plan import forecast, make_plan
from mambabench.sweep.suite import SpeedSuite, list_speed_suites, load_speed_suite

SHIPPED = {
    "article-24gb": "memory",
    "figure8-left": "latency",
    "figure8-right": "throughput",
    "long-context": "latency",
    "smoke-speed": "latency",
}
HEAD = "kind: latency\nmodels: [mamba-tiny]\nprompt_len: 128\ngen_len: 8\n"


def load(tmp_path: Path, text: str) -> SpeedSuite:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_speed_suite(path)


def mistakes(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.source.endswith("mine.yaml")
    assert caught.value.exit_code == 2
    return caught.value.mistakes


def test_the_shipped_suites_are_those_that_are_promised() -> None:
    suites = list_speed_suites()
    assert {s.name: s.kind for s in suites} == SHIPPED
    assert not {s.name for s in list_suites()} & set(SHIPPED)
    for suite in suites:
        assert suite.title != suite.name
        assert suite.description


def test_what_the_shipped_suites_measure() -> None:
    article = load_speed_suite("article-24gb")
    (block,) = article.blocks
    assert block.models == ("mamba-1.4b", "mamba-2.8b", "pythia-1.4b", "tinyllama-1.1b")
    assert (block.prompt_len_tokens, block.gen_len_tokens) == ((10000, 10240), (100,))
    assert set(block.attention) == {"eager", "sdpa", "flash"}
    assert (article.budget_bytes, article.dtype, article.weights) == (24 * 10**9, "float16", "random")
    (left,) = load_speed_suite("figure8-left").blocks
    assert left.prompt_len_tokens == tuple(2**i for i in range(9, 20))
    assert left.models == ("op:scan,d=1024,n=16", "op:attention,d=1024")
    (right,) = load_speed_suite("figure8-right").blocks
    assert (right.prompt_len_tokens, right.gen_len_tokens) == ((2048,), (128,))
    assert right.batch_size == (1, 2, 4, 8, 16, 32, 64, 128)
    (long,) = load_speed_suite("long-context").blocks
    assert max(long.prompt_len_tokens) >= 10**6
    assert long.prefill_chunk_tokens is not None


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_suite_can_begin_on_a_cpu(name: str, tmp_path: Path) -> None:
    options = complete(
        Asked(SHIPPED[name], load_speed_suite(name), device="cpu", how={"out": tmp_path / "results"})  # type: ignore[arg-type]
    )
    plan = make_plan(options)
    assert plan.points
    assert all((forecast(plan, p) is None) == p.model.startswith("op:") for p in plan.points)
    if name == "smoke-speed":
        assert {p.model for p in plan.points} == {"mamba-tiny", "pythia-tiny", "mamba-130m", "pythia-160m"}
        # Two cores and three minutes, of which each process needs some seconds for libraries alone.
        assert len(plan.steps) <= 20


def test_axes_hold_for_all_parts_and_parts_replace_them(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        "kind: throughput\ngen_len: 16\nbatch_size: 1:4*2\nprefill_chunk: 64\nprocesses: 6\nmax_time: 2\n"
        "parts:\n"
        "  - {models: [mamba-tiny], prompt_len: [128, 256], arms: [eager, shipped]}\n"
        "  - {models: ['fake:token_ms=2'], prompt_len: 1k, batch_size: 1, attention: [eager]}\n",
    )
    assert suite.blocks == (
        Block(("mamba-tiny",), (128, 256), (16,), (1, 2, 4), ("eager", "shipped"), ("sdpa",), 64),
        Block(("fake:token_ms=2",), (1000,), (16,), (1,), ("best",), ("eager",), 64),
    )
    assert (suite.name, suite.title, suite.processes, suite.max_time_s) == ("mine", "mine", 6, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks: [piqa]", "of kind zeroshot"),
        (HEAD.replace("latency", "latnecy"), "'kind': 'latnecy' is none of latency"),
        (HEAD + "promptlen: 3", "unknown key 'promptlen', did you mean 'prompt_len'?"),
        (HEAD + "arms: [egaer]", "'arms': unknown 'egaer', did you mean 'eager'?"),
        (HEAD + "attention: [paged]", "'attention': unknown 'paged'"),
        (HEAD + "attention: 3", "'attention' must be a list of names, not a number"),
        (HEAD + "models: [mamba-14b]", "stands twice"),
        (HEAD.replace("mamba-tiny", "mamba-14b"), "unknown model 'mamba-14b'. Closest: mamba-1.4b"),
        (HEAD.replace("mamba-tiny", "mamba-tiny, mamba-tiny"), "model 'mamba-tiny' stands twice"),
        (HEAD.replace("mamba-tiny", "'fake:tokn_ms=2'"), "no quantity of a fake model"),
        (HEAD.replace("128", "128:64*2"), "goes from 128 down to 64"),
        # YAML 1.1 reads these as 80 and as 8.
        (HEAD.replace("128", "1:20"), "does not say by what '1:20' goes up"),
        (HEAD + "repeats: 010", "'repeats' must be a whole number from 1, not '010'"),
        (HEAD.replace("128", "{a: b}"), "'prompt_len' must be a number, a list of them or a range"),
        (HEAD.replace("gen_len: 8\n", ""), "'gen_len' is missing"),
        (HEAD + "prefill_chunk: [1, 2]", "'prefill_chunk' must be one number"),
        (HEAD + "repeats: 0", "'repeats' must be a whole number from 1, not 0"),
        (HEAD + "processes: many", "'processes' must be a whole number from 1, not 'many'"),
        (HEAD + "budget: large", "'budget': 'large' is not a size"),
        (HEAD + "dtype: float12", "'dtype': unknown dtype 'float12'"),
        (HEAD + "weights: trained", "'weights': 'trained' is none of pretrained, random"),
        (HEAD + "weights: [[a, b], {c: [d]}]", "'weights': a list of other things is none of"),
        (HEAD + f"weights: {'a' * 100}", f"'weights': '{'a' * 56}... is none of"),
        (HEAD + "parts: {}", "'parts' must be a list of mappings"),
        (HEAD + "parts: [{model: x}]", "part 1: unknown key 'model', did you mean 'models'?"),
        ("kind: latency\nkind: memory\n", "line 2: key 'kind' stands twice"),
        ("[]", "no mapping with the key 'models'"),
        (HEAD.replace("kind: latency", "seed: 1"), "'kind' is missing, one of latency"),
        ("kind: [", "line 1"),
    ],
)
def test_each_mistake_is_told_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "kind: latency\nmodels: [mamba-14b]\nprompt_len: 0\narms: [fast]\nbudget: big\nsize: 3\n",
    )
    for words in ("mamba-14b", "prompt_len", "fast", "big", "size", "gen_len"):
        assert any(words in mistake for mistake in found)
    assert len(found) == 6


def test_a_suite_of_another_kind_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of kind throughput\. `mambabench throughput --suite"):
        load_speed_suite("figure8-right", "latency")
    with pytest.raises(UsageError, match="mambabench memory --suite article-24gb"):
        load_suite("article-24gb")
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD.replace("kind: latency\n", ""))
    assert load_speed_suite(path, "memory").kind == "memory"
    with pytest.raises(UsageError, match="mambabench zeroshot --suite smoke"):
        load_speed_suite("smoke", "latency")
    with pytest.raises(UnknownNameError, match="Closest: figure8-right"):
        load_speed_suite("figure8-rigth", "throughput")


def test_options_replace_what_the_suite_says() -> None:
    suite = load_speed_suite("figure8-right")
    how = {"processes": 6, "repeats": None, "dtype": None}
    asked = Asked("throughput", suite, ("mamba-tiny",), batch_size=(3,), device="cpu", how=how)
    options = complete(asked)
    (block,) = options.blocks
    assert (block.models, block.batch_size, block.prompt_len_tokens) == (("mamba-tiny",), (3,), (2048,))
    assert (options.processes, options.repeats, options.suite) == (6, suite.repeats, "figure8-right")


def test_a_command_that_names_nothing_measures_what_comes_with_the_package_and_says_so() -> None:
    options = complete(Asked("latency", prompt_len_tokens=(10000,), device="cpu"))
    assert options.models == ("mamba-tiny", "pythia-tiny")
    assert options.blocks[0].prompt_len_tokens == (10000,)
    assert any("mamba-tiny, pythia-tiny" in sentence for sentence in options.chosen)
    assert not any("prompts of" in sentence for sentence in options.chosen)
    said = complete(Asked("latency", None, ("m",), (1,), (1,), (1,), device="cpu"))
    assert said.chosen == ()
    assert isinstance(said, SpeedOptions)


def test_a_gpu_has_other_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    import mambabench.sweep.defaults

    monkeypatch.setattr(mambabench.sweep.defaults, "seen_device", lambda text: "cuda:0")
    options = complete(Asked("throughput"))
    assert "tinyllama-1.1b" in options.models
    assert max(options.blocks[0].batch_size) == 128


names = st.sampled_from(["models", "arms", "x"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
    max_leaves=5,
)
keys = st.sampled_from(
    ["models", "prompt_len", "gen_len", "batch_size", "arms", "attention", "parts", "budget", "repeats",
     "dtype", "weights", "name", "title", "seed", "prefill_chunk"]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, plain))
def test_no_content_is_more_than_a_mistake(document: dict[str, object]) -> None:
    import tempfile

    import yaml

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UsageError):
        load(Path(folder), yaml.safe_dump({"kind": "latency", **document}))
