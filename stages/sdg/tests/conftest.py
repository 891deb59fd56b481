"""A real HTTP server that plays an OpenAI-compatible endpoint: it counts calls and misbehaves when told to."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.endpoints import EMBED, JUDGE, QA, Endpoint
from pipeline_sdg.journal import Journal
from pipeline_sdg.llm import Caller, CallOptions, Sampling
from pipeline_sdg.main import main

from pipeline.config import resolve
from pipeline.run.stage import execute

Misbehaviour = Callable[[dict[str, Any], int], tuple[int, dict[str, str], str] | Callable[[Any], None] | None]
"""(request body, number of this call from 1) -> (status, headers, body), or what is done with the socket instead of
an answer (it is closed then), or None to answer properly."""


class FakeEndpoint:
    """Answers by role. `calls` counts requests by role; `answered` counts answers by prompt."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay = 0.0
        self.misbehave: Misbehaviour = lambda body, number: None
        self.score: Any = 8
        self.supported = True
        self.hops_needed: list[int] = []
        self.grade = 0
        self.pairs = 2
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = fake.handle(self.path, body, {name.lower(): value for name, value in self.headers.items()})
                if callable(answer):
                    answer(self.connection)
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                payload = text.encode()
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def chat(content: str, finish: str = "stop") -> str:
        return chat(content, finish)

    @staticmethod
    def role_of(path: str, body: dict[str, Any]) -> str:
        return role_of(path, body)

    @staticmethod
    def pair(segment: int, text: str) -> dict[str, Any]:
        return pair(segment, text)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
        """(status, headers, body), or what is done with the socket."""
        role = role_of(path, body)
        with self._lock:
            self.calls[role] += 1
            number = sum(self.calls.values())
            self.requests.append(body)
            self.headers.append(headers)
        time.sleep(self.delay)
        wrong = self.misbehave(body, number)
        if wrong:
            return wrong
        with self._lock:
            self.answered[json.dumps(body.get("messages") or body.get("input"))] += 1
        if role == "embed":
            return 200, {}, json.dumps(embeddings(body["input"]))
        return 200, {}, chat(self.content(role, body))

    def content(self, role: str, body: dict[str, Any]) -> str:
        prompt = body["messages"][0]["content"]
        if role == "artifact_extraction":
            names = (
                "key_concepts",
                "relationships",
                "themes",
                "entities",
                "processes",
                "insights",
                "technical_terms",
                "contextual_factors",
            )
            item = {"text": "valve", "description": "It closes.", "importance": "Safety."}
            return json.dumps({name: [item] if name == "entities" else [] for name in names})
        if role == "quality_judge":
            return json.dumps(self.judgement(prompt))
        segments = re.findall(r"- Segment (\d+): (.+)", prompt)
        types = cycle(re.findall(r"^\d+\. (\w+), (\w+)", prompt, re.MULTILINE))
        asked = zip(segments[: self.pairs], types, strict=False)
        return json.dumps({"pairs": [typed(pair(int(number), text), *kinds) for (number, text), kinds in asked]})

    def judgement(self, prompt: str) -> dict[str, Any]:
        """What the judge answers: scores, or a verdict on the answer, the hops, the passages."""
        if "WRITTEN ANSWER" in prompt:
            [(_, first), *_] = re.findall(r"^\[(\d+)\] (.+)", prompt, re.MULTILINE)
            return {"evidence": [first], "answer": first, "answerable": True, "supported": self.supported}
        if "hops_needed" in prompt:
            numbers = [int(number) for number in re.findall(r"^HOP (\d+)$", prompt, re.MULTILINE)]
            each = [{"hop_number": number, "adds": "a fact"} for number in numbers]
            return {"hops": each, "hops_needed": self.hops_needed or numbers, "reason": "because"}
        if "and a grade:" in prompt:
            numbers = [int(number) for number in re.findall(r"^\[(\d+)\] ", prompt, re.MULTILINE)]
            return {"passages": [{"number": number, "reason": "r", "grade": self.grade} for number in numbers]}
        part = {"score": self.score, "justification": "because"}
        scores = dict.fromkeys(("relevance", "accuracy", "context_support", "clarity"), part)
        return {**scores, "overall": {"score": self.score, "assessment": "fine"}, "improvements": ""}


def typed(made: dict[str, Any], query_type: str, reasoning_type: str) -> dict[str, Any]:
    """The pair as a line of the prompt's list wants it; a multi-hop pair has one hop."""
    hop = {"hop_number": 1, "segment_ids": made["segment_ids"], "summary": "what it says"}
    hops = [hop] if query_type == "multi_hop" else []
    return {**made, "query_type": query_type, "reasoning_type": reasoning_type, "hop_contexts": hops}


def pair(segment: int, text: str) -> dict[str, Any]:
    """A proper pair about a segment, its words unlike those of other segments."""
    digest = hashlib.sha256(text.encode()).digest()[:8]
    mark = "".join(chr(ord("a") + byte % 26) for byte in digest)  # a word: a code would have to stand in the source
    return {
        "question": f"Which limit holds for unit {mark} when pressure of {mark[::-1]} rises?",
        "answer": "Three bar.",
        "question_complexity": 3,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [segment],
        "hop_count": 1,
        "hop_contexts": [],
    }


def chat(content: str, finish: str = "stop") -> str:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


def embeddings(texts: list[str]) -> dict[str, Any]:
    data = []
    for index, text in enumerate(texts):
        digest = hashlib.sha256(text.encode()).digest()
        data.append({"object": "embedding", "index": index, "embedding": [byte - 127.5 for byte in digest]})
    return {"object": "list", "model": "e", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def role_of(path: str, body: dict[str, Any]) -> str:
    if path.endswith("/embeddings"):
        return "embed"
    if "json_schema" in body.get("response_format", {}):
        return body["response_format"]["json_schema"]["name"]
    prompt = body["messages"][0]["content"]
    return "quality_judge" if "You judge" in prompt else "qa_generation" if "pairs" in prompt else "artifact_extraction"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    fake = FakeEndpoint()
    yield fake
    fake.close()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three small documents with six sentences each: two passages of five and one."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("alpha", "beta", "gamma"):
        lines = [f"The {name} valve number {number} opens at {number + 2} bar." for number in range(6)]
        (folder / f"{name}.md").write_text(f"# {name.title()} unit\n\n" + " ".join(lines) + "\n")
    return folder


@pytest.fixture
def stage(tmp_path: Path, corpus: Path, endpoint: FakeEndpoint) -> Callable[..., Path]:
    """Run the stage against the fake endpoint; returns its folder."""

    def run(*overrides: str) -> Path:
        execute(resolve("embed", "sdg", "default", [*overrides_for(tmp_path, corpus, endpoint), *overrides]), main)
        return tmp_path / "run" / "stage0_sdg"

    return run


def overrides_for(tmp_path: Path, corpus: Path, endpoint: FakeEndpoint) -> list[str]:
    return [
        f"run_dir={tmp_path / 'run'}",
        f"corpus_dir={corpus}",
        f"base_url={endpoint.url}",
        "provider=test",
        "num_pairs=2",
        "max_retries=1",
        "allow_remote=no",
    ]


@pytest.fixture
def calling(tmp_path: Path) -> Callable[..., Any]:
    """Run `work(caller)` against an address, with a journal in tmp_path that outlives it."""

    def run(
        work: Callable[[Caller], Any],
        url: str,
        options: CallOptions | None = None,
        timeout: float = 5.0,
        max_retries: int = 2,
        **about: str,
    ) -> Any:
        async def inside() -> Any:
            described = {"provider": "mine", "model": "m", "base_url": url, **about}
            served = [Endpoint(role, **described) for role in (QA, JUDGE, EMBED)]
            with Journal(tmp_path / "journal.sqlite") as journal:
                async with Caller(served, journal, Sampling(seed=1), timeout, max_retries, options) as caller:
                    return await work(caller)

        return asyncio.run(inside())

    return run
