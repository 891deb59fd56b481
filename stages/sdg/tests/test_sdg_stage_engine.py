"""The whole stage: what it pays for, what leaves the machine, what is written down, and which documents it reads."""

import json
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import pytest
from pipeline_sdg.endpoints import Endpoint
from pipeline_sdg.main import cli

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.sdg import read_records
from pipeline.run.handoff import write_handoff

Stage = Callable[..., Path]
PLAIN = ("artifacts=false", "quality_judge=none", "embed_model=null")
CANARY = "canary-key-0123456789"
MAIL = "jo.doe@mail.example"
EVERY_CALL = 3 + 3 + 1 + 6
"""Artifacts and pairs of three documents, one request for vectors, scores of six pairs."""


@pytest.fixture
def command(tmp_path: Path, corpus: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The stage as the `pipeline` command starts it, with a verbose log; returns the exit code."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler of a stage would outlive the test

    def run(*overrides: str) -> int:
        about = [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", f"base_url={endpoint.url}", "provider=test"]
        settled = resolve("embed", "sdg", "default", [*about, "num_pairs=2", "max_retries=1", *overrides])
        config = write_handoff(settled, tmp_path / "config.yaml")
        monkeypatch.setattr(sys, "argv", ["pipeline-sdg", "--config", str(config), "--verbose"])
        with pytest.raises(SystemExit) as ended:
            cli()
        return int(ended.value.code or 0)

    return run


def usage(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "usage.json").read_text())


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """By file name."""
    return {record["file_name"][0]: record for _, record in read_records(folder)}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def prompts(endpoint: Any) -> list[str]:
    return [body["messages"][0]["content"] for body in endpoint.requests if "messages" in body]


def test_a_token_budget_stops_the_run_and_a_higher_one_pays_only_for_the_rest(
    command: Callable[..., int], endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = endpoint.handle

    def dear(*request: Any) -> tuple[int, dict[str, str], str]:
        status, headers, text = usual(*request)
        return status, headers, text.replace('"prompt_tokens": 10', '"prompt_tokens": 1000')

    endpoint.handle = dear
    assert command("max_tokens_total=6000") == 1
    said = capsys.readouterr().err
    assert "error: max_tokens_total=6,000 is reached" in said
    assert "give the same command again with a larger max_tokens_total to go on" in said and "Traceback" not in said
    folder = tmp_path / "run" / "stage0_sdg"
    assert not list(folder.glob("generated*"))
    paid = endpoint.calls.total()
    assert 1 <= paid <= 6  # a call of 1,005 tokens each
    assert command("max_tokens_total=100000") == 0
    assert endpoint.calls.total() == EVERY_CALL and set(endpoint.answered.values()) == {1}
    total = usage(folder)["total"]
    assert (total["calls_made"], total["calls_reused"]) == (EVERY_CALL - paid, paid)
    assert command("max_tokens_total=6000") == 0  # nothing new is needed: nothing is paid
    assert endpoint.calls.total() == EVERY_CALL


def test_money_is_counted_and_a_limit_needs_prices(stage: Stage, endpoint: Any) -> None:
    with pytest.raises(PipelineError, match="max_cost=1 needs prices for artifact_extraction"):
        stage("max_cost=1")
    assert endpoint.calls.total() == 0
    folder = stage("max_cost=1", "prices={input: 10, output: 100}", *PLAIN)
    assert usage(folder)["roles"]["qa_generation"]["cost"] == pytest.approx(3 * (10 * 10 + 5 * 100) / 1e6)


def test_resume_never_asks_anew_and_keeps_the_earlier_answers(stage: Stage, endpoint: Any) -> None:
    stage(*PLAIN)
    for _ in range(2):
        folder = stage(*PLAIN, "resume=never")
    assert endpoint.calls == {"qa_generation": 9} and usage(folder)["total"]["calls_reused"] == 0
    assert len(list(folder.glob("journal.until-*.sqlite"))) == 2
    stage(*PLAIN)
    assert endpoint.calls == {"qa_generation": 9}


def test_resume_always_insists_on_a_journal(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"resume=always: .*stage0_sdg holds no journal") as caught:
        stage(*PLAIN, "resume=always")
    assert "resume=if_possible" in (caught.value.fix or "") and endpoint.calls.total() == 0
    assert not list(tmp_path.rglob("generated*"))
    stage(*PLAIN)
    assert usage(stage(*PLAIN, "resume=always"))["total"]["calls_reused"] == 3
    assert endpoint.calls == {"qa_generation": 3}


@pytest.mark.parametrize("remote", [True, False])
def test_what_is_redacted_leaves_for_no_other_machine(
    stage: Stage, endpoint: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    for path in corpus.iterdir():
        path.write_text(path.read_text().replace("number 3", f"number 3 of {MAIL}"))
    if remote:
        monkeypatch.setattr(Endpoint, "is_local", False)
    folder = stage("redact=[email]", "check_answers=true", "pooled_judging=2", "allow_remote=yes")
    sent = json.dumps(endpoint.requests)
    assert (MAIL in sent, "number 3 of [email]" in sent) == (not remote, remote)
    redacted = {role: item["redacted"] > 0 for role, item in usage(folder)["roles"].items()}
    assert redacted == dict.fromkeys(("artifact_extraction", "qa_generation", "embed", "quality_judge"), remote)
    for record in records(folder).values():
        assert MAIL in record["text"] and MAIL in record["chunks"][0]["text"]


def test_a_key_is_written_nowhere_even_if_the_server_repeats_it(
    command: Callable[..., int],
    endpoint: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    usual = endpoint.content

    def echo(body: dict[str, Any], number: int) -> Any:
        if "beta valve" in json.dumps(body):
            return 400, {}, f"{CANARY} may not ask this"
        return (200, {}, endpoint.chat(f"scores for {CANARY}")) if "You judge" in json.dumps(body) else None

    endpoint.misbehave = echo
    endpoint.content = lambda role, body: usual(role, body).replace("Three bar.", f"Three bar for {CANARY}.")
    monkeypatch.setenv("NVIDIA_API_KEY", "another-key")
    monkeypatch.setenv("SDG_TEST_KEY", CANARY)
    assert command("api_key_env=SDG_TEST_KEY") == 0
    assert {item["authorization"] for item in endpoint.headers} == {f"Bearer {CANARY}"}
    assert any("Three bar for " in path.read_text() for path in tmp_path.rglob("generated*"))
    written = {path for path in files(tmp_path) if CANARY.encode() in path.read_bytes()}
    assert written == set()
    assert {"rejected.jsonl", "manifest.json", "journal.sqlite", "usage.json"} <= {
        path.name for path in files(tmp_path)
    }
    assert any(path.suffix == ".log" and "may not ask this" in path.read_text() for path in files(tmp_path))
    assert not any(CANARY in stream for stream in capfd.readouterr())


def test_long_documents_become_windows_with_pairs_in_proportion(stage: Stage, endpoint: Any, corpus: Path) -> None:
    def fill(name: str, sentences: int) -> None:
        lines = (f"The {name} valve opens at {number + 10} bar or more." for number in range(sentences))
        (corpus / f"{name}.md").write_text(" ".join(lines))

    for name, sentences in (("alpha", 2), ("beta", 8), ("gamma", 20)):
        fill(name, sentences)
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        [wanted] = re.findall(r"exactly (\d+) different", body["messages"][0]["content"])
        endpoint.pairs = int(wanted)
        return usual(role, body)

    endpoint.content = content
    # A sentence is a passage of about 10 tokens, so that a window holds 8.
    shape = ("sentences_per_chunk=1", "window_tokens=80", "num_pairs=4", "max_parallel_requests_for_gen=1")
    folder = stage(*PLAIN, *shape)
    asked = defaultdict(list)
    for prompt in prompts(endpoint):
        [name] = set(re.findall(r"The (\w+) valve", prompt))
        asked[name].append(
            (int(re.findall(r"exactly (\d+) different", prompt)[0]), len(re.findall("- Segment", prompt)))
        )
    assert asked == {"alpha": [(1, 2)], "beta": [(4, 8)], "gamma": [(4, 8), (4, 8), (2, 4)]}
    found = records(folder)
    assert [len(item["deduplicated_qa_pairs"]) for item in found.values()] == [1, 4, 10]
    cited = [pair["segment_ids"][0] for pair in found["gamma.md"]["deduplicated_qa_pairs"]]
    assert cited == [1, 2, 3, 4, 9, 10, 11, 12, 17, 18]


def test_every_row_of_a_table_is_one_passage_of_its_own(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = [
        {"_id": name, "title": f"The {name}", "text": " ".join(f"Fact {n} of the {name} pump." for n in range(12))}
        for name in ("north", "south")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = stage(*PLAIN, f"corpus_dir={folder}", "file_extensions=jsonl", "chunking=none", "num_pairs=1")
    found = records(made)
    assert list(found) == ["rows.jsonl#north", "rows.jsonl#south"]
    for row, record in zip(rows, found.values(), strict=True):
        [chunk] = record["chunks"]
        assert (chunk["id"], chunk["title"], chunk["text"]) == (row["_id"], row["title"], row["text"])
        assert record["deduplicated_qa_pairs"][0]["segment_ids"] == [1]
    assert endpoint.calls == {"qa_generation": 2}


def tiny_pdf(text: str) -> bytes:
    """One page with one line. It has no table of objects: readers find them."""
    shown = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources "
        "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream",
    )
    body = "".join(f"{number} 0 obj\n{item}\nendobj\n" for number, item in enumerate(objects, 1))
    return f"%PDF-1.4\n{body}trailer\n<< /Root 1 0 R /Size 5 >>\nstartxref\n0\n%%EOF".encode()


def test_pages_of_all_kinds_are_read(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    text = "The {} pump must be stopped before its filter is cleaned."
    (folder / "a.pdf").write_bytes(tiny_pdf(text.format("red")))
    (folder / "b.html").write_text(f"<title>Care</title><nav>Home</nav><p>{text.format('blue')}</p>")
    word = docx.Document()
    word.add_paragraph(text.format("green"))
    word.save(str(folder / "c.docx"))
    (folder / "d.pdf").write_bytes(b"not a page at all")
    made = stage(*PLAIN, f"corpus_dir={folder}", "file_extensions=pdf,html,docx", "num_pairs=1")
    found = records(made)
    assert {name: record["text"] for name, record in found.items()} == {
        "a.pdf": text.format("red"),
        "b.html": text.format("blue"),
        "c.docx": text.format("green"),
    }
    assert all(len(record["deduplicated_qa_pairs"]) == 1 for record in found.values())
    [log] = [path.read_text() for path in files(made) if path.suffix == ".log" and not path.is_symlink()]
    assert "unreadable: d.pdf (" in log
