from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import Coverage, Passage, coverage, pairs_of, sections, spread, windows_of


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
