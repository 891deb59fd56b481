"""`data unroll`: the form that prep itself writes, from any training file, and nothing lost on the way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_prep.rows import unroll as unroll_rows
from pipeline_prep.tools import main
from pipeline_prep.tools.training_json import Document
from pipeline_prep.tools.unroll import unroll

from pipeline.errors import PipelineError
from pipeline.records.training import TrainingFile


def row(name, positives, negatives, **more):
    return {
        "question_id": name, "question": f"what of {name}?", "corpus_id": "c",
        "pos_doc": [{"id": item} for item in positives], "neg_doc": [{"id": item} for item in negatives], **more,
    }  # fmt: skip


def document(tmp_path, *rows, name="mined.json", **top):
    path = tmp_path / name
    path.write_text(json.dumps({"corpus": {"path": "./corpus/"}, **top, "data": list(rows)}))
    return path


def run(path, output=None, suffix="_unrolled", overwrite=False):
    options = {"input": str(path), "output": output and str(output), "suffix": suffix, "overwrite": overwrite}
    return main.main(["unroll", json.dumps(options)])


def test_rows_become_one_for_each_positive_and_keep_everything_else(tmp_path):
    several = row("q42", ["d_a", "d_b"], ["d_x", "d_y"], metadata={"type": "multi_hop"}, source="mine")
    several["neg_doc"][0] |= {"score": 0.25, "source": "bm25"}
    path = document(tmp_path, several, row("q43", ["d_c"], ["d_x"]), mining={"args": {}}, note="kept")
    assert run(path) == 0
    made = json.loads((tmp_path / "mined_unrolled.json").read_text())
    assert list(made) == ["corpus", "note", "data"] and made["corpus"] == {"path": "./corpus/"}
    lineage = {"original_question_id": "q42", "known_pos_ids": ["d_a", "d_b"]}
    assert made["data"] == [
        several | {"question_id": "q42_0", "pos_doc": [{"id": "d_a"}], **lineage},
        several | {"question_id": "q42_1", "pos_doc": [{"id": "d_b"}], **lineage},
        row("q43", ["d_c"], ["d_x"], original_question_id="q43", known_pos_ids=["d_c"]),
    ]


def test_negatives_that_a_sibling_or_known_pos_ids_names_are_left_out(tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    path = document(
        tmp_path,
        row("q_0", ["a"], ["b", "x"], original_question_id="q"),
        row("q_1", ["b"], ["c", "y"], original_question_id="q", known_pos_ids=["a", "b", "c"]),
    )
    assert run(path, tmp_path / "elsewhere" / "out.json") == 0
    made = json.loads((tmp_path / "elsewhere" / "out.json").read_text())
    assert [item["neg_doc"] for item in made["data"]] == [[{"id": "x"}], [{"id": "y"}]]
    assert [item["question_id"] for item in made["data"]] == ["q_0", "q_1"]
    assert made["data"][0]["known_pos_ids"] == made["data"][1]["known_pos_ids"] == ["a", "b", "c"]
    assert made["corpus"] == {"path": "../corpus"} and "left out: 2 negatives" in caplog.text


names = st.sampled_from(["a", "b", "c", "d", "e"])
rows = st.lists(
    st.tuples(st.lists(names, min_size=1, unique=True), st.lists(names, unique=True), st.lists(names, unique=True)),
    max_size=5,
)


@given(rows)
def test_it_is_what_prep_itself_does_and_doing_it_twice_changes_nothing(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("unroll")
    listed = [
        row(
            f"q{number}",
            positives,
            [item for item in negatives if item not in positives + more],
            known_pos_ids=[*positives, *more],
        )
        for number, (positives, negatives, more) in enumerate(drawn)
    ]
    path = document(folder, *listed)
    made, removed = unroll(Document.load(path))
    own = [item.to_json() for item in unroll_rows(TrainingFile.load(path).rows)]
    for item in own:
        item["known_pos_ids"] = list(dict.fromkeys(item["known_pos_ids"]))
    assert made.rows == own and removed == 0
    assert unroll(made)[0].rows == made.rows


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([row("q", [], [])], "no positive"),
        ([row("q", ["a"], []), row("q", ["b"], [])], "two rows would have the id 'q'"),
        ([row("q", ["a", "b"], []), row("q_1", ["c"], [])], "two rows would have the id 'q_1'"),
        ([row("q", ["a"], [{"text": "x"}])], "row 0 (q)"),
        ([row("q", ["a"], [], weight=float("nan"))], "NaN"),
        ([row("q", ["a"], [], answer="\ud800")], "surrogate"),
    ],
)
def test_what_cannot_be_unrolled_is_one_error_and_leaves_no_file(tmp_path, capsys, rows, named):
    path = document(tmp_path, *rows)
    assert run(path) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and named in shown
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_is_there_is_replaced_only_on_request(tmp_path, capsys):
    path = document(tmp_path, row("q", ["a"], []))
    assert run(path, tmp_path / "out.json") == 0 and run(path, tmp_path / "out.json") == 1
    assert "is there already" in capsys.readouterr().err
    assert run(path, tmp_path / "out.json", overwrite=True) == 0
    assert run(path, path, overwrite=True) == 1
    assert json.loads(path.read_text())["data"] == [row("q", ["a"], [])]


@pytest.mark.parametrize("suffix", ["/x", "a/b", "a\0b"])
def test_a_suffix_that_is_no_part_of_a_name_is_one_error(tmp_path, capsys, suffix):
    assert run(document(tmp_path, row("a", ["p1"], [])), suffix=suffix) == 1
    assert "is no part of a file's name" in capsys.readouterr().err


def test_a_file_without_rows_stays_without(tmp_path):
    assert unroll(Document.load(document(tmp_path)))[0].rows == []
    with pytest.raises(PipelineError, match="cannot read"):
        Document.load(tmp_path / "nowhere.json")
