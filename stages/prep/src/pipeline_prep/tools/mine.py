"""`pipeline data mine`: hard negatives for a training file, with any embedding model (train, mine, train again)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checkpoints import find_model_folder, metadata_folder
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.records.sources.beir import is_beir
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.encode_corpus import Batches
from pipeline.retrieval.hardware import encode_batch_tokens, pick_device
from pipeline.retrieval.transformer import LoadOptions
from pipeline.retrieval.world import World
from pipeline.schemas.mine import NO_FROZEN_EVAL, MineConfig
from pipeline_prep.encoding import Keep, Model, Tokens, encode
from pipeline_prep.frozen import protected_by_frozen, read_frozen
from pipeline_prep.leaks import answers_of_texts
from pipeline_prep.mining.compute import make_compute
from pipeline_prep.mining.mine import mine
from pipeline_prep.mining.rescore import make_rescorer
from pipeline_prep.mining.task import MiningTask
from pipeline_prep.rows import answers_of
from pipeline_prep.tools.mine_output import tell, updated, write_report
from pipeline_prep.tools.outputs import check_output
from pipeline_prep.tools.training_json import Document

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("pipeline")


def command(values: dict[str, Any], command_line: Sequence[str]) -> int:
    """`values` are the keys of `MineConfig`; `command_line` names those that a person set."""
    config = MineConfig(**values)
    world = World.join(config.dist_timeout_minutes, config.device)
    if not world.leads:
        log.setLevel(logging.ERROR)
    try:
        run(config, command_line, world)
    finally:
        world.leave()
    return 0


def run(config: MineConfig, command_line: Sequence[str], world: World) -> Path:
    """Read, encode, mine, write; every process works, one writes. Returns the mined file.

    Raises:
        PipelineError: bad input, a model that cannot mine, or an output that is there already.
    """
    source, target = Path(config.train_qa_file_path), Path(config.train_file_output_path)
    output = check_output(target, [source], config.overwrite_output, "overwrite_output=true")
    document = Document.load(source)
    corpus = one_corpus(document)
    task = task_of(document, corpus, config)
    model = model_of(config, command_line)
    budget = encode_batch_tokens(config.encode_batch_tokens, model.device)
    keep = Keep(
        Path(config.cache_embeddings_dir or output.parent / ".cache_embeddings"),
        Batches(budget, config.query_embedding_batch_size),
        Batches(budget, config.document_embedding_batch_size),
        None if config.load_embeddings_from_cache else str(output),
    )
    # Before the corpus is encoded: a key or an address that is missing must not cost hours.
    rescorer = make_rescorer(config, output.parent, model.device) if world.leads else None
    encoder = model.load()
    encoded = encode(encoder, model, corpus, task.questions, keep, world)
    del encoder
    compute = make_compute(config, model.device, encoded.passages, encoded.queries, config.seed, world)
    mined = mine(task, encoded.queries, encoded.passages, config, seed=config.seed, compute=compute, rescorer=rescorer)
    if rescorer:
        rescorer.close()
    if world.leads:
        check_output(target, [source], config.overwrite_output, "overwrite_output=true")  # mining may take hours
        args = {**asdict(config), "model_name_or_path": model.reference, **encoded.contract.describe()}
        updated(document, task, mined, args).save(output)
        write_report(output, task, mined, args, compute.recall, config.seed)
        encoded.finish()
        tell(output, task, mined)
    return output


def one_corpus(document: Document) -> pa.Table:
    """The passages of the one corpus that all rows name.

    Raises:
        PipelineError: several corpora, a row of another corpus, or a question id that stands twice.
    """
    folders = document.corpus_folders()
    if len(folders) > 1:
        raise PipelineError(
            f"{document.path}: names {len(folders)} corpora; one is mined at a time",
            fix="write one file for each corpus, mine each, and train on all of them",
        )
    corpus = Corpora(False).folder(folders[0])
    ids = [document.id_of(row) for row in range(len(document.rows))]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise PipelineError(
            f"{document.path}: {len(twice)} question ids stand twice: {', '.join(twice[:5])}",
            fix="give every row an id of its own",
        )
    for row in range(len(document.rows)):
        named = document.id_of(row, "corpus_id")
        if named != corpus.id:
            raise PipelineError(f"{document.where(row)}: corpus_id is {named!r}, the corpus is {corpus.id!r}")
    return corpus.table.combine_chunks()


def task_of(document: Document, corpus: pa.Table, config: MineConfig) -> MiningTask:
    """The file's rows by number. Positives of all rows of a question are known to each of them.

    Raises:
        PipelineError: a row has no positive or question, or names a passage that the corpus does not hold.
    """
    number = {name: place for place, name in enumerate(corpus["id"].to_pylist())}
    rows = range(len(document.rows))
    siblings: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        siblings.setdefault(document.question_of(row), set()).update(document.known(row))
    positives = [_numbers(document, row, document.passages(row, "pos_doc"), number) for row in rows]
    for row in rows:
        if not positives[row]:
            raise PipelineError(f"{document.where(row)} has no positive in pos_doc", fix="leave such rows out")
    known = [sorted(number[key] for key in siblings[document.question_of(row)] if key in number) for row in rows]
    given = [
        _numbers(document, row, document.passages(row, "neg_doc"), number) if config.use_negatives_from_file else []
        for row in rows
    ]
    hidden, apart = _kept_for_test(document, corpus, config)
    return MiningTask(
        question_ids=[document.id_of(row) for row in rows],
        questions=[document.question(row) for row in rows],
        answers=[answers_of(row) for row in document.rows],
        corpus=corpus,
        positives=Ragged.of_rows(positives),
        known=Ragged.of_rows(known),
        given=Ragged.of_rows(given),
        hidden=np.array(hidden, np.int64),
        apart=np.array(apart, np.int64),
    )


def _kept_for_test(document: Document, corpus: pa.Table, config: MineConfig) -> tuple[list[int], list[int]]:
    """Passages that answer questions of the test set, and all that stand in its documents; ascending."""
    frozen = frozen_of(document, config)
    if not frozen:
        return [], []
    test_set = read_frozen(str(frozen))
    protected = protected_by_frozen(test_set)
    texts = corpus["text"].to_pylist()
    hidden = answers_of_texts(texts, protected, config.near_duplicate_threshold)
    named = {item.text for item in test_set.corpus.values() if not protected.documents.isdisjoint(item.documents)}
    return hidden, sorted({*hidden, *(place for place, text in enumerate(texts) if text in named)})


def _numbers(document: Document, row: int, names: list[str], number: dict[str, int]) -> list[int]:
    for name in names:
        if name not in number:
            raise PipelineError(
                f"{document.where(row)} names passage {name!r}, which is not in {document.corpus_folders()[0]}",
                fix="use the rows and the corpus of the same data set",
            )
    return list(dict.fromkeys(number[name] for name in names))


def frozen_of(document: Document, config: MineConfig) -> Path | None:
    """The test set that must not be touched: the one that is named, else the one beside the training file."""
    if config.frozen_eval == NO_FROZEN_EVAL:
        return None
    if config.frozen_eval:
        return Path(config.frozen_eval)
    beside = document.path.parent / "eval_beir"
    if not is_beir(beside):
        return None
    log.info(f"frozen_eval: {beside} (beside the training file; frozen_eval={NO_FROZEN_EVAL} for none)")
    return beside


def model_of(config: MineConfig, command_line: Sequence[str]) -> Model:
    """The miner under its contract: a checkpoint's own, else what its metadata say, else the configured values.

    Raises:
        PipelineError: no model there; the command line contradicts the checkpoint's contract.
    """
    reference = find_model_folder(str(config.model_name_or_path))
    place = metadata_folder(reference, config.model_revision)
    own = EncodingContract.load(place) if place else None
    if own:
        contract = own.under(config, command_line, str(place))
    else:
        described = contract_of_model(place) if place else None
        keys = ("query_prefix", "passage_prefix", "query_max_length", "passage_max_length")
        # What the model says of itself holds, unless a person says otherwise.
        said = {name: getattr(config, name) for name in keys if name in command_line or not described}
        contract = (described or EncodingContract(base_model=reference)).with_(**said)
    options = LoadOptions(config.model_revision, config.trust_remote_code, config.attn_implementation)
    tokens = Tokens(config.tokenizer_name_or_path, config.add_bos_token, config.add_eos_token)
    return Model(reference, contract, options, pick_device(config.device), config.precision, tokens)
