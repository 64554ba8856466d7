"""What is said and shown of energy, of records whose energy is known."""

from __future__ import annotations

from typing import Any

from speed_records import MAMBA, PYTHIA, sweep

from mambabench.bench.power import throttle_words
from mambabench.speed_schema import PowerRecord
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.table import SpeedTable, build_speed_table
from mambabench.tables.speed.terminal import as_text
from mambabench.tables.speed.words import answers
from mambabench.tables.speed.words_power import power_words


def table(joules: dict[tuple[str, str], float], **more: Any) -> SpeedTable:
    """Return a sweep on a card, with the energy of 100 tokens by model and arm."""
    records = sweep(
        models=[MAMBA, PYTHIA], prompt_lens=(2048,), arms=("eager", "graph"), processes=2, device="cuda:0"
    )
    powered = []
    for record in records:
        energy_j = joules.get((record.point.model, record.point.arm))
        power = None
        if energy_j is not None and record.replicate == 0:
            power = PowerRecord(energy_j=energy_j, duration_s=5.0, n_tokens=100, idle_w=10.0, **more)
        powered.append(record.model_copy(update={"power": power}))
    return build_speed_table("latency", "a sweep", powered, (), {}, expected=())


JOULES = {("mamba-130m", "graph"): 200.0, ("pythia-160m", "graph"): 400.0, ("mamba-130m", "eager"): 900.0}


def test_energy_is_said_of_the_fastest_arms() -> None:
    built = table(JOULES, sm_clock_mhz=(1395, 1980), throttle_reasons=throttle_words(0x1 | 0x4))
    said = power_words(Field(built))
    assert said == [
        "Energy of a token at prompt 2,048: mamba-130m (graph arm) 2.00 J (75.0% above the idle card); "
        "pythia-160m (graph arm) 4.00 J (87.5% above the idle card).",
        "Clocks of the card while energy was measured: 1,395 to 1,980 MHz, held back by software power cap.",
    ]
    assert set(said) <= set(answers(built, budget_bytes=None))


def test_less_than_the_idle_card_is_shown_as_it_is() -> None:
    built = table({("mamba-130m", "graph"): 40.0})
    assert power_words(Field(built))[0] == (
        "Energy of a token at prompt 2,048: mamba-130m (graph arm) 0.400 J (25.0% below the idle card)."
    )
    (row,) = [line for line in as_text(built).splitlines() if " mamba-130m " in line and " graph " in line]
    assert "-0.100" in row.split()


def test_clocks_that_nothing_holds_back() -> None:
    said = power_words(Field(table(JOULES, sm_clock_mhz=(1980,), throttle_reasons=throttle_words(0x1))))
    assert said[-1].endswith("1,980 to 1,980 MHz, held back by nothing.")


def test_without_power_nothing_is_said_or_shown() -> None:
    built = table({})
    assert power_words(Field(built)) == []
    assert "J/tok" not in as_text(built)


def test_the_table_has_a_column_for_each_figure() -> None:
    lines = as_text(table(JOULES)).splitlines()
    assert sum("J/tok" in line for line in lines[:4]) == 1
    assert "net: without what the idle card takes" in " ".join(lines)
    (row,) = [line for line in lines if " mamba-130m " in line and " graph " in line]
    assert {"2.00", "1.50"} <= set(row.split())
    (bare,) = [line for line in lines if " pythia-160m " in line and " eager " in line]
    assert "4.00" not in bare.split()
