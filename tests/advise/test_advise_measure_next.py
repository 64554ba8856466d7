"""The commands that would settle what is open: their options exist, and they ask for what is missing."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
from wished import FACTS, averaged, frames, recalled, scored, task, timed

from mambabench.advise.advise import advise
from mambabench.advise.facts import RunFacts, typed_names
from mambabench.advise.wish import Wish
from mambabench.cli import COMMANDS

WISH = Wish(1000, 100, conversations=2, recall_percent=90.0, quality_percent=40.0, tpot_s=0.05)


def _said(wish: Wish, facts: dict[str, RunFacts] = FACTS, **rows: Any) -> list[str]:
    advice = advise(frames(**rows), facts, wish)
    for one in advice.to_measure:
        command = importlib.import_module(COMMANDS[one.command[1]][0]).command
        # Parsed by the command itself: an option that it does not have is an error here.
        command.make_context(one.command[1], list(one.command[2:]))
    return [one.text for one in advice.to_measure]


def test_what_was_never_measured_is_asked_for_at_the_wish() -> None:
    said = _said(WISH, speed=[timed("m", 500, 100)])
    assert said == [
        "mambabench latency --model m --prompt-len 1000 --gen-len 100 --batch-size 2 --arm eager "
        "--dtype float32 --device cpu --processes 6",
        "mambabench longcontext --model m --lengths 1100 --no-cost --dtype float32 --device cpu",
        "mambabench zeroshot --model m --dtype float32 --device cpu",
    ]


def test_models_that_need_the_same_share_a_command_and_tasks_are_those_of_others() -> None:
    said = _said(
        replace(WISH, tpot_s=None),
        speed=[timed("a", 1000, 100, 2), timed("b", 1000, 100, 2), timed("c", 1000, 100, 2)],
        recall_means=[recalled("c", 1100, 95.0, 96.0, 97.0)],
        recall=[task("c", 1100, 96.0, "needle"), task("c", 1100, 96.0, "mqar")],
        averages=[averaged(model, 50.0) for model in "abc"],
        scores=[row for model in "abc" for row in scored(model, (45.0, 50.0, 55.0))],
    )
    assert said == [
        "mambabench longcontext --model a --model b --task mqar --task needle --lengths 1100 --no-cost "
        "--samples 50 --dtype float32 --device cpu"
    ]


def test_what_one_bound_rules_out_needs_no_more() -> None:
    assert _said(WISH, speed=[timed("m", 1000, 100, 2, tpot_s=0.5)]) == []


@pytest.mark.parametrize(("n", "processes"), [(3, 6), (6, 12), (12, 24)])
def test_what_is_too_close_is_asked_of_more_processes(n: int, processes: int) -> None:
    wish = Wish(1000, 100, tpot_s=0.05)
    row = timed("m", 1000, 100, tpot_s=(0.04, 0.049, 0.06), n_processes=n)
    (said,) = _said(wish, speed=[row])
    assert f"--processes {processes}" in said


def test_recall_that_is_too_close_is_asked_of_more_samples_of_the_same_lengths() -> None:
    wish = Wish(1000, 100, recall_percent=90.0)
    (said,) = _said(
        wish,
        speed=[timed("m", 1000, 100)],
        recall_means=[recalled("m", n, 85.0, 91.0, 95.0) for n in (512, 2048, 4096)],
        recall=[task("m", n, 91.0) for n in (512, 2048, 4096)],
    )
    assert "--task needle --lengths 512,2048 --no-cost --samples 200" in said


def test_settings_are_those_that_were_measured() -> None:
    row = timed("m", 500, 100, attention="flash", arm="graph", dtype="bfloat16", device="cuda:0",
                prefill_chunk_tokens=256)  # fmt: skip
    facts = {"sweep": RunFacts(weights="random", out="/runs of mine", typed={"m": "./my dir/m"})}
    (said,) = _said(Wish(1000, 100), facts, speed=[row])
    assert said == (
        "mambabench latency --model './my dir/m' --prompt-len 1000 --gen-len 100 --batch-size 1 --arm graph "
        "--dtype bfloat16 --device cuda:0 --attention flash --prefill-chunk 256 --weights random "
        "--processes 6 --out '/runs of mine'"
    )


def test_a_forward_that_disagrees_is_not_measured_again_as_it_is() -> None:
    (said,) = _said(Wish(1000, 100), speed=[timed("m", 1000, 100, flags="certificate failed")])
    assert "--arm shipped" in said


def test_averages_are_asked_over_the_suite_or_the_tasks_of_others() -> None:
    wish = Wish(1000, 100, quality_percent=40.0)
    speed = [timed("a", 1000, 100), timed("b", 1000, 100)]
    rows = scored("b", (45.0, 50.0, 55.0))
    (by_suite,) = _said(wish, speed=speed, averages=[averaged("b", 50.0)], scores=rows)
    assert by_suite == "mambabench zeroshot --model a --suite smoke --dtype float32 --device cpu"
    own = [row | {"suite": "piqa+sciq", "task": "piqa"} for row in rows]
    (by_task,) = _said(wish, speed=speed, averages=[averaged("b", 50.0, suite="piqa+sciq")], scores=own)
    assert by_task == "mambabench zeroshot --model a --task piqa --dtype float32 --device cpu"


def test_models_are_named_as_they_were_typed() -> None:
    command = ["mambabench", "latency", "--model", "out/m.gguf", "--model=hf:org/n", "--model", "x/k",
               "--model", "y/k"]  # fmt: skip
    assert typed_names(command, ["m", "n", "k", "z"]) == {"m": "out/m.gguf", "n": "hf:org/n"}
