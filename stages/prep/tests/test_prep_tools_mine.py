"""`pipeline data mine` with the real embedded model on a handful of passages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_prep.tools.mine import command
from transformers import AutoModel, AutoTokenizer

from pipeline.assets import resolve_model
from pipeline.checkpoints import find_model_folder, metadata_folder
from pipeline.config.resolve import resolve_mine
from pipeline.contract import EncodingContract
from pipeline.errors import ConfigError, PipelineError
from pipeline.execution.plan import module_command
from pipeline.records.passages import Passage, write_corpus
from pipeline.retrieval.encoder import BiEncoder

MODEL = "embedded:all-MiniLM-L6-v2"
TEXTS = {
    "lava": "Lava is molten rock that flows out of a volcano.",
    "magma": "Magma is molten rock below the ground, before it erupts.",
    "bread": "Bread dough rises because yeast makes gas.",
    "cake": "Cake rises because of baking powder.",
    "bees": "A queen bee lays every egg of the hive.",
    "ants": "Ants live in colonies with a queen.",
}


def row(number: int, question: str, *positives: str, **more):
    base = {"question_id": f"q{number}", "question": question, "corpus_id": "c", "pos_doc": list(positives)}
    return base | {"neg_doc": [], "source": "hand", **more}


@pytest.fixture
def training_file(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "in/corpus", [Passage(key, text) for key, text in TEXTS.items()], "c")
    rows = [
        row(0, "What is lava?", {"id": "lava", "note": "kept"}, pos_score=[1], neg_doc=["bees"]),
        row(1, "Why does dough rise?", "bread", metadata={"answer": "because of baking powder"}),
    ]
    return save(tmp_path / "in/train.json", rows)


def save(path: Path, rows: list[dict], **top) -> Path:
    path.write_text(json.dumps({"corpus": {"path": "./corpus"}, "version": 3, **top, "data": rows}))
    return path


def mine(source: Path, output: Path, *overrides: str, model: str = MODEL) -> dict:
    given = [
        f"model_name_or_path={model}", f"train_qa_file_path={source}", f"train_file_output_path={output}",
        "device=cpu", "precision=fp32", "hard_neg_margin=null", "hard_negatives_to_mine=2", *overrides,
    ]  # fmt: skip
    settled = resolve_mine(None, given)
    assert command(vars(settled["config"]), sorted(settled["explicit"])) == 0
    return json.loads(output.read_text())


def test_rows_keep_what_they_have_and_get_near_negatives_with_scores(training_file, tmp_path):
    made = mine(training_file, tmp_path / "out/mined.json")
    assert made["corpus"] == {"path": "../in/corpus"} and made["version"] == 3
    assert made["mining"]["args"]["hard_negatives_to_mine"] == 2 and made["mining"]["args"]["pooling"] == "avg"
    lava, dough = made["data"]
    assert lava["source"] == "hand" and "pos_score" not in lava
    assert lava["pos_doc"][0]["note"] == "kept" and lava["pos_doc"][0]["score"] > lava["neg_doc"][0]["score"]
    assert lava["neg_doc"][0]["id"] == "magma" and len(lava["neg_doc"]) == 2
    assert "cake" not in [item["id"] for item in dough["neg_doc"]], "it holds the answer"
    for ending in ("report.json", "examples.md", "similarity.png"):
        assert (tmp_path / f"out/mined.{ending}").stat().st_size


def test_given_negatives_stand_first_if_asked(training_file, tmp_path):
    made = mine(training_file, tmp_path / "mined.json", "use_negatives_from_file=true", "hard_negatives_to_mine=1")
    assert [item["id"] for item in made["data"][0]["neg_doc"]] == ["bees", "magma"]


def test_siblings_and_answers_of_the_test_set_are_no_negatives(training_file, tmp_path):
    rows = [
        row(0, "What is lava?", "lava", original_question_id="q"),
        row(1, "Lava?", "magma", original_question_id="q"),
    ]
    made = mine(save(training_file, rows), tmp_path / "a.json", "hard_negatives_to_mine=6")
    assert all(not {"lava", "magma"} & {item["id"] for item in one["neg_doc"]} for one in made["data"])
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text(json.dumps({"_id": "x", "text": TEXTS["cake"]}))
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "t", "text": "Why does cake rise?"}))
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nt\tx\t1\n")

    def cake_is_a_negative(name: str, *overrides: str) -> bool:
        made = mine(training_file, tmp_path / name, "hard_negatives_to_mine=6", *overrides)
        return any(item["id"] == "cake" for one in made["data"] for item in one["neg_doc"])

    assert cake_is_a_negative("b.json")
    assert not cake_is_a_negative("c.json", f"frozen_eval={beir}")
    beir.rename(training_file.parent / "eval_beir")
    assert not cake_is_a_negative("d.json"), "prep's own test set lies beside its training file"
    assert cake_is_a_negative("e.json", "frozen_eval=off")


@pytest.mark.parametrize(
    ("rows", "top", "message"),
    [
        ([row(0, "a?", "lava"), row(0, "b?", "bees")], {}, "1 question ids stand twice: q0"),
        ([row(0, "a?", "lava", corpus_id="other")], {}, "corpus_id is 'other', the corpus is 'c'"),
        ([row(0, "a?", "gold")], {}, "names passage 'gold'"),
        ([row(0, "a?")], {}, "no positive"),
        ([row(0, "a?", "lava")], {"corpus": [{"path": "./corpus"}, {"path": "./more"}]}, "names 2 corpora"),
    ],
)
def test_a_file_that_cannot_be_mined_is_one_clear_error(training_file, tmp_path, rows, top, message):
    with pytest.raises(PipelineError, match=message) as error:
        mine(save(training_file, rows, **top), tmp_path / "out.json")
    assert str(training_file) in str(error.value) and not (tmp_path / "out.json").exists()


def test_input_and_existing_outputs_are_not_overwritten(training_file, tmp_path):
    with pytest.raises(PipelineError, match="one and the same"):
        mine(training_file, training_file, "overwrite_output=true")
    output = tmp_path / "out.json"
    output.write_text("mine")
    with pytest.raises(PipelineError, match="is there already") as error:
        mine(training_file, output)
    assert "overwrite_output=true" in error.value.fix and output.read_text() == "mine"
    assert mine(training_file, output, "overwrite_output=true")["data"]


@pytest.mark.parametrize("key", ["pooling=cls", "l2_normalize=false", "--mining.pooling=cls"])
def test_what_the_checkpoint_says_is_not_asked_here(key):
    with pytest.raises(PipelineError, match="kept with the model"):
        resolve_mine(None, [key])


def test_unknown_keys_are_refused_and_the_documented_file_is_read(tmp_path):
    with pytest.raises(ConfigError, match="did you mean hard_neg_margin"):
        resolve_mine(None, ["hard_neg_margn=0.9"])
    path = tmp_path / "mining.yaml"
    path.write_text("dist_env:\n  backend: nccl\n  timeout_minutes: 7\nmining:\n  model_name_or_path: m\n  seed: 3\n")
    given = ["mining.train_qa_file_path=a.json", "train_file_output_path=b.json"]
    config = resolve_mine(path, given)["config"]
    assert (config.model_name_or_path, config.seed, config.dist_timeout_minutes) == ("m", 3, 7)
    assert (config.train_qa_file_path, config.hard_negatives_to_mine, config.hard_neg_margin) == ("a.json", 20, 0.95)
    for wrong, said in (("mining: hello\n", "mining must hold"), ("dist_env:\n  timout: 3\n", "timout")):
        path.write_text(wrong)
        with pytest.raises((ConfigError, PipelineError), match=said):
            resolve_mine(path, given)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A run's folders around a model with a contract of its own."""
    run = tmp_path_factory.mktemp("run")
    model = run / "stage2_finetune/checkpoints/epoch_0_step_4/model/consolidated"
    place = resolve_model(MODEL)
    AutoModel.from_pretrained(place).save_pretrained(model)
    AutoTokenizer.from_pretrained(place).save_pretrained(model)
    EncodingContract(query_prefix="ask: ", query_max_length=32, passage_max_length=32).save(model)
    (run / "stage2_finetune/checkpoints/LATEST").symlink_to("epoch_0_step_4")
    return run


@pytest.mark.parametrize("place", ["", "stage2_finetune", "stage2_finetune/checkpoints/LATEST"])
def test_a_second_round_finds_the_tuned_model_and_uses_its_contract(checkpoint, training_file, tmp_path, place):
    made = mine(training_file, tmp_path / "out.json", model=str(checkpoint / place))
    args = made["mining"]["args"]
    assert args["model_name_or_path"].endswith("model/consolidated") and args["query_prefix"] == "ask: "
    with pytest.raises(PipelineError, match="contradicts 'ask: '"):
        mine(training_file, tmp_path / "two.json", "query_prefix=other", model=str(checkpoint / place))


def test_a_pointer_file_names_the_checkpoint_beside_it(checkpoint, tmp_path):
    folder = checkpoint / "stage2_finetune/checkpoints"
    (tmp_path / "epoch_0_step_4").symlink_to(folder / "epoch_0_step_4")
    (tmp_path / "LATEST.txt").write_text("epoch_0_step_4\n")
    found = find_model_folder(str(tmp_path))
    assert found == str(tmp_path / "epoch_0_step_4/model/consolidated") == find_model_folder(f"{tmp_path}/LATEST.txt")
    assert find_model_folder("org/model") == "org/model"
    for wrong in ("", ".", "LATEST", "../elsewhere"):
        (tmp_path / "LATEST.txt").write_text(wrong)
        with pytest.raises(PipelineError, match="is no checkpoint beside it"):
            find_model_folder(str(tmp_path))


def test_another_tokenizer_needs_no_model_beside_it(training_file, tmp_path):
    AutoTokenizer.from_pretrained(resolve_model(MODEL)).save_pretrained(tmp_path / "tokenizer")
    made = mine(training_file, tmp_path / "a.json", f"tokenizer_name_or_path={tmp_path / 'tokenizer'}")
    assert made["data"] == mine(training_file, tmp_path / "b.json")["data"]
    with pytest.raises(PipelineError, match="nowhere"):
        mine(training_file, tmp_path / "c.json", f"tokenizer_name_or_path={tmp_path / 'nowhere'}")


def test_what_a_hub_model_says_of_itself_is_read(checkpoint, monkeypatch, caplog):
    """A stand-in for the download; models in folders go the real way in all other tests here."""
    folder = checkpoint / "stage2_finetune/checkpoints/epoch_0_step_4/model/consolidated"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert metadata_folder("org/model") == folder

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert metadata_folder("org/model") is None and "(no network): defaults hold" in caplog.text


def test_a_folder_without_a_model_and_colbert_are_refused(checkpoint, training_file, tmp_path):
    with pytest.raises(PipelineError, match="no model in"):
        mine(training_file, tmp_path / "out.json", model=str(tmp_path))
    model = checkpoint / "stage2_finetune/checkpoints/epoch_0_step_4/model/consolidated"
    EncodingContract(pooling="colbert").save(tmp_path)
    for item in model.iterdir():
        if item.name != "encoding_contract.json":
            (tmp_path / item.name).symlink_to(item)
    with pytest.raises(PipelineError, match="a vector for every token"):
        mine(training_file, tmp_path / "out.json", model=str(tmp_path))


def test_finished_vectors_are_used_again_only_if_asked(training_file, tmp_path, monkeypatch):
    seen: list[str] = []
    tokenize = BiEncoder.tokenize
    monkeypatch.setattr(
        BiEncoder, "tokenize", lambda self, texts, kind: seen.extend(texts) or tokenize(self, texts, kind)
    )
    cache = f"cache_embeddings_dir={tmp_path / 'cache'}"
    for number, (more, expected) in enumerate([("false", 8), ("true", 0), ("false", 8)]):
        seen.clear()
        mine(training_file, tmp_path / f"{number}.json", cache, f"load_embeddings_from_cache={more}")
        assert len(seen) == expected
    seen.clear()
    mine(training_file, tmp_path / "eos.json", cache, "load_embeddings_from_cache=true", "add_eos_token=false")
    assert len(seen) == 8, "another tokenizer rule gives other vectors"


@pytest.mark.slow
def test_two_processes_write_what_one_writes(training_file, tmp_path):
    alone = mine(training_file, tmp_path / "one.json", f"cache_embeddings_dir={tmp_path / 'cache'}")
    given = [
        f"model_name_or_path={MODEL}", f"train_qa_file_path={training_file}", "device=cpu", "precision=fp32",
        f"train_file_output_path={tmp_path / 'two.json'}", "hard_neg_margin=null", "hard_negatives_to_mine=2",
        f"cache_embeddings_dir={tmp_path / 'cache'}", "load_embeddings_from_cache=true",
    ]  # fmt: skip
    settled = resolve_mine(None, given)
    options = json.dumps({"values": vars(settled["config"]), "command_line": sorted(settled["explicit"])})

    def in_two(arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *module_command("pipeline_prep.tools.main", 2)[1:], "mine", arguments]
        return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)

    done = in_two(options)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two.json").read_text())["data"] == alone["data"]
    assert done.stderr.count("data mine: done") == 1
    again = in_two(options)
    assert again.returncode == 1 and again.stderr.count("is there already") == 1
    assert "Traceback" not in again.stderr and "ChildFailedError" not in again.stderr
