from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import Chunk, Coverage, Passage, coverage, pairs_of, sections, spread, windows_of


def passages(*sizes: int) -> list[Passage]:
    """Passages of so many tokens (four letters each)."""
    return [Passage({"text": "word" * size, "chunk_id": number}, ()) for number, size in enumerate(sizes, 1)]


def test_windows_keep_to_both_limits() -> None:
    found = windows_of("a.md", "A", passages(5, 5, 5, 20, 1, 1, 1), window_chunks=2, window_tokens=12)
    assert [window.segment_ids for window in found] == [[1, 2], [3], [4], [5, 6], [7]]
    assert [window.tokens for window in found] == [10, 5, 20, 2, 1]
    assert [window.last for window in found] == [False] * 4 + [True]
    assert [window.index for window in found] == list(range(5))
    assert found[0].document == "a.md" and found[0].title == "A"
    assert len(windows_of("a.md", "A", passages(5, 500))) == 1
    assert windows_of("a.md", "A", []) == []


@given(
    st.lists(st.integers(1, 50), max_size=30),
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.integers(1, 60)),
)
def test_every_passage_is_in_one_window(sizes: list[int], chunks: int | None, tokens: int | None) -> None:
    found = windows_of("a.md", "A", passages(*sizes), chunks, tokens)
    assert [passage for window in found for passage in window.passages] == passages(*sizes)
    for window in found:
        assert chunks is None or len(window.passages) <= chunks
        assert tokens is None or window.tokens <= tokens or len(window.passages) == 1
        assert 1 <= pairs_of(window, 7, tokens) <= 7


def test_pairs_are_in_proportion_to_length() -> None:
    def pairs(*sizes: int) -> list[int]:
        return [pairs_of(window, 10, 100) for window in windows_of("a.md", "A", passages(*sizes), None, 100)]

    assert pairs(100) == [10]
    assert pairs(50) == [5]
    assert pairs(1) == [1]
    assert pairs(90, 90, 30) == [10, 10, 3]
    assert pairs(400) == [10]
    assert [pairs_of(window, 10, None) for window in windows_of("a.md", "A", passages(1), None, None)] == [10]


def test_coverage_counts_passages_with_a_question() -> None:
    found = windows_of("a.md", "A", passages(1, 1, 1, 1), window_chunks=3)
    assert coverage(found, [[1], [1, 3], [9]]) == Coverage(4, [2, 4])
    assert coverage(found, [[1], [1, 3], [9]]).covered == 2
    assert coverage([], []) == Coverage(0, [])


def test_windows_are_thinned_out_evenly() -> None:
    windows = list(range(10))
    assert spread(windows, 4) == [0, 2, 5, 7]
    assert spread(windows, None) == spread(windows, 10) == spread(windows, 99) == windows


def test_sections_share_out_the_passages_and_the_last_takes_the_rest() -> None:
    chunks = [{"text": text, "chunk_id": number} for number, text in enumerate(["Aa", "Bb", " ", "Dd", "Ee"], 1)]
    assert sections(chunks, 2) == [
        "=== Section 1 ===\n- Segment 1: Aa\n- Segment 2: Bb",
        "=== Section 2 ===\n- Segment 4: Dd\n- Segment 5: Ee",
    ]
    assert len(sections(chunks, 9)) == 5


def test_a_line_says_under_which_headings_the_next_segments_stand() -> None:
    titles = ["Guide", "Guide > Use", "Guide > Use", "", "Guide > Care"]
    chunks = [{"text": f"T{number}", "chunk_id": number, "title": title} for number, title in enumerate(titles, 1)]
    whole, *_ = sections(chunks, 1, page="Guide")
    assert whole.splitlines()[1:] == [
        "- Segment 1: T1",
        "(Guide > Use)",
        "- Segment 2: T2",
        "- Segment 3: T3",
        "(Guide)",
        "- Segment 4: T4",
        "(Guide > Care)",
        "- Segment 5: T5",
    ]
    assert [block.splitlines()[1] for block in sections(chunks, 5, page="Guide")[1:3]] == ["(Guide > Use)"] * 2
    assert "(" not in "".join(sections(chunks, 2))


def chunks_of(**sizes: int) -> list[Chunk]:
    """A bundle's passages; each text is the document and its number there."""
    owners = [(name, number) for name, size in sizes.items() for number in range(1, size + 1)]
    return [{"text": f"{name}{n}", "chunk_id": at, "doc_id": name} for at, (name, n) in enumerate(owners, 1)]


def shown(blocks: list[str]) -> list[str]:
    return [" ".join(line.rsplit(" ", 1)[-1] for line in block.splitlines()[1:]) for block in blocks]


def test_sections_of_a_bundle_name_the_document() -> None:
    assert sections(chunks_of(a=1, b=1), 1) == ["=== Section 1 ===\n- Segment 1 [a]: a1\n- Segment 2 [b]: b1"]


def test_sections_follow_the_strategy() -> None:
    chunks = chunks_of(a=2, b=5)
    assert shown(sections(chunks, 3, "sequential")) == ["a1 a2", "b1 b2", "b3 b4 b5"]
    assert shown(sections(chunks, 3, "doc_balanced")) == ["a1 b1 b2", "a2 b3 b4", "b5"]
    assert shown(sections(chunks, 3, "interleaved")) == ["a1 b1", "a2 b2", "b3 b4 b5"]
    single = [{"text": f"x{number}", "chunk_id": number} for number in range(1, 6)]
    for strategy in ("doc_balanced", "interleaved"):
        assert sections(single, 2, strategy) == sections(single, 2)


@given(
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(1, 12),
    st.sampled_from(["sequential", "doc_balanced", "interleaved"]),
)
def test_sections_hold_every_passage_once(sizes: list[int], count: int, strategy: str) -> None:
    chunks = chunks_of(**dict(zip("abcd", sizes, strict=False)))
    blocks = sections(chunks, count, strategy)
    assert sorted(" ".join(shown(blocks)).split()) == sorted(chunk["text"] for chunk in chunks)
    assert [block.splitlines()[0] for block in blocks] == [f"=== Section {n} ===" for n in range(1, len(blocks) + 1)]
    assert len(blocks) <= count and all(shown(blocks))
