"""The engine against a real HTTP server that misbehaves on purpose."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_sdg.calls.breaker import FAILURES_IN_A_ROW
from pipeline_sdg.endpoints import EMBED, QA, Endpoint
from pipeline_sdg.exchange import Exchange, Fault, Outcome, ask
from pipeline_sdg.generation import each
from pipeline_sdg.journal import Journal
from pipeline_sdg.llm import Caller, CallFailed, Sampling
from pipeline_sdg.parsing import parse_object

from pipeline.errors import PipelineError

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string", "maxLength": 9}}, "required": ["ok"]}


def messages(text: str = "hello") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Bench:
    """A caller on the fake endpoint with a journal that outlives it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.retries, self.timeout, self.provider, self.key = 2, 5.0, "mine", "none"

    def run(self, work: Callable[[Caller], Any]) -> Any:
        async def inside() -> Any:
            served = [Endpoint(role, self.provider, "m", self.url, self.key, "MY_KEY") for role in (QA, EMBED)]
            with Journal(self.folder / "journal.sqlite") as journal:
                async with Caller(served, journal, Sampling(seed=1), self.timeout, self.retries) as caller:
                    return await work(caller), caller.usage[QA]

        return asyncio.run(inside())


@pytest.fixture
def bench(tmp_path: Path, endpoint: Any) -> Bench:
    endpoint.content = lambda role, body: '{"ok": "yes"}'
    return Bench(tmp_path, endpoint.url)


def test_an_answer_is_paid_for_once_even_by_another_process(bench: Bench, endpoint: Any) -> None:
    for expected in ((1, 0, 10), (0, 1, 0)):
        reply, usage = bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))
        assert reply.text == '{"ok": "yes"}'
        assert (usage.calls_made, usage.calls_reused, usage.input_tokens) == expected
    assert endpoint.calls.total() == 1
    sent = endpoint.requests[0]
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.6, 0.95, 1)


def test_the_same_request_at_the_same_time_is_made_once(bench: Bench, endpoint: Any) -> None:
    endpoint.delay = 0.1

    async def twice(caller: Caller) -> list[Any]:
        return await asyncio.gather(*(caller.chat(QA, messages(), SCHEMA) for _ in range(4)))

    _, usage = bench.run(twice)
    assert endpoint.calls.total() == 1
    assert (usage.calls_made, usage.calls_reused) == (1, 3)


def test_rate_limits_and_server_errors_are_waited_out(bench: Bench, endpoint: Any) -> None:
    answers = {1: (429, {"Retry-After": "0.3"}, "{}"), 2: (500, {"Retry-After-Ms": "10"}, "{}")}
    endpoint.misbehave = lambda body, number: answers.get(number)
    begun = time.monotonic()
    reply, _ = bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))
    assert reply.text == '{"ok": "yes"}'
    assert endpoint.calls.total() == 3
    assert time.monotonic() - begun >= 0.3  # Retry-After was honoured; a lower bound cannot be missed on a slow machine


def test_an_endpoint_without_response_format_gets_the_schema_in_the_prompt_once(bench: Bench, endpoint: Any) -> None:
    endpoint.misbehave = lambda body, number: (400, {}, '{"error": "no"}') if "response_format" in body else None
    endpoint.content = lambda role, body: 'Sure:\n```json\n{"ok": "yes"}\n```'

    async def several(caller: Caller) -> list[Any]:
        return await asyncio.gather(*(caller.chat(QA, messages(str(number)), SCHEMA) for number in range(5)))

    replies, usage = bench.run(several)
    assert [parse_object(reply.text) for reply in replies] == [{"ok": "yes"}] * 5
    assert endpoint.calls.total() == 7  # schema and JSON mode refused, five answers
    assert usage.calls_made == 5
    assert "JSON Schema" in endpoint.requests[-1]["messages"][-1]["content"]
    bench.run(several)
    assert endpoint.calls.total() == 7  # the same journal entries serve both forms


def test_openai_gets_a_schema_its_strict_mode_takes(bench: Bench, endpoint: Any) -> None:
    bench.provider = "openai"
    bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))
    assert "maxLength" not in json.dumps(endpoint.requests[0]["response_format"])


@pytest.mark.parametrize(
    ("status", "text"), [(401, "refused the API key from MY_KEY"), (403, "refused the API key"), (404, "no such model")]
)
def test_an_endpoint_that_refuses_everything_stops_at_once(bench: Bench, endpoint: Any, status: int, text: str) -> None:
    bench.key = "top-secret"
    endpoint.misbehave = lambda body, number: (status, {}, '{"error": {"message": "key top-secret is bad"}}')
    with pytest.raises(PipelineError, match=text) as caught:
        bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))
    assert endpoint.calls.total() == 1
    assert "top-secret" not in str(caught.value)
    assert b"top-secret" not in (bench.folder / "journal.sqlite").read_bytes()


def test_nobody_listening_is_said_plainly(bench: Bench) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bench.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    bench.retries = 0
    with pytest.raises(PipelineError, match=r"cannot reach http://127\.0\.0\.1"):
        bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))


def test_a_slow_answer_fails_its_call_alone(bench: Bench, endpoint: Any) -> None:
    bench.retries, bench.timeout, endpoint.delay = 0, 0.2, 1.0
    with pytest.raises(CallFailed, match="timeout"):
        bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))


@pytest.mark.parametrize("body", ["not json at all", '{"choices": []}', "[]", '{"choices": null}'])
def test_an_answer_that_is_no_completion_fails_its_call_alone(bench: Bench, endpoint: Any, body: str) -> None:
    bench.retries = 0
    endpoint.misbehave = lambda request, number: (200, {}, body)
    with pytest.raises(CallFailed):
        bench.run(lambda caller: caller.chat(QA, messages(), SCHEMA))


def test_many_failures_in_a_row_end_the_run(bench: Bench, endpoint: Any) -> None:
    bench.retries = 0
    endpoint.misbehave = lambda body, number: (500, {}, "{}")

    async def many(caller: Caller) -> None:
        async def work(number: int) -> None:
            await ask(caller, Exchange(QA, messages(str(number)), SCHEMA, lambda _: ([], []), 1), repair=True)

        await each(range(100), work, 2)

    with pytest.raises(PipelineError, match=f"{FAILURES_IN_A_ROW} calls in a row failed"):
        bench.run(many)
    assert endpoint.calls.total() <= FAILURES_IN_A_ROW + 2


def test_after_an_error_calls_under_way_still_reach_the_journal(bench: Bench, endpoint: Any) -> None:
    endpoint.misbehave = lambda body, number: (404, {}, "{}") if "bad" in body["messages"][0]["content"] else None

    async def mixed(caller: Caller) -> None:
        await caller.chat(QA, messages("first"), SCHEMA)
        endpoint.delay = 0.2
        await each(["good", "bad", "later"], lambda text: _chat(caller, text), 2)

    async def _chat(caller: Caller, text: str) -> None:
        await caller.chat(QA, messages(text), SCHEMA)

    with pytest.raises(PipelineError, match="no such model"):
        bench.run(mixed)
    with Journal(bench.folder / "journal.sqlite") as journal:
        assert len(journal) == 2  # first and good; nothing began after the error
    assert endpoint.calls.total() == 3


def check(reply: str) -> tuple[list[str], list[Fault]]:
    items = (parse_object(reply) or {}).get("items", [])
    good = [item for item in items if item != "bad"]
    return good, [Fault("an item is bad", item) for item in items if item == "bad"] or (
        [] if items else [Fault("none")]
    )


def repaired(bench: Bench, endpoint: Any, *replies: tuple[str, str], repair: bool = True) -> tuple[Outcome, Any]:
    waiting = list(replies)
    endpoint.misbehave = lambda body, number: (200, {}, endpoint.chat(*waiting.pop(0)))
    exchange = Exchange(QA, messages(), SCHEMA, check, wanted=3)
    return bench.run(lambda caller: ask(caller, exchange, repair))


def test_one_repair_turn_says_what_was_wrong_and_nothing_good_is_lost(bench: Bench, endpoint: Any) -> None:
    outcome, usage = repaired(
        bench, endpoint, ('{"items": ["a", "bad", "b"]}', "stop"), ('{"items": ["b", "c", "bad"]}', "stop")
    )
    assert outcome.good == ["b", "c", "a"]
    assert [fault.item for fault in outcome.faults] == ["bad"]
    assert usage.repair_turns == 1 and usage.calls_made == 2
    turn = endpoint.requests[1]["messages"]
    assert [message["role"] for message in turn] == ["user", "assistant", "user"]
    assert "an item is bad" in turn[2]["content"]
    _, usage = repaired(bench, endpoint)
    assert (usage.calls_made, usage.calls_reused) == (0, 2)  # the repair turn is in the journal too


def test_broken_json_and_cut_answers_are_repaired_too(bench: Bench, endpoint: Any) -> None:
    outcome, _ = repaired(bench, endpoint, ('{"items": ["a', "length"), ('{"items": ["a", "b", "c"]}', "stop"))
    assert outcome.good == ["a", "b", "c"]
    assert "cut off" in endpoint.requests[1]["messages"][2]["content"]


def test_no_second_repair_and_none_at_all_when_switched_off(bench: Bench, endpoint: Any) -> None:
    outcome, _ = repaired(bench, endpoint, ('{"items": ["bad"]}', "stop"), ("{}", "stop"))
    assert outcome.good == [] and endpoint.calls.total() == 2
    assert outcome.reply is not None and outcome.reply.text == "{}"
    bench.folder = bench.folder / "other"
    outcome, _ = repaired(bench, endpoint, ('{"items": ["a", "bad"]}', "stop"), repair=False)
    assert outcome.good == ["a"] and endpoint.calls.total() == 3


def test_vectors_are_asked_for_in_batches_and_kept(bench: Bench, endpoint: Any) -> None:
    texts = [f"question {number}" for number in range(70)]
    first, _ = bench.run(lambda caller: caller.embed(EMBED, [*texts, texts[0]]))
    assert endpoint.calls["embed"] == 2
    assert first.shape == (71, 32) and first.dtype == np.float32
    np.testing.assert_array_equal(first[0], first[70])
    again, _ = bench.run(lambda caller: caller.embed(EMBED, [*texts[:5], "new"]))
    assert endpoint.calls["embed"] == 3
    assert endpoint.requests[-1]["input"] == ["new"]
    np.testing.assert_array_equal(again[:5], first[:5])


@pytest.mark.parametrize(
    "data",
    [[], None, [{"index": 0}], [{"index": 0, "embedding": [1, "x"]}], [{"index": 0, "embedding": [float("nan")]}]],
)
def test_what_is_no_vector_is_never_kept(bench: Bench, endpoint: Any, data: Any) -> None:
    bench.retries = 0
    endpoint.misbehave = lambda body, number: (200, {}, json.dumps({"data": data}))
    with pytest.raises(PipelineError, match="embed_model=null"):
        bench.run(lambda caller: caller.embed(EMBED, ["a"]))
    with Journal(bench.folder / "journal.sqlite") as journal:
        assert len(journal) == 0


def test_vectors_that_came_are_kept_when_others_fail(bench: Bench, endpoint: Any) -> None:
    bench.retries = 0
    endpoint.misbehave = lambda body, number: (500, {}, "{}") if "question 69" in body["input"] else None
    texts = [f"question {number}" for number in range(70)]
    with pytest.raises(PipelineError, match="HTTP 500"):
        bench.run(lambda caller: caller.embed(EMBED, texts))
    endpoint.misbehave = lambda body, number: None
    vectors, _ = bench.run(lambda caller: caller.embed(EMBED, texts))
    assert len(vectors) == 70 and len(endpoint.requests[-1]["input"]) == 6


def test_vectors_stand_in_the_order_of_the_texts(bench: Bench, endpoint: Any) -> None:
    rows = [{"index": 1, "embedding": [1.0, 1.0]}, {"index": 0, "embedding": [0.0, 1.0]}]
    endpoint.misbehave = lambda body, number: (200, {}, json.dumps({"data": rows}))
    vectors, _ = bench.run(lambda caller: caller.embed(EMBED, ["a", "b"]))
    np.testing.assert_array_equal(vectors, [[0, 1], [1, 1]])


def test_an_endpoint_that_gave_vectors_once_is_tried_again_when_it_is_away(bench: Bench, endpoint: Any) -> None:
    bench.retries = 1
    endpoint.misbehave = lambda body, number: (200, {"Connection": "close"}, json.dumps(_one_vector()))

    async def work(caller: Caller) -> int:
        await caller.embed(EMBED, ["a"])
        endpoint.close()
        with pytest.raises(PipelineError, match="embed_model=null"):
            await caller.embed(EMBED, ["b"])
        return caller.usage[EMBED].retries

    assert bench.run(work)[0] == 1


def _one_vector() -> dict[str, Any]:
    return {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}
