"""Speed tables as they are printed: narrow and wide, one row and many, failures and footnotes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from speed_records import MAMBA, PYTHIA, ceilings, failed, point, replicate, sizes_by_name, sweep

from mambabench.sizes import ModelSizes
from mambabench.speed_schema import ReplicateRecord
from mambabench.tables.speed import terminal as speed_terminal
from mambabench.tables.speed.flags import ADVICE, FEW_TOKENS
from mambabench.tables.speed.table import SpeedTable, build_speed_table
from mambabench.tables.speed.terminal import as_text

EXACT = {"process_noise": 0.0, "repeat_noise": 0.0}


def table(records: Sequence[ReplicateRecord], **options: Any) -> SpeedTable:
    given = {"ceilings": (), "sizes": {}, "expected": (), **options}
    return build_speed_table(records[0].kind, "a sweep", records, **given)


def printed(built: SpeedTable, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(speed_terminal, "_WIDTH_OF_FILES", width)
    lines = as_text(built).splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


def rows_of(lines: list[str]) -> list[list[str]]:
    """Return the words of the lines between the rule and the notes."""
    (rule,) = [i for i, line in enumerate(lines) if "───" in line]
    end = next(i for i, line in enumerate(lines) if line.startswith(("All:", "TTFT:")))
    return [line.split() for line in lines[rule + 1 : end] if line.strip()]


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    return sizes_by_name("mamba-130m")


def test_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep(models=[MAMBA], prompt_lens=(10000,), processes=1, process_noise=0, repeat_noise=0)
    lines = printed(table(records), 80, monkeypatch)
    assert lines[0] == "a sweep"
    assert rows_of(lines) == [["mamba-130m", "10,000", "10.0", "s", "30.0", "ms", "30.0", "ms", "5.38", "ok"]]
    text = " ".join(lines)
    assert "All: prompt 10,000, batch 1, 64 tokens generated, eager arm, float32, on cpu." in text
    assert "try `--processes 6`" in text
    assert "ceiling" not in text


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_sixty_rows_fit(width: int, device: str, sizes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = tuple(2**i for i in range(7, 17))
    records = sweep(
        prompt_lens=lengths, arms=("eager", "shipped", "sampled"), processes=2, gen_len=8, device=device
    )
    options: dict[str, Any] = {"ceilings": [ceilings(device=device)], "sizes": sizes}
    found = rows_of(printed(table(records, **options), width, monkeypatch))
    assert [(row[0], row[1], row[2]) for row in found] == [
        (model, arm, f"{length:,}")
        for model in ("mamba-130m", "pythia-160m")
        for arm in ("eager", "shipped", "sampled")
        for length in lengths
    ]


def test_a_narrow_terminal_says_what_it_leaves_out(sizes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = table(sweep(arms=("eager", "shipped")), ceilings=[ceilings()], sizes=sizes)
    wide, narrow = printed(built, 120, monkeypatch), printed(built, 78, monkeypatch)
    assert "No room for" not in " ".join(wide)
    assert any(line.startswith("No room for ITL p90") for line in narrow)
    assert "p90" not in narrow[2]


def test_failures_are_words_and_their_details_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        *sweep(models=[MAMBA], prompt_lens=(128,)),
        failed(point(PYTHIA, 1024)),
        failed(point(PYTHIA, 512), requested_bytes=None, allocated_bytes=567_000_000, detail="no room"),
        failed(point(PYTHIA, 700), requested_bytes=None, allocated_bytes=None, detail="no room"),
        failed(point(PYTHIA, 2048), 0, "timeout", detail="after 60 s"),
        failed(point(PYTHIA, 4096), 0, "skipped_after_oom", detail="prompt 1,024 ran out of memory"),
        failed(point(PYTHIA, 8192), 0, "unsupported", detail="positions end\nat 2,048 [red]x[/red]"),
        failed(point(PYTHIA, 9000), 0, "unsupported", detail="positions end\nat 2,048 [red]x[/red]"),
        failed(point(PYTHIA, 16384), 0, "illegal_access", detail="x" * 500),
    ]
    lines = printed(table(records, expected=[point(), point(PYTHIA, 32768)]), 120, monkeypatch)
    assert lines[0] == "a sweep   PARTIAL: not everything has been measured"
    states = [" ".join(row[2:]) for row in rows_of(lines)[1:]]
    assert states == [
        "oom at 567 MB",
        "oom",
        "oom: wanted 6.7 GB",
        "timeout",
        "skipped after oom",
        "unsupported",
        "unsupported",
        "illegal access",
        "not measured yet",
    ]
    text = "\n".join(lines)
    assert (
        "unsupported (pythia-160m, prompt 8,192, batch 1 and 1 more): positions end at 2,048 [red]x[/red]"
        in text
    )
    assert "timeout (pythia-160m, prompt 2,048, batch 1): after 60 s" in text
    assert "x" * 161 not in text.replace("\n", "")


def test_flags_are_footnotes_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep(prompt_lens=(128, 4096), gen_len=16, process_noise=0, repeat_noise=0)
    lines = printed(table(records), 120, monkeypatch)
    assert [row[-1] for row in rows_of(lines)] == ["[b]", "[b]", "[b]", "[a,b]"]
    text = " ".join(lines)
    assert f"[b] {FEW_TOKENS}: {ADVICE[FEW_TOKENS]}." in text
    assert "[c]" not in text


def test_the_spread_is_the_widest_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    few = table(sweep(models=[MAMBA], prompt_lens=(128,), processes=3))
    (row,) = few.rows
    shown = [row.ttft_s, row.tpot_s, row.itl_p90_s, row.e2e_tokens_per_s]
    widest = max(50 * (e.high - e.low) / e.value for e in shown if e is not None)
    lines = printed(few, 120, monkeypatch)
    assert f"~{widest:.1f}%" in rows_of(lines)[0]
    assert "~ half of its range" in " ".join(lines)
    lines = printed(table(sweep(models=[MAMBA], prompt_lens=(128,), processes=6)), 120, monkeypatch)
    assert rows_of(lines)[0][-2].startswith("±")
    assert "± half of its 95% interval." in " ".join(lines)
    assert "~" not in " ".join(lines)


def test_columns_of_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep(
        "throughput",
        [MAMBA],
        batch_sizes=(1, 4),
        prompt_lens=(990,),
        processes=1,
        process_noise=0,
        repeat_noise=0,
    )
    lines = printed(table(records), 120, monkeypatch)
    # Peak: weights, one state, and 20 kB for each token of the prompt.
    assert rows_of(lines)[0] == ["mamba-130m", "1", "33.3", "990", "22.1", "539", "MB", "ok"]
    assert rows_of(lines)[1][:5] == ["mamba-130m", "4", "121", "997", "42.3"]


def test_columns_of_memory(sizes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep("memory", [MAMBA], prompt_lens=(1000,), processes=1, repeats=0)
    lines = printed(table(records, sizes=sizes), 120, monkeypatch)
    (row,) = rows_of(lines)
    assert row[:10] == ["mamba-130m", "1,000", "539", "MB", "516", "MB", "2.8", "MB", "20", "MB"]
    assert row[-1] == "ok"
    assert "expected" in " ".join(lines)


def test_memory_that_was_timed_shows_times(monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep("memory", [MAMBA], prompt_lens=(990,), processes=1, **EXACT)
    (row,) = rows_of(printed(table(records), 120, monkeypatch))
    assert row[-4:] == ["1.00", "s", "33.3", "ok"]
    untimed = sweep("memory", [MAMBA], prompt_lens=(990,), processes=1, repeats=0)
    assert "TTFT" not in as_text(table(untimed))


def test_timed_memory_of_several_attentions_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [point(PYTHIA, n, gen_len=100, attention=a) for a in ("sdpa", "eager") for n in (8192, 10_240)]
    made = [replicate(PYTHIA, at, n, kind="memory", repeats=9, **EXACT) for at in ways for n in range(2)]
    lines = printed(table(made), 80, monkeypatch)
    assert not any("\u2026" in text for text in lines)
    assert [row[:5] for row in rows_of(lines)[1::2]] == [
        ["pythia-160m", a, "10,240", "1.62", "GB"] for a in ("sdpa", "eager")
    ]


def test_memory_beside_the_peak_is_shown_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = sweep("memory", [MAMBA], prompt_lens=(1000,), processes=1, repeats=0)
    assert record.memory is not None
    reserved = record.memory.model_copy(update={"peak_reserved_bytes": 612_000_000})
    built = table([record.model_copy(update={"memory": reserved})])
    wide, narrow = printed(built, 120, monkeypatch), printed(built, 60, monkeypatch)
    (row,) = rows_of(wide)
    # The process: peak of 539 MB and 300 MB before.
    assert row[-5:] == ["612", "MB", "839", "MB", "ok"]
    text = " ".join(narrow)
    assert "No room for reserved, process" in text
    assert "612" not in text


def test_what_computed_each_model_stands_below(monkeypatch: pytest.MonkeyPatch) -> None:
    arms: Any = {"prompt_lens": (128,), "processes": 1}
    ours = {"implementation": "mambabench MambaModel", "kernel_path": "mambabench compiled scan"}
    theirs = {"implementation": "transformers MambaForCausalLM", "kernel_path": "transformers torch loop"}
    cache = {"implementation": "mambabench AttentionModel", "kernel_path": "torch sdpa, packed"}
    one = [*sweep(models=[MAMBA], **arms, **ours), *sweep(models=[PYTHIA], **arms, **cache)]
    said = "Run by mamba-130m: mambabench compiled scan{}; pythia-160m: mambabench torch sdpa, packed."
    assert said.format("") in printed(table(one), 120, monkeypatch)
    two = [*one, *sweep(models=[MAMBA], arms=("shipped",), **arms, **theirs)]
    both = " (eager arm), transformers torch loop (shipped arm)"
    assert said.format(both) in " ".join(" ".join(printed(table(two), 120, monkeypatch)).split())
    assert "Run by" not in as_text(table([failed(point())]))


def test_the_depth_of_decoding_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = as_text(table(sweep("throughput", prompt_lens=(2048,), processes=1)))
    assert "from depth 2,048 on" in one.replace("\n", " ")
    two = as_text(table(sweep("latency", prompt_lens=(128, 2048), processes=1)))
    assert "from the prompt's depth on" in two.replace("\n", " ")


def test_attention_is_a_column_for_a_model_run_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [failed(point(MAMBA))]
    records += [failed(point(PYTHIA, attention=a)) for a in ("sdpa", "eager")]  # type: ignore[arg-type]
    lines = printed(table(records), 120, monkeypatch)
    assert [row[1] for row in rows_of(lines)] == ["none", "sdpa", "eager"]
    without = printed(table(records[:2]), 120, monkeypatch)
    assert [row[1] for row in rows_of(without)] == ["128", "128"]


def test_long_names_are_broken_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fake:prefill_ms=20,token_ms=2,weights_mb=64,state_mb=1,kv_kb=8,transient_mb=32"
    at = point().model_copy(update={"model": name})
    lines = printed(table([failed(at)]), 80, monkeypatch)
    rows = rows_of(lines)
    assert rows[0][1] == "128"
    assert "".join(row[0] for row in rows) == name


def test_colours_only_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain = as_text(table([failed(point())]))
    assert "\x1b" not in plain
    stream = Terminal()
    speed_terminal.render(table([failed(point())]), stream)
    assert "oom: wanted" in stream.getvalue()
