"""Budgets, prices, what leaves the machine, and what must never be written."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.calls.redaction import Redactor
from pipeline_sdg.calls.usage import Budget, BudgetReached, Prices
from pipeline_sdg.endpoints import DUMMY_KEY, EMBED, QA, Endpoint, endpoint
from pipeline_sdg.generation import each
from pipeline_sdg.llm import Caller, CallFailed, CallOptions

from pipeline.errors import PipelineError

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string"}}}
CANARY = "canary-key-0123456789"


def ask(caller: Any, text: str = "hello") -> Any:
    return caller.chat(QA, [{"role": "user", "content": text}], SCHEMA)


async def ask_many(caller: Any, number: int = 50) -> None:
    await each(range(number), lambda item: ask(caller, f"{item} " + "x" * 400), 3)


@pytest.mark.parametrize(
    "options", [CallOptions(max_tokens_total=1000), CallOptions(max_cost=0.001, prices={"input": 1.0, "output": 1.0})]
)
def test_a_budget_ends_the_run_cleanly_and_a_larger_one_goes_on(
    calling: Any, endpoint: Any, options: CallOptions
) -> None:
    with pytest.raises(BudgetReached, match="is reached") as caught:
        calling(ask_many, endpoint.url, options)
    paid = endpoint.calls.total()
    assert paid >= 1 and 15 * paid <= 1000
    assert "saved" in (caught.value.fix or "")
    with pytest.raises(BudgetReached):
        calling(ask_many, endpoint.url, CallOptions(max_tokens_total=15 * paid))  # what is in the journal counts
    assert endpoint.calls.total() == paid
    calling(ask_many, endpoint.url)
    assert endpoint.calls.total() == 50


def test_money_is_counted_by_role(calling: Any, endpoint: Any) -> None:
    async def work(caller: Caller) -> Any:
        await ask(caller)
        await caller.embed(EMBED, ["a", "b"])
        return caller.usage

    prices = {QA: {"input": 1.0, "output": 100.0}}
    usage = calling(work, endpoint.url, CallOptions(prices=prices))
    assert usage[QA].cost == pytest.approx((10 * 1 + 5 * 100) / 1e6)
    assert usage[EMBED].cost is None
    usage = calling(work, endpoint.url, CallOptions(prices={"input": 1.0}))
    assert (usage[QA].cost, usage[EMBED].cost) == (None, None)  # all from the journal: nothing paid


def test_prices_and_budgets_that_make_no_sense_are_refused() -> None:
    for wrong in ({"input": "much"}, {"input": -1}, {"input": True}, {QA: 3}, {QA: {"in": 1}}):
        with pytest.raises(PipelineError, match=r"expected \{input, output\}"):
            Prices(wrong, [QA])
    with pytest.raises(PipelineError, match="writer is no role"):
        Prices({"writer": {"input": 1}}, [QA])
    with pytest.raises(PipelineError, match="needs prices for embed"):
        Budget(Prices({QA: {"input": 1}}, [QA, EMBED]), {}, [QA, EMBED], max_cost=1.0)


def test_calls_under_way_are_part_of_the_budget() -> None:
    budget = Budget(Prices({}, [QA]), {QA: (100, 100)}, [QA], max_tokens_total=2200)
    first = budget.reserve(QA, 300, None)
    budget.reserve(QA, 300, None)
    with pytest.raises(BudgetReached):
        budget.reserve(QA, 300, None)
    budget.settle(QA, first, (300, 20))
    budget.reserve(QA, 300, None)
    assert budget.tokens == 200 + 320 + 800 + 800


def test_tokens_nobody_reported_are_estimated(calling: Any, endpoint: Any) -> None:
    body = {"choices": [{"message": {"content": "y" * 40}, "finish_reason": "stop"}]}
    endpoint.misbehave = lambda request, number: (200, {}, json.dumps(body))
    reply = calling(lambda caller: ask(caller, "x" * 80), endpoint.url)
    assert (reply.input_tokens, reply.output_tokens) == (20, 10)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("write to jo.doe+x@mail.example.org now", "write to [email] now"),
        ("call +49 30 1234 5678 or (030) 123-4567", "call [phone] or [phone]"),
        ("on 2024-05-01, 01.05.2024, at 192.168.10.11, 1234567 units", None),
        ("key sk-abcdefghijklmnop1234 and nvapi-ABCDEFGHIJKLMNOPQRST", "key [key] and [key]"),
        ("order AB-123 of 3.5 bar", "order [redacted] of 3.5 bar"),
    ],
)
def test_what_is_redacted(text: str, cleaned: str | None) -> None:
    redactor = Redactor(["email", "phone", "key", r"regex:AB-\d+"])
    assert redactor(text)[0] == (cleaned or text)


def test_unknown_patterns_are_refused() -> None:
    for wrong, said in (("iban", "is unknown"), ("regex:(", "no regular expression")):
        with pytest.raises(PipelineError, match=said):
            Redactor([wrong])


def test_texts_are_redacted_for_other_machines_only(
    calling: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(caller: Caller) -> Any:
        await ask(caller, "of a@b.example and c@d.example")
        await caller.embed(EMBED, ["of e@f.example"])
        return caller.usage

    options = CallOptions(redact=("email",))
    usage = calling(work, endpoint.url, options)
    assert "a@b.example" in json.dumps(endpoint.requests) and usage[QA].redacted == 0
    monkeypatch.setattr(Endpoint, "is_local", False)
    endpoint.requests.clear()
    usage = calling(work, endpoint.url, options)
    assert "@" not in json.dumps(endpoint.requests) and "[email]" in json.dumps(endpoint.requests)
    assert (usage[QA].redacted, usage[EMBED].redacted) == (2, 1)


def test_the_form_an_endpoint_takes_is_found_out_once(calling: Any, endpoint: Any) -> None:
    endpoint.content = lambda role, body: "{}"
    endpoint.misbehave = lambda body, number: (
        (422, {}, "no schema") if body.get("response_format", {}).get("type") == "json_schema" else None
    )

    async def work(caller: Any) -> None:
        await each(range(5), lambda item: ask(caller, str(item)), 5)

    calling(work, endpoint.url)
    forms = [body["response_format"]["type"] for body in endpoint.requests]
    assert sorted(forms) == ["json_object"] * 5 + ["json_schema"]
    assert all("JSON Schema" in body["messages"][-1]["content"] for body in endpoint.requests[1:])


def test_a_request_nobody_takes_teaches_nothing(calling: Any, endpoint: Any) -> None:
    endpoint.content = lambda role, body: "{}"
    endpoint.misbehave = lambda body, number: (400, {}, "too long") if "LONG" in json.dumps(body) else None

    async def work(caller: Any) -> None:
        with pytest.raises(CallFailed, match="too long"):
            await ask(caller, "LONG")
        await ask(caller, "short")

    calling(work, endpoint.url)
    assert endpoint.requests[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    "wrong",
    [
        (401, {}, f"bad key {CANARY}"),
        (500, {}, f"bad key {CANARY}"),
        (400, {}, CANARY),
        (302, {"Location": "https://x.example"}, CANARY),
        (200, {}, f'{{"choices": [{{"message": {{"content": "you sent {CANARY}"}}}}]}}'),
    ],
)
def test_a_key_that_a_server_repeats_is_written_nowhere(
    calling: Any, endpoint: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: tuple[int, dict, str]
) -> None:
    endpoint.misbehave = lambda body, number: wrong
    said = ""
    with caplog.at_level(logging.DEBUG):
        try:
            said = calling(ask, endpoint.url, max_retries=0, key=CANARY, key_env="MY_KEY").text
        except (PipelineError, CallFailed) as error:
            said = str(error)
    assert endpoint.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert said and CANARY not in said + caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def test_a_word_that_stands_for_a_key_is_no_secret(calling: Any, endpoint: Any) -> None:
    endpoint.content = lambda role, body: "an EMPTY answer"
    assert calling(ask, endpoint.url, key="EMPTY").text == "an EMPTY answer"


@pytest.mark.parametrize(
    ("provider", "address", "key_env"),
    [
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("vllm", "http://localhost:8000/v1", None),
        ("ollama", "http://localhost:11434/v1", None),
    ],
)
def test_known_providers(provider: str, address: str, key_env: str | None) -> None:
    found = endpoint(QA, provider, "m", None, None, {"OPENROUTER_API_KEY": "k"})
    assert (found.base_url, found.key_env) == (address, key_env)
    assert found.key == ("k" if key_env else DUMMY_KEY)
    assert endpoint(QA, provider, "m", "http://gpu.lan:1/v1", None, {}).key == DUMMY_KEY
