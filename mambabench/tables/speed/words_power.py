"""What a sweep says of energy, in sentences.

for sentence in power_words(Field(table)):
    print(sentence)
"""

from __future__ import annotations

from mambabench.speed_schema import PowerRecord
from mambabench.tables.speed.contenders import Field
from mambabench.tables.speed.format import listed, number, percent

_IDLE = "idle"
"""What `mambabench.bench.power` calls the reason of a card that has nothing to do."""


def power_words(field: Field) -> list[str]:
    """Say what a token takes in the fastest way of running each model, and at which clocks."""
    records: list[PowerRecord] = []
    parts: dict[str, list[str]] = {}
    for contender in filter(None, map(field.best, field.models)):
        for setting, processes in field.cells(contender).items():
            power = next((r.power for r in processes if r.power is not None), None)
            if power is None:
                continue
            records.append(power)
            gross_j = power.gross_j_per_token
            share = power.net_j_per_token / gross_j
            above = f"{percent(abs(share))} {'above' if share >= 0 else 'below'}"
            parts.setdefault(field.at(setting), []).append(
                f"{field.name(contender)} {number(gross_j)} J ({above} the idle card)"
            )
    said = [f"Energy of a token at {at}: {'; '.join(words)}." for at, words in parts.items()]
    clocks = [clock for power in records for clock in power.sm_clock_mhz]
    if clocks:
        reasons = sorted({word for power in records for word in power.throttle_reasons} - {_IDLE})
        said.append(
            f"Clocks of the card while energy was measured: {min(clocks):,} to {max(clocks):,} MHz, held "
            f"back by {listed(reasons) if reasons else 'nothing'}."
        )
    return said
