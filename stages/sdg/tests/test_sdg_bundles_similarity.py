import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_sdg import bundle_similarity
from pipeline_sdg.bundle_similarity import FLOOR, HEAVIEST, document_vectors, similar_groups
from pipeline_sdg.bundles import plan_bundles
from pipeline_sdg.similarity import word_vectors

from pipeline.schemas.sdg import SdgConfig

CORPUS = Path(__file__).parents[3] / "data" / "demo" / "corpus"
FOLDERS = ("alarms", "modules", "parts")


@pytest.fixture(scope="module")
def manuals() -> dict[str, str]:
    """Of every product three texts in three folders."""
    paths = [path for folder in FOLDERS for path in sorted((CORPUS / folder).glob("*.md"))]
    found = {path.relative_to(CORPUS).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    assert len(found) >= 24
    return found


def about_one_product(names: list[str], plan: list[tuple[int, ...]]) -> float:
    """Share of the pairs in bundles whose files are called after the same product."""
    pairs = [(names[one], names[other]) for bundle in plan for one in bundle for other in bundle if one < other]
    return sum(Path(one).name == Path(other).name for one, other in pairs) / len(pairs)


def plan_of(texts: dict[str, str], by: str, size: int = 2) -> list[tuple[int, ...]]:
    return plan_bundles(list(texts), SdgConfig(multi_doc=True, bundle_by=by, bundle_size=size), texts.values())


@pytest.mark.parametrize("size", [2, 3])
def test_manuals_of_one_product_get_together_more_than_by_path_or_chance(manuals: dict[str, str], size: int) -> None:
    names = list(manuals)
    chance = about_one_product(names, [tuple(range(len(names)))])
    similar = about_one_product(names, plan_of(manuals, "similarity", size))
    assert chance > 0
    assert similar > 3 * max(chance, about_one_product(names, plan_of(manuals, "path", size)))


def test_the_order_of_the_corpus_does_not_matter(manuals: dict[str, str]) -> None:
    def bundles(texts: dict[str, str]) -> set[frozenset[str]]:
        names = list(texts)
        return {frozenset(names[place] for place in bundle) for bundle in plan_of(texts, "similarity")}

    shuffled = list(manuals.items())
    random.Random(7).shuffle(shuffled)
    assert bundles(dict(shuffled)) == bundles(manuals)


def test_documents_of_the_manifest_are_not_bundled_again(manuals: dict[str, str], tmp_path: Path) -> None:
    names = list(manuals)
    (tmp_path / "m.json").write_text(json.dumps([names[:2]]), encoding="utf-8")
    config = SdgConfig(multi_doc=True, bundle_by="similarity", multi_doc_manifest=str(tmp_path / "m.json"))
    rest = plan_of(dict(list(manuals.items())[2:]), "similarity")
    expected = [(0, 1), *(tuple(place + 2 for place in bundle) for bundle in rest)]
    assert plan_bundles(names, config, manuals.values()) == expected


def test_what_resembles_nothing_stays_alone(manuals: dict[str, str]) -> None:
    texts = {**manuals, "poem.md": "Shall I compare thee to a summer's day? Thou art more lovely and more temperate."}
    assert (len(manuals),) in plan_of(texts, "similarity")


def test_bundled_documents_are_alike(manuals: dict[str, str]) -> None:
    vectors = document_vectors(manuals.values())
    cosines = (vectors @ vectors.T).toarray()
    for group in similar_groups(manuals.values(), 3):
        for one in group:
            assert len(group) == 1 or max(cosines[one, other] for other in group if other != one) >= FLOOR - 1e-6


def test_nobody_is_left_alone_who_has_a_similar_free_neighbour() -> None:
    copies = ["The same text about a pump and its valve."] * 100 + ["Another matter altogether: sails."] * 101
    groups = similar_groups(copies, 2)
    assert len(groups) == 101 and sum(len(group) == 1 for group in groups) == 1
    assert all(len({copies[place] for place in group}) == 1 for group in groups)


@pytest.mark.parametrize("nearest", [1, 16])
def test_who_is_alone_has_no_similar_one_to_join(
    manuals: dict[str, str], nearest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_similarity, "NEAREST", nearest)
    vectors = document_vectors(manuals.values())
    cosines = np.triu((vectors @ vectors.T).toarray(), 1)
    groups = similar_groups(manuals.values(), 2)
    alone = [group[0] for group in groups if len(group) == 1]
    assert cosines[np.ix_(alone, alone)].max(initial=0) < FLOOR
    best = np.unravel_index(cosines.argmax(), cosines.shape)
    assert tuple(map(int, best)) in groups


def test_copies_of_one_text_do_not_all_name_the_same_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_similarity, "NEAREST", 1)
    found = bundle_similarity._edges(document_vectors(["The same text about a pump."] * 30 + ["Sails."] * 40))
    assert sorted(found[:, 1].tolist()) == list(range(70))


def test_groups_do_not_depend_on_blocks(manuals: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = similar_groups(manuals.values(), 3)
    monkeypatch.setattr(bundle_similarity, "_BLOCK", 5)
    assert similar_groups(manuals.values(), 3) == expected


@given(st.lists(st.text(alphabet="abc 好", max_size=30), max_size=12))
@settings(max_examples=40, deadline=None)
def test_short_texts_weigh_as_questions_do(texts: list[str]) -> None:
    ours, theirs = document_vectors(texts), word_vectors(texts)
    assert np.allclose((ours @ ours.T).toarray(), (theirs @ theirs.T).toarray())


def test_a_long_text_is_compared_by_its_heaviest_words() -> None:
    long = " ".join(f"word{number} common" for number in range(2000)) + " pump" * 5
    vectors = document_vectors([long, "A pump is common.", "common", "common sense", ""])
    assert vectors.getnnz(axis=1).tolist()[0] == HEAVIEST
    assert (vectors[0] @ vectors[1].T).toarray().item() > 0
    assert vectors.getnnz(axis=1).tolist()[-1] == 0


def test_common_words_give_way_when_comparing_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"common rare{number // 2}" for number in range(40)]
    assert document_vectors(texts).nnz == 80
    monkeypatch.setattr(bundle_similarity, "PRODUCTS", 200)  # 20 words in two texts each take 80, `common` takes 1600
    assert document_vectors(texts).nnz == 40
    assert similar_groups(texts, 2) == [(number, number + 1) for number in range(0, 40, 2)]


def test_there_may_be_nothing() -> None:
    assert similar_groups([], 2) == []
    assert similar_groups(["", "?"], 2) == [(0,), (1,)]
    assert similar_groups(["pump", "pump"], 1) == [(0,), (1,)]
