"""What a run will need, said before it; what it uses, said while it runs."""

import time
from dataclasses import replace

import pytest
from pipeline_sdg.calls.usage import Prices, RoleUsage
from pipeline_sdg.endpoints import ARTIFACTS, EMBED, JUDGE, QA
from pipeline_sdg.estimate import Need, WindowSize, described, estimate, warnings
from pipeline_sdg.meter import Meter, money

from pipeline.schemas.sdg import SdgConfig

ROLES = (ARTIFACTS, QA, JUDGE, EMBED)
SIZE = WindowSize(characters=4000, passages=5, num_pairs=8)
CONFIG = SdgConfig(run_dir="run")


def needs_of(config: SdgConfig = CONFIG, windows: int = 10, **known: tuple[float, float]) -> dict[str, Need]:
    return estimate((SIZE for _ in range(windows)), config, ROLES, known)


def test_calls_are_counted_as_they_will_be_made() -> None:
    needs = needs_of()
    assert {role: need.calls for role, need in needs.items()} == {ARTIFACTS: 10, QA: 10, JUDGE: 80, EMBED: 2}
    checked = needs_of(replace(CONFIG, check_answers=True, hop_check="drop", pooled_judging=8))
    assert checked[JUDGE].calls == pytest.approx(80 + 80 + 80 * 3 / 7 + 80 * 2)
    assert checked[EMBED].calls == 3  # 80 questions and 50 passages
    assert needs_of(replace(CONFIG, quality_judge="none"))[JUDGE].calls == 0
    small = needs_of(replace(CONFIG, qa_format="questions"))
    assert (small[ARTIFACTS].calls, small[QA].calls) == (0, 80)


def test_only_the_roles_of_the_run_are_estimated() -> None:
    assert set(estimate([SIZE], CONFIG, [QA], {})) == {QA}
    assert estimate([], CONFIG, [QA], {}) == {QA: Need()}


def test_tokens_grow_with_the_text_and_with_the_pairs() -> None:
    def of_one(size: WindowSize) -> dict[str, Need]:
        return estimate([size], CONFIG, ROLES, {})

    usual, longer = of_one(SIZE), of_one(replace(SIZE, characters=8000))
    for role in (ARTIFACTS, QA):
        assert longer[role].input_tokens - usual[role].input_tokens == 1000  # four characters a token
        assert longer[role].output_tokens == usual[role].output_tokens
    twice = of_one(replace(SIZE, num_pairs=16))
    assert twice[QA].output_tokens == 2 * usual[QA].output_tokens
    assert twice[JUDGE].tokens == 2 * usual[JUDGE].tokens
    assert needs_of(replace(CONFIG, max_tokens=100))[QA].output_tokens == 10 * 100


def test_what_the_journal_knows_of_a_role_counts_more_than_a_guess() -> None:
    needs = needs_of(**{JUDGE: (700.0, 90.0), EMBED: (1.0, 0.0)})
    assert (needs[JUDGE].input_tokens, needs[JUDGE].output_tokens) == (80 * 700, 80 * 90)
    assert needs[QA] == needs_of()[QA]
    assert needs[EMBED] == needs_of()[EMBED]  # its replies are vectors, several of one call


def test_lines_name_calls_tokens_and_money() -> None:
    needs = {QA: Need(10, 20_000, 30_000), EMBED: Need(2, 1500, 0)}
    assert described(needs, Prices({}, needs)) == [
        "qa_generation: about 10 calls, 20,000 tokens in, 30,000 out",
        "embed: about 2 calls, 1,500 tokens in, 0 out",
        "all: about 51,500 tokens; repairs and retries come on top, what the journal knows is not paid again",
    ]
    priced = described(needs, Prices({QA: {"input": 1, "output": 10}}, needs))
    assert priced[0].endswith("30,000 out, 0.32") and priced[1] == "embed: about 2 calls, 1,500 tokens in, 0 out"
    assert priced[2].startswith("all: about 51,500 tokens, 0.32 (no price: embed); repairs")


def test_a_budget_that_will_not_suffice_is_a_warning() -> None:
    needs = {QA: Need(10, 20_000, 30_000)}
    prices = Prices({"input": 1, "output": 10}, needs)
    assert warnings(needs, prices, replace(CONFIG, max_tokens_total=50_000, max_cost=1.0)) == []
    short = warnings(needs, prices, replace(CONFIG, max_tokens_total=49_999, max_cost=0.3))
    assert [line.partition(" ")[0] for line in short] == ["max_tokens_total=49,999", "max_cost=0.3"]
    assert "50,000 tokens" in short[0] and "0.32" in short[1]


def test_a_progress_line_says_what_this_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    usage = {QA: RoleUsage("p", "m", output_tokens=5000, calls_failed=7), EMBED: RoleUsage("p", "e")}
    meter = Meter(usage)
    assert meter.note() == ""
    now = 110.0
    usage[QA].output_tokens += 880
    assert meter.note() == "88 tokens/s"
    usage[QA].calls_failed, usage[QA].cost, usage[EMBED].cost = 10, 0.115, 0.005
    assert meter.note() == "88 tokens/s, 3 failed, 0.12 spent"


def test_money_is_written_for_people() -> None:
    assert [money(amount) for amount in (1234.5, 0.115, 0.01, 0.00123, 0.00001, 0.0)] == [
        "1,234.50", "0.12", "0.01", "0.0012", "0.000010", "0.00",
    ]  # fmt: skip
