"""Data sets on the Hugging Face hub: `hf://org/repo[/subset][@revision]`. Needs the extra `pipeline[data]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import as_id, as_list, as_object, as_text, references
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.draft import Corpus, Draft, Part
from pipeline.records.sources.files import first_line
from pipeline.records.sources.records import read_records
from pipeline.records.sources.spec import HUB
from pipeline.run.files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = "dataset_metadata.json"
_BATCH = 1024


class Repo:
    """One data set repository; whatever goes wrong on the way is one `PipelineError`."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self.revision = name, revision

    def files(self) -> list[str]:
        return self._with(
            "huggingface_hub",
            lambda library: library.HfApi().list_repo_files(self.name, repo_type="dataset", revision=self.revision),
        )

    def json(self, path: str) -> Any:
        where = {"repo_type": "dataset", "revision": self.revision}
        local = self._with("huggingface_hub", lambda library: library.hf_hub_download(self.name, path, **where))
        return read_json(Path(local))

    def table(self, config: str | None) -> pa.Table:
        """Split `train` of a configuration, in memory-mapped arrow buffers."""
        return self._with(
            "datasets",
            lambda library: library.load_dataset(self.name, config, split="train", revision=self.revision).with_format(
                "arrow"
            )[:],
        )

    def _with(self, library: str, work: Callable[[Any], Any]) -> Any:
        try:
            return work(import_module(library))
        except ImportError as error:
            raise PipelineError(
                f"{HUB}{self.name} needs the package {library}: {first_line(error)}",
                fix="uv sync --extra data, or pip install datasets",
            ) from error
        except Exception as error:  # the two libraries and the network under them have no common class of errors
            raise PipelineError(
                f"cannot read {HUB}{self.name}: {type(error).__name__}: {first_line(error)}",
                fix="check the name, the network, HF_TOKEN and HF_HUB_OFFLINE; or download the data and give its path",
            ) from error


def read_hub(place: str, corpora: Corpora) -> list[Part]:
    """The rows of a subset, of every subset where none is named, or of a plain data set of pairs.

    A subset `S` has `S/dataset_metadata.json`, the configuration `S_corpus` (id, text) and the configuration `S`
    (question, pos_doc and perhaps neg_doc). A repository without such files holds records or columns
    (see `records.py`); the subset is then the name of its configuration.

    Raises:
        PipelineError: the repository cannot be read, or a row is wrong.
    """
    repo, subset = open_repo(place)
    described = sorted(name.removesuffix(f"/{METADATA}") for name in repo.files() if name.endswith(f"/{METADATA}"))
    if not described or (subset and subset not in described):
        if described:
            raise PipelineError(f"{place}: there is no such subset", fix=f"known: {', '.join(described)}")
        corpora.need_no_instructions(place)
        return [read_records(place, "row", _records(repo.table(subset)), [])]
    return [_subset(repo, name, corpora) for name in ([subset] if subset else described)]


def open_repo(place: str) -> tuple[Repo, str | None]:
    """The repository that `hf://org/repo[/subset][@revision]` names, and the subset."""
    body, _, revision = place.removeprefix(HUB).partition("@")
    parts = body.strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise PipelineError(f"{place}: not a data set", fix="write hf://org/repo, hf://org/repo/subset, or …@revision")
    return Repo("/".join(parts[:2]), revision or None), parts[2] if len(parts) == 3 else None


def _subset(repo: Repo, subset: str, corpora: Corpora) -> Part:
    place = f"{HUB}{repo.name}/{subset}"
    where = f"{place}/{METADATA}"
    metadata = as_object(repo.json(f"{subset}/{METADATA}"), where)
    if metadata.get("ids_only"):
        raise PipelineError(f"{where}: ids_only, the texts are not in the repository", fix="fill in the texts yourself")
    corpus = corpora.add(place, metadata, where, lambda: _corpus_table(repo, subset), kind=None)
    table = repo.table(subset)
    _need(table, ("question", "pos_doc"), place)
    return _rows(table, subset, place, corpus)


def _corpus_table(repo: Repo, subset: str) -> pa.Table:
    import pyarrow as pa

    table = repo.table(f"{subset}_corpus")
    _need(table, ("id", "text"), f"{HUB}{repo.name} ({subset}_corpus)")
    names = [name for name in ("id", "text", "title") if name in table.column_names]
    return table.select(names).cast(pa.schema([(name, pa.large_string()) for name in names]))


def _need(table: pa.Table, columns: tuple[str, ...], place: str) -> None:
    if missing := [name for name in columns if name not in table.column_names]:
        raise PipelineError(f"{place}: lacks the columns {', '.join(missing)}, found {', '.join(table.column_names)}")


def _rows(table: pa.Table, subset: str, place: str, corpus: Corpus) -> Part:
    draft = Draft(place, "row")
    for number, row in _records(table):
        where = draft.where(number)
        given = row.get("question_id")
        question_id = f"{subset}:{number}" if given is None else as_id(given, where, "question_id")
        where = f"{where} ({question_id})"
        positives = references(row["pos_doc"], where, "pos_doc")
        if not positives:
            raise PipelineError(f"{where} has no positive in pos_doc")
        negatives = references(as_list(row.get("neg_doc")), where, "neg_doc")
        draft.add(number, question_id, as_text(row["question"], where, "question"), positives, negatives)
    return draft.by_id([corpus], [])


def _records(table: pa.Table) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in table.to_batches(_BATCH):
        for record in batch.to_pylist():
            yield number, record
            number += 1
