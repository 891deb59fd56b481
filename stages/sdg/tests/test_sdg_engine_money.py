"""Budgets, prices, what leaves the machine, and what must never be written."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.calls.budget import Budget
from pipeline_sdg.calls.redaction import Redactor
from pipeline_sdg.calls.usage import Prices, usage_report
from pipeline_sdg.endpoints import DUMMY_KEY, EMBED, JUDGE, QA, Endpoint, endpoint
from pipeline_sdg.generation import each
from pipeline_sdg.llm import Caller, CallFailed, CallOptions

from pipeline.errors import PipelineError

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string"}}}
CANARY = "canary-key-0123456789"


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask(caller: Any, text: str = "hello") -> Any:
    return caller.chat(QA, messages(text), SCHEMA)


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


def test_the_report_has_the_cost_of_all_and_says_whether_the_run_came_to_its_end(calling: Any, endpoint: Any) -> None:
    async def work(caller: Caller) -> Any:
        await ask(caller)
        await caller.embed(EMBED, ["a", "b"])
        return caller.usage

    found = usage_report(calling(work, endpoint.url, CallOptions(prices={"input": 1.0, "output": 100.0})), True)
    assert found["complete"] is True and set(found["roles"]) == {QA, JUDGE, EMBED}
    assert found["total"]["cost"] == pytest.approx((10 + 5 * 100 + 3) / 1e6)
    assert found["roles"][JUDGE]["cost"] is None and found["total"]["calls_made"] == 2
    found = usage_report(calling(work, endpoint.url), False)
    assert found["complete"] is False and found["total"]["cost"] is None and found["total"]["calls_reused"] == 2


def test_vectors_asked_for_one_by_one_count_as_the_calls_they_fill(calling: Any, endpoint: Any) -> None:
    texts = [f"question {number}" for number in range(70)]

    async def work(caller: Caller) -> Any:
        await caller.embed(EMBED, texts)
        for text in texts:
            await caller.embed(EMBED, [text])
        return caller.usage[EMBED]

    usage = calling(work, endpoint.url)
    assert (usage.calls_made, usage.vectors_reused, usage.calls_reused) == (2, 70, 2)
    usage = calling(work, endpoint.url)
    assert (usage.calls_made, usage.vectors_reused, usage.calls_reused) == (0, 140, 3)
    assert endpoint.calls == {"embed": 2}


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


def test_a_caller_knows_what_an_earlier_run_was_told(
    calling: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endpoint, "is_local", False)
    options = CallOptions(redact=("email",))

    async def first(caller: Caller) -> list[bool]:
        await ask(caller, "of a@b.example")
        return [caller.knows(QA, messages("of a@b.example"), SCHEMA)]

    async def later(caller: Caller) -> list[bool]:
        said = messages("of a@b.example")
        return [
            caller.knows(QA, said, SCHEMA),
            caller.knows(QA, messages("of other@b.example"), SCHEMA),  # the same when it leaves
            caller.knows(QA, said, SCHEMA, max_tokens=9),
            caller.knows(JUDGE, said, SCHEMA),
            caller.knows(QA, messages("of nobody"), SCHEMA),
        ]

    assert calling(first, endpoint.url, options) == [False]  # the journal was empty when that run began
    assert calling(later, endpoint.url, options) == [True, True, False, False, False]
    assert endpoint.calls.total() == 1


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


def test_a_later_run_begins_with_the_form_that_was_taken(calling: Any, endpoint: Any) -> None:
    refused = {"json_schema", "json_object"}
    endpoint.content = lambda role, body: "{}"
    endpoint.misbehave = lambda body, number: (
        (400, {}, "no") if body.get("response_format", {}).get("type") in refused else None
    )

    def forms(text: str) -> list[str | None]:
        endpoint.requests.clear()
        calling(lambda caller: ask(caller, text), endpoint.url)
        return [body.get("response_format", {}).get("type") for body in endpoint.requests]

    assert forms("a") == ["json_schema", "json_object", None]
    assert forms("b") == [None]
    refused.clear()
    assert forms("c") == [None]  # it could take more by now: no harm
    endpoint.misbehave = lambda body, number: None if "response_format" in body else (400, {}, "say which form")
    assert forms("d") == [None, "json_schema"]
    assert forms("e") == ["json_schema"]


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
