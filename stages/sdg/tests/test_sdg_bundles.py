import hashlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_sdg.bundles import Unit, make_unit, plan_bundles, windows_of_unit
from pipeline_sdg.chunking import chunk_document, in_order, windows_of
from pipeline_sdg.documents import Document
from pipeline_sdg.judge import neighbours

from pipeline.schemas.sdg import SdgConfig

STRATEGIES = ["sequential", "doc_balanced", "interleaved"]


def config(**keys: object) -> SdgConfig:
    return SdgConfig(**{"multi_doc": True, "sentences_per_chunk": 1, "corpus_dir": "docs/", **keys})


def document(name: str, sentences: int) -> Document:
    return Document(name, " ".join(f"Part {number} of manual {name[0]} works." for number in range(sentences)))


def unit(sizes: Sequence[int], **keys: object) -> Unit:
    return make_unit([document(f"{'abcdefgh'[place]}.md", size) for place, size in enumerate(sizes)], config(**keys))


def test_without_multi_doc_every_document_is_alone() -> None:
    assert plan_bundles(["a", "b", "c"], config(multi_doc=False, bundle_by="similarity"), []) == [(0,), (1,), (2,)]


def test_neighbours_by_path_are_bundled_without_reading_a_text() -> None:
    def never() -> object:
        raise AssertionError
        yield

    assert plan_bundles(list("abcde"), config(bundle_size=2), never()) == [(0, 1), (2, 3), (4,)]


@given(st.integers(0, 12), st.integers(1, 3), st.sampled_from(["path", "similarity"]), st.data())
@settings(max_examples=60, deadline=None)
def test_every_document_is_used_once(count: int, size: int, by: str, data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(["pump", "valve", "mast", "filter", "lamp", "cabinet"]), max_size=6)
    texts = [" ".join(data.draw(words)) for _ in range(count)]
    plan = plan_bundles([f"{number}.md" for number in range(count)], config(bundle_size=size, bundle_by=by), texts)
    assert sorted(place for bundle in plan for place in bundle) == list(range(count))
    assert all(1 <= len(bundle) <= size for bundle in plan)


def test_a_single_document_is_as_it_was() -> None:
    one = Document("guide/a.md", "# Pump\n\nIt pumps. It stops.")
    found = make_unit([one], config())
    assert (found.files, found.source_id, found.bundle_id, found.text) == (("guide/a.md",), "guide/a.md", "", one.text)
    assert (found.title, found.is_multi_doc, found.members) == ("Pump", False, ())
    assert found.passages == chunk_document(one, config())
    for strategy in STRATEGIES:
        keys = config(bundle_strategy=strategy, window_chunks=1)
        assert windows_of_unit(found, keys) == windows_of("guide/a.md", "Pump", found.passages, 1)
        assert windows_of_unit(found, keys)[0].members == ()


def test_a_bundle_says_which_passage_is_whose() -> None:
    found = unit([2, 1])
    chunks = [passage.chunk for passage in found.passages]
    keys = ("chunk_id", "doc_chunk_index", "start", "doc_id", "doc_path")
    assert [tuple(chunk[key] for key in keys) for chunk in chunks] == [
        (1, 1, 0, "a.md", "docs/a.md"),
        (2, 2, 6, "a.md", "docs/a.md"),
        (3, 1, 0, "b.md", "docs/b.md"),
    ]
    assert found.files == found.members == ("a.md", "b.md") and found.is_multi_doc
    assert found.name == "a.md + b.md" and found.title == "a + b"
    assert found.bundle_id == hashlib.md5(b"a.md||b.md").hexdigest() and found.source_id == found.bundle_id[:16]
    assert found.text.startswith("Part 0 of manual a works.") and found.text.endswith("Part 0 of manual b works.")
    assert "\n\n=== Next document: b.md ===\n\n" in found.text


def test_the_name_of_a_bundle_does_not_depend_on_the_order_of_its_documents() -> None:
    one, other = document("a.md", 1), document("b.md", 1)
    assert make_unit([one, other], config()).bundle_id == make_unit([other, one], config()).bundle_id
    assert make_unit([one, other], config()).bundle_id != make_unit([one, document("c.md", 1)], config()).bundle_id


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.sampled_from(STRATEGIES),
    st.one_of(st.none(), st.integers(1, 9)),
    st.one_of(st.none(), st.integers(5, 40)),
)
@settings(max_examples=80, deadline=None)
def test_no_strategy_loses_a_passage(sizes: list[int], strategy: str, chunks: int | None, tokens: int | None) -> None:
    keys = {"bundle_strategy": strategy, "window_chunks": chunks, "window_tokens": tokens}
    found = unit(sizes, **keys)
    windows = windows_of_unit(found, config(**keys))
    ids = [number for window in windows for number in window.segment_ids]
    assert sorted(ids) == list(range(1, sum(sizes) + 1))
    assert strategy != "sequential" or ids == sorted(ids)
    assert all(chunks is None or len(window.passages) <= chunks for window in windows)
    assert all(tokens is None or window.tokens <= tokens or len(window.passages) == 1 for window in windows)
    assert [window.last for window in windows] == [False] * (len(windows) - 1) + [True]


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(2, 12))
@settings(max_examples=80, deadline=None)
def test_every_full_balanced_window_has_every_document_that_is_long_enough(sizes: list[int], chunks: int) -> None:
    keys = {"bundle_strategy": "doc_balanced", "window_chunks": chunks}
    found = unit(sizes, **keys)
    for window in windows_of_unit(found, config(**keys)):
        assert window.segment_ids == sorted(window.segment_ids)
        for member, size in zip(found.files, sizes, strict=True):
            others = sum(other / size + 1 for other in sizes) - 2  # most that stand between two of its passages
            if len(window.passages) == chunks > others:
                assert member in window.members


def test_interleaved_passages_come_in_turn() -> None:
    keys = {"bundle_strategy": "interleaved", "window_chunks": 4}
    windows = windows_of_unit(unit([2, 4, 1], **keys), config(**keys))
    assert [window.segment_ids for window in windows] == [[1, 3, 7, 2], [4, 5, 6]]
    assert [window.members for window in windows] == [("a.md", "b.md", "c.md"), ("b.md",)]
    assert windows[0].title == "a + b + c"


def test_balanced_passages_are_in_proportion() -> None:
    chunks = [passage.chunk for passage in unit([2, 4]).passages]
    assert in_order(chunks, "doc_balanced") == [2, 0, 3, 4, 1, 5]
    assert in_order(chunks, "sequential") == list(range(6))


def test_the_judge_sees_no_neighbour_of_another_document() -> None:
    chunks = [passage.chunk for passage in unit([2, 2]).passages]
    assert [chunk["chunk_id"] for chunk in neighbours({"segment_ids": [3]}, chunks)] == [4]
    assert [chunk["chunk_id"] for chunk in neighbours({"segment_ids": [2]}, chunks)] == [1]
