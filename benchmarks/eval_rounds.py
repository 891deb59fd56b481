"""Several systems measured in turn, a, b, a, b: ratios are taken within a round, then their median."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from systems import Setting, measure_gemm


@dataclass(frozen=True)
class System:
    """One way to do a part's work: `work` is its name in the process, `ours` or the peer's."""

    work: str
    bf16: bool = False
    ours: bool = False

    @property
    def dtype(self) -> str:
        return "bf16" if self.bf16 else "fp32"


@dataclass(frozen=True)
class Rounds:
    """Measurements of every round by system, and the round's GEMM peaks."""

    found: list[dict[str, dict]]
    peaks: list[dict[str, float]]

    def every(self, name: str, number: str) -> list:
        return [item[name][number] for item in self.found]

    def times(self, name: str, over: str) -> float:
        """Seconds of `name` over those of `over`."""
        return median(item[name]["seconds"] / item[over]["seconds"] for item in self.found)

    def share(self, name: str, dtype: str) -> float:
        """Operations of the real tokens a second, over those of a large matrix product in this type."""
        rounds = zip(self.found, self.peaks, strict=True)
        return median(item[name]["flops"] / item[name]["seconds"] / peak[dtype] for item, peak in rounds)

    def facts(self) -> dict[str, object]:
        """What lies behind the medians."""
        return {
            "gemm_tflops": [{kind: round(peak[kind] / 1e12, 3) for kind in ("fp32", "bf16")} for peak in self.peaks],
            "seconds_of_rounds": {name: [round(value, 2) for value in self.every(name, "seconds")]
                                  for name in self.found[0]},
            "process_seconds": {name: round(sum(self.every(name, "process_s")), 1) for name in self.found[0]},
        }  # fmt: skip


def chosen(systems: dict[str, System], bf16_peers: bool) -> dict[str, System]:
    return {name: item for name, item in systems.items() if bf16_peers or item.ours or not item.bf16}


def in_turns(
    systems: dict[str, System],
    rounds: int,
    measure: Callable[[System, int, Path], dict],
    setting: Setting,
    folder: Path,
) -> Rounds:
    """In each round the matrix product, then `measure(system, round, folder)` for each system."""
    peaks, found = [], []
    for number in range(rounds):
        peaks.append(measure_gemm(setting, folder / f"{number}-gemm"))
        found.append({name: measure(item, number, folder / f"{number}-{name}") for name, item in systems.items()})
    return Rounds(found, peaks)


def common_columns(name: str, system: System, rounds: Rounds, ours: str) -> dict[str, object]:
    """Columns of both parts; the numbers that do not vary are those of the last round."""
    last = rounds.found[-1][name]
    return {
        "padding": f"{last['padding']:.1%}",
        "share of GEMM": f"{rounds.share(name, system.dtype):.0%}",
        "peak MiB": f"{max(rounds.every(name, 'peak_mib')):.0f}",
        "slower": f"{rounds.times(name, ours):.2f}x",
    }
