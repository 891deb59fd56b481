"""Prompt profiles: what is read, what is refused before any call, and which document gets which."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg import answerability, hops, judge, questions, relevance
from pipeline_sdg.labels import LabelPlan, label
from pipeline_sdg.questions import Statement
from pipeline_sdg.templates import DEFAULT, Profiles, Prompts, shipped
from pipeline_sdg.wording import problem_of

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage

SHIPPED = Path(str(files("pipeline_sdg"))) / "prompts"
NAMES = sorted(file.stem for file in (SHIPPED / "default").iterdir())
PAIR = {"question": "Q?", "answer": "A.", "segment_ids": [1, 2], "query_type": "multi_hop"}
CHUNKS = [{"chunk_id": number, "text": f"Fact {number}."} for number in (1, 2)]
STATEMENT = Statement("The pump stops at 20 percent.", 1)


def text_of(name: str, profile: str = "default") -> str:
    return (SHIPPED / profile / f"{name}.txt").read_text(encoding="utf-8")


def values_of(name: str) -> dict[str, str]:
    return {word: f"<{word}>" for word in DEFAULT.templates[name].get_identifiers()}


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., str]:
    """A folder of the user's with these files; returns it as a profile."""

    def write(**texts: str) -> str:
        folder = tmp_path / "mine"
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        return str(folder)

    return write


def fault_of(profile: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        Prompts.of(profile)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_the_default_prompts_are_their_files_with_the_values_put_in(name: str) -> None:
    values = values_of(name)
    filled = re.sub(r"\$(\w+)", lambda found: values[found[1]], text_of(name)).strip()
    assert DEFAULT.render(name, **values) == filled
    assert "$" not in filled and not filled.endswith("\n")


@pytest.mark.parametrize("profile", shipped())
def test_every_shipped_profile_renders_every_prompt(profile: str) -> None:
    prompts = Prompts.of(profile)
    assert sorted(prompts.templates) == NAMES
    for name in NAMES:
        values = values_of(name)
        rendered = prompts.render(name, **values)
        used = prompts.templates[name].get_identifiers()
        assert rendered and all(f"<{word}>" in rendered for word in used)


def test_the_shipped_profiles_differ_from_the_default_one_and_from_each_other() -> None:
    assert shipped() == ["default", "reference", "scientific", "support"]
    assert len({text_of("qa", profile) for profile in shipped()}) == 4


@pytest.mark.parametrize("profile", shipped())
def test_every_profile_explains_the_types_and_the_rules_that_the_code_checks(profile: str) -> None:
    """A line of the default prompt that names a field or type stands in every profile, in its words or others."""
    fields = {line.partition(":")[0] for line in text_of("qa").splitlines() if re.match(r"- [a-z_ ]+:", line)}
    written = {line.partition(":")[0] for line in text_of("qa", profile).splitlines()}
    assert len(fields) >= 10 and fields <= written


@pytest.mark.parametrize("profile", shipped())
def test_the_examples_keep_the_rules_for_questions(profile: str) -> None:
    examples = re.findall(r'"([A-Z][^"]+\?)"', text_of("qa", profile))
    assert len(examples) >= 6 and {problem_of(example, "") for example in examples} == {None}


def test_a_profile_takes_what_it_lacks_from_the_default_one(own: Callable[..., str]) -> None:
    prompts = Prompts.of(own(repair="It costs $$5.\n\nMend: $problems\n"))
    assert prompts.render("repair", problems="p") == "It costs $5.\n\nMend: p"
    assert prompts.templates["judge"].template == text_of("judge")


def test_a_readme_hidden_files_and_folders_are_no_templates(own: Callable[..., str]) -> None:
    profile = own(repair="$problems", README="about")
    (Path(profile) / "README.md").write_text("about")
    (Path(profile) / ".notes").write_bytes(b"\xff")
    (Path(profile) / "old").mkdir()
    assert Prompts.of(profile).render("repair", problems="p") == "p"


def test_an_optional_placeholder_may_be_left_out(own: Callable[..., str]) -> None:
    prompts = Prompts.of(own(artifacts="At most $max_per_type of $text"))
    assert prompts.render("artifacts", **{**values_of("artifacts"), "text": "x"}) == "At most <max_per_type> of x"


def test_a_value_is_never_read_as_a_template() -> None:
    assert DEFAULT.render("repair", problems="$problems $x $$ {0}").count("$problems $x $$ {0}") == 1


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(KeyError, match="problems"):
        DEFAULT.render("repair")


@pytest.mark.parametrize(
    ("texts", "said", "fix"),
    [
        ({"repair": "one\nMend $problms"}, "repair.txt:2: unknown placeholder $problms", "$problems"),
        ({"repair": "Mend $problems for $ 5"}, "repair.txt:1: a $ without a name", "$$"),
        ({"repair": "Mend it"}, "repair.txt: $problems is missing", "put it in"),
        ({"repair": ""}, "repair.txt: $problems is missing", "put it in"),
        ({"artifacts": "$title"}, "artifacts.txt: $max_per_type, $text is missing", "put it in"),
        ({"qa_small": "system: $title"}, "qa_small.txt:1: unknown placeholder $title", "none"),
        ({"repairs": "$problems"}, "repairs.txt: no prompt has this name", "did you mean repair.txt?"),
        ({"qa_small": "system: s\nquestion: q"}, "qa_small.txt:2: expected 'statement:'", "answer: TEXT"),
        ({"qa_small": "statement: s\nstatement: t"}, "qa_small.txt:2: expected 'answer:'", "answer: TEXT"),
        ({"qa_small": "statement: s\nanswer: "}, "qa_small.txt:2: expected 'answer:'", "answer: TEXT"),
        ({"qa_small": "system: s\nstatement: s"}, "qa_small.txt: ends without an answer", "answer: TEXT"),
        ({"qa_small_search": ""}, "qa_small_search.txt: ends without an answer", "answer: TEXT"),
        ({}, "mine: no template in it", "qa.txt"),
    ],
)
def test_a_faulty_profile_is_refused(own: Callable[..., str], texts: dict[str, str], said: str, fix: str) -> None:
    fault = fault_of(own(**texts))
    assert said in fault.message and fix in str(fault.fix)


def test_files_that_cannot_be_read_are_named(own: Callable[..., str]) -> None:
    folder = Path(own())
    (folder / "qa.txt").write_bytes(b"a\xff")
    assert "qa.txt: not UTF-8 (byte 1)" in fault_of(str(folder)).message
    (folder / "qa.txt").unlink()
    (folder / "qa.txt").symlink_to("nowhere")
    assert "qa.txt: No such file" in fault_of(str(folder)).message


def test_profiles_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = fault_of("suport")
    assert "'suport'" in fault.message
    assert "did you mean support?" in str(fault.fix) and "default, reference, scientific, support" in str(fault.fix)
    assert "no such folder" in fault_of(f"{tmp_path}/nothing").message
    monkeypatch.chdir(tmp_path)
    (tmp_path / "legal").mkdir()
    assert "a slash" in str(fault_of("legal").fix)
    (tmp_path / "legal" / "repair.txt").write_text("Legal: $problems")
    assert Prompts.of("./legal").render("repair", problems="p") == "Legal: p"


def test_the_first_pattern_that_fits_decides() -> None:
    found = Profiles("default", {"faq/*": "support", ".RST": "reference", "*paper*": "scientific", ".jsonl": "support"})
    profiles = {
        "faq/deep/a.rst": "support",
        "Api/Index.rst": "reference",
        "api/faq/a.txt": "default",
        "My-PAPERS/one.md": "scientific",
        "tickets.jsonl#17": "support",
        "tickets.jsonl#a.rst": "reference",
        "rst": "default",
    }
    assert {document: found.of(document).profile for document in profiles} == profiles
    assert Profiles("support", {}).of("x").profile == "support"
    assert Profiles("default", {"./faq/*": "support"}).of("faq/a.md").profile == "support"


@pytest.mark.parametrize(
    ("default", "patterns", "said"),
    [
        ("nothing", {}, "'nothing'"),
        ("default", {"never/*": "nothing"}, "'nothing'"),
        ("default", {" ": "support"}, "is no pattern"),
    ],
)
def test_all_profiles_are_checked_at_once(default: str, patterns: dict[str, str], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        Profiles(default, patterns)


@pytest.fixture
def marked(own: Callable[..., str]) -> Prompts:
    """The default prompts, each with a mark of its own."""
    texts = {name: text_of(name).replace("system: ", "system: MARK ") for name in NAMES}
    return Prompts.of(own(**{n: t if n.startswith("qa_small") else f"MARK {t}" for n, t in texts.items()}))


def test_every_request_is_made_with_the_prompts_given(marked: Prompts) -> None:
    hopping = {**PAIR, "hop_contexts": [{"hop_number": number, "segment_ids": [number]} for number in (1, 2)]}
    requests = [
        judge.exchange(PAIR, CHUNKS, marked),
        answerability.exchange(PAIR, CHUNKS, marked),
        hops.exchange(hopping, CHUNKS, marked),
        *relevance.exchanges(PAIR, [Passage("d", "Text.")], marked),
    ]
    assert all(request and request.messages[0]["content"].startswith("MARK You judge") for request in requests)
    for style in ("question", "search"):
        statement = Statement(STATEMENT.text, 1, style)
        first, *others = questions.messages(statement, marked)
        assert first["content"].startswith("MARK Write") and others == questions.messages(statement)[1:]


def test_a_repair_turn_is_in_the_words_of_the_profile(marked: Prompts, endpoint: Any, calling: Any) -> None:
    endpoint.score = 99
    plan = LabelPlan(prompts=marked)
    calling(lambda caller: label(caller, {**PAIR, "hop_contexts": []}, CHUNKS, plan), endpoint.url)
    first, repair = endpoint.requests
    assert first["messages"][0]["content"].startswith("MARK You judge")
    assert repair["messages"][-1]["content"].startswith("MARK Your answer has these faults:\n- relevance.score")
