"""An embedding model's vectors in other forms, as systems of their own: encoded once, searched once for each form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from pipeline.records.passages import Passage
from pipeline.records.results import VARIANT, Facts
from pipeline.retrieval.transformer import find_model
from pipeline_eval.dense import DenseSystem
from pipeline_eval.identity import Identity
from pipeline_eval.vector_forms import Form, Formed
from pipeline_eval.vectors import VectorIndex


@dataclass(frozen=True)
class SharedDense(DenseSystem):
    """A model whose vectors stay: the questions' in memory, the passages' in the files of the store."""

    _indexes: dict[int, tuple[dict[str, Passage], VectorIndex]] = field(default_factory=dict, compare=False)
    _questions: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, compare=False)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        with super().open(corpus) as index:

            def encode(texts: Sequence[str]) -> np.ndarray:
                found = self._questions[tuple(texts)] = index.encode(texts)
                return found

            self._indexes[id(corpus)] = corpus, index  # with the corpus, so that no other one gets its id
            yield index.made_into(encode)

    @contextmanager
    def again(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        """As `open`, but the model is loaded only for what was not encoded before."""
        with ExitStack() as stack:

            @cache
            def opened() -> VectorIndex:
                return stack.enter_context(self.open(corpus))

            def encode(texts: Sequence[str]) -> np.ndarray:
                found = self._questions.get(tuple(texts))
                return opened().encode(texts) if found is None else found

            _, index = self._indexes.get(id(corpus)) or (corpus, opened())
            yield index.made_into(encode)


@dataclass(frozen=True)
class VariantSystem:
    """`source` with its vectors in another form. Its time is not measured: see `vector_forms`."""

    source: SharedDense
    form: Form

    @property
    def name(self) -> str:
        return f"{self.source.name}{VARIANT}{self.form.name}"

    @property
    def identity(self) -> Identity:
        content = f"{self.form.meaning} of {self.source.identity.digest()}"
        return Identity(f"{self.source.reference}: {self.form.meaning}", content)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        with self.source.again(corpus) as full:
            form = self.form.fitted(full.vectors)
            facts = Facts(size_mb=full.facts.size_mb, vector_bytes=form.vector_bytes(full.vectors.dimension))
            yield full.made_into(lambda queries: form.queries(full.encode(queries)), Formed(full.vectors, form), facts)


def dimension_of(model: DenseSystem) -> int | None:
    """Numbers of a model's vectors as its config.json says; None where that does not tell."""
    files = find_model(model.reference, model.options, "embed")
    return getattr(files.config, "hidden_size", None) or files.settings.get("hidden_size")
