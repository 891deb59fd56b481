"""Every way an endpoint misbehaves, through the whole stage: a retry that works, a counted rejection, or one error.

Whatever happens, all documents are in the output, and nothing waits longer than the time-out.
"""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.calls import channel, pacing

from pipeline.errors import PipelineError
from pipeline.records.sdg import read_records

Stage = Callable[..., Path]
Act = Callable[[socket.socket], None]
NAMES = {"alpha.md", "beta.md", "gamma.md"}
ROLES = ("artifact_extraction", "qa_generation", "embed", "quality_judge")
PLAIN = ("artifacts=false", "embed_model=null")
HANGS = 30
"""Seconds; far longer than the time-outs here, so that only they end a hang."""


def http(body: bytes = b"{}", status: str = "200 OK", more: str = "", length: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def says(answer: bytes) -> Act:
    return lambda connection: connection.sendall(answer)


def hangs(connection: socket.socket) -> None:
    threading.Event().wait(HANGS)


def half_an_answer(connection: socket.socket) -> None:
    """The head, then silence on an open connection."""
    connection.sendall(http(length=500))
    hangs(connection)


def half_closed(connection: socket.socket) -> None:
    """The head, then our half is closed; the other stays open."""
    connection.sendall(http(length=500))
    connection.shutdown(socket.SHUT_WR)
    hangs(connection)


def date(connection: socket.socket) -> None:
    when = format_datetime(datetime.now(UTC), usegmt=True)
    connection.sendall(http(status="429 Slow", more=f"Retry-After: {when}\r\n"))


BROKEN: dict[str, tuple[Act, str]] = {
    "429 with seconds": (says(http(status="429 Slow", more="Retry-After: 0.02\r\n")), "HTTP 429"),
    "429 with a date": (date, "HTTP 429"),
    "HTTP 500": (says(http(status="500 Oops")), "HTTP 500"),
    "HTTP 503": (says(http(status="503 Busy", more="Retry-After: 0\r\n")), "HTTP 503"),
    "silence": (hangs, "no answer within the timeout"),
    "half an answer": (half_an_answer, "no answer within the timeout"),
    "half closed": (half_closed, "the answer broke off"),
    "closed at once": (says(b""), "closed before an answer"),
    "no HTTP": (says(b"SSH-2.0-x\r\n\r\n"), "is no HTTP"),
    "a short body": (says(http(b'{"choices": [', length=400)), "the answer broke off"),
    "truncated JSON": (says(http(b'{"choices": [{"message": {"content": "o')), "not valid JSON"),
    "not UTF-8": (says(http(b'{"choices": "\xff\xfe"}')), "not valid JSON"),
    "a page of HTML": (says(http(b"<html>We are busy</html>")), "not valid JSON"),
    "no choices": (says(http(b'{"choices": [], "data": []}')), "no chat completion"),
}
LASTING = {name: value for name, value in BROKEN.items() if not name.startswith("429")}
"""Who is asked to wait waits, so a 429 that never ends is another matter."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BACKOFF", 0.01)


def patience(act: Act, seconds: float = 0.4) -> tuple[str, ...]:
    """A short time-out where one is waited for; a proper answer takes some milliseconds."""
    return (f"timeout={seconds}",) if act in (hangs, half_an_answer) else ()


def is_of(role: str, body: dict[str, Any]) -> bool:
    return body.get("response_format", {}).get("json_schema", {}).get("name", "embed") == role


def records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The pairs of each document."""
    return {record["file_name"][0]: record["deduplicated_qa_pairs"] for _, record in read_records(folder)}


def scores(folder: Path) -> dict[str, set[Any]]:
    return {
        record["file_name"][0]: {item["overall"]["score"] for item in record["qa_evaluations"]["evaluations"]}
        for _, record in read_records(folder)
    }


def rejected(folder: Path) -> list[tuple[str, str, str]]:
    """(document, role, reason)"""
    rows = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    return [(row["document"], row["role"], row["reason"]) for row in rows]


def usage(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "usage.json").read_text())["total"]


@pytest.mark.parametrize("act", [act for act, _ in BROKEN.values()], ids=BROKEN)
def test_what_goes_wrong_once_is_asked_for_again(stage: Stage, endpoint: Any, act: Act) -> None:
    """Of every role, every request fails twice. Of those that hang, one of each role: the test must not last."""
    tries: Counter[str] = Counter()
    slow = bool(patience(act))

    def first_tries(body: dict[str, Any], number: int) -> Act | None:
        what = "".join(role for role in ROLES if is_of(role, body)) if slow else json.dumps(body)
        tries[what] += 1
        return act if tries[what] <= (1 if slow else 2) else None

    endpoint.misbehave = first_tries
    folder = stage("max_retries=4", "max_parallel_requests_for_gen=8", *patience(act, 0.2))
    assert {name: len(pairs) for name, pairs in records(folder).items()} == dict.fromkeys(NAMES, 2)
    assert scores(folder) == {name: {8} for name in NAMES}
    assert rejected(folder) == []
    found = usage(folder)
    assert found["calls_failed"] == 0 and found["calls_made"] == 13
    # One of the two may have struck a kept connection: then the request goes out anew, and that is no retry.
    assert found["retries"] + found["rate_limited"] >= (len(ROLES) if slow else 13)


@pytest.mark.parametrize(("act", "reason"), LASTING.values(), ids=LASTING)
def test_one_document_whose_calls_always_fail_is_counted_and_the_others_are_whole(
    stage: Stage, endpoint: Any, act: Act, reason: str
) -> None:
    endpoint.misbehave = lambda body, number: act if "beta valve" in json.dumps(body) else None
    folder = stage(*PLAIN, "max_retries=0", *patience(act))
    assert {name: len(pairs) for name, pairs in records(folder).items()} == {**dict.fromkeys(NAMES, 2), "beta.md": 0}
    [(document, role, said), *more] = rejected(folder)
    assert (document, role, more) == ("beta.md", "qa_generation", []) and reason in said
    assert usage(folder)["calls_failed"] == 2  # windows without an answer get a second try


@pytest.mark.parametrize("name", ["HTTP 500", "half closed", "truncated JSON", "no choices"])
def test_pairs_that_cannot_be_judged_are_kept_without_a_score(stage: Stage, endpoint: Any, name: str) -> None:
    act, reason = BROKEN[name]
    endpoint.misbehave = lambda body, number: (
        act if is_of("quality_judge", body) and "beta valve" in json.dumps(body) else None
    )
    folder = stage(*PLAIN, "max_retries=0")
    assert {name: len(pairs) for name, pairs in records(folder).items()} == dict.fromkeys(NAMES, 2)
    assert scores(folder) == {"alpha.md": {8}, "beta.md": {None}, "gamma.md": {8}}
    assert [(document, role) for document, role, _ in rejected(folder)] == [("beta.md", "quality_judge")] * 2
    assert all(reason in said for _, _, said in rejected(folder))


@pytest.mark.parametrize("name", ["HTTP 500", "silence", "a short body", "not UTF-8", "no choices"])
def test_vectors_that_never_come_are_one_clear_error(stage: Stage, endpoint: Any, tmp_path: Path, name: str) -> None:
    act, _ = BROKEN[name]
    endpoint.misbehave = lambda body, number: act if is_of("embed", body) else None
    with pytest.raises(PipelineError, match=r"^embed at http") as caught:
        stage("max_retries=0", *patience(act))
    assert "embed_model=null" in (caught.value.fix or "")
    assert not list(tmp_path.rglob("generated*"))
    endpoint.misbehave = lambda body, number: None
    assert set(records(stage())) == NAMES
    assert set(endpoint.answered.values()) == {1}  # nothing was asked twice


def test_a_rate_limit_that_never_ends_is_one_clear_error(
    stage: Stage, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PATIENCE", 0.1)
    act, _ = BROKEN["429 with seconds"]
    endpoint.misbehave = lambda body, number: act
    with pytest.raises(PipelineError, match="has no room for us"):
        stage(*PLAIN)


@pytest.mark.parametrize("name", ["HTTP 500", "closed at once", "a page of HTML"])
def test_an_endpoint_that_only_fails_is_given_up_early(stage: Stage, endpoint: Any, corpus: Path, name: str) -> None:
    for number in range(20):
        (corpus / f"more{number}.md").write_text(f"The pump number {number} opens at {number + 2} bar, never before.")
    act, reason = BROKEN[name]
    endpoint.misbehave = lambda body, number: act
    with pytest.raises(PipelineError, match=rf"\d+ calls in a row failed.*{reason}"):
        stage(*PLAIN, "max_retries=0", "max_parallel_requests_for_gen=2", "min_text_length=0")
    assert endpoint.calls.total() <= 12


def pairs_of(endpoint: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    return json.loads(endpoint.content("qa_generation", body))["pairs"]


def of(pairs: list[dict[str, Any]]) -> str:
    return json.dumps({"pairs": pairs})


# What is made of proper pairs (text, finish_reason), and how many pairs can be used.
WRONG: dict[str, tuple[Callable[[list[dict[str, Any]]], tuple[str | None, str]], int]] = {
    "cut off": (lambda pairs: (of(pairs)[: len(of(pairs)) * 2 // 3], "length"), 1),
    "cut off at once": (lambda pairs: ('{"pairs": [{"ques', "length"), 0),
    "fewer than asked for": (lambda pairs: (of(pairs[:1]), "stop"), 1),
    "more than asked for": (lambda pairs: (of([*pairs, {**pairs[0], "question": "What else opens?"}]), "stop"), 2),
    "invented segments": (lambda pairs: (of([{**pair, "segment_ids": [99]} for pair in pairs]), "stop"), 0),
    "one invented segment": (lambda pairs: (of([pairs[0], {**pairs[1], "segment_ids": [0, 7]}]), "stop"), 1),
    "segments by name": (lambda pairs: (of([{**pair, "segment_ids": "all"} for pair in pairs]), "stop"), 0),
    "no JSON": (lambda pairs: ("I would rather not.", "stop"), 0),
    "no text": (lambda pairs: (None, "stop"), 0),
}


@pytest.mark.parametrize(("wrong", "left"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_mended_in_a_repair_turn(stage: Stage, endpoint: Any, wrong: Any, left: int) -> None:
    def first_answers(body: dict[str, Any], number: int) -> Any:
        if is_of("qa_generation", body) and len(body["messages"]) == 1:
            return 200, {}, endpoint.chat(*wrong(pairs_of(endpoint, body)))
        return None

    endpoint.misbehave = first_answers
    folder = stage(*PLAIN)
    assert {name: len(pairs) for name, pairs in records(folder).items()} == dict.fromkeys(NAMES, 2)
    assert {reason for _, _, reason in rejected(folder)} == (set() if left < 2 else {"more than were asked for"})
    assert usage(folder)["repair_turns"] == (3 if left < 2 else 0)


@pytest.mark.parametrize(("wrong", "left"), WRONG.values(), ids=WRONG)
def test_an_answer_that_stays_wrong_leaves_its_good_part(stage: Stage, endpoint: Any, wrong: Any, left: int) -> None:
    def always(body: dict[str, Any], number: int) -> Any:
        if is_of("qa_generation", body) and "beta valve" in json.dumps(body):
            return 200, {}, endpoint.chat(*wrong(pairs_of(endpoint, body)))
        return None

    endpoint.misbehave = always
    folder = stage(*PLAIN)
    expected = {**dict.fromkeys(NAMES, 2), "beta.md": left}
    assert {name: len(pairs) for name, pairs in records(folder).items()} == expected
    for pairs in records(folder).values():
        assert all(set(pair["segment_ids"]) <= {1, 2} for pair in pairs)
    assert {document for document, _, _ in rejected(folder)} == {"beta.md"}
