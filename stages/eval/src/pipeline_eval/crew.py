"""The processes of one evaluation: the first one decides what is measured and keeps it, the others do their share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from pipeline.errors import PipelineError
from pipeline.retrieval.world import World
from pipeline_eval.metrics import Run

_PATIENCE = timedelta(days=30)
"""How long the others wait for the next order: the first process may have long work of its own (BM25, a service)."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Order:
    """One system to measure on some test sets.

    `depth` is the number of passages a system that searches must find. `rankings`, one for each test set, are what a
    system that puts candidates in a new order works on.
    """

    system: str
    test_sets: list[str]
    depth: int = 0
    rankings: list[Run] | None = None


@dataclass(frozen=True)
class Crew(World):
    """A world whose processes say so when they fail: all end with the one error of the one that failed."""

    _patient: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def join(cls, timeout_minutes: int, device: str = "auto") -> Crew:
        """As `World.join`; `timeout_minutes` is for the work on one order, not for the wait until one comes."""
        crew = super().join(timeout_minutes, device)
        return crew if crew.size == 1 else replace(crew, _patient=dist.new_group(timeout=_PATIENCE, backend="gloo"))

    def give(self, order: Order | None) -> None:
        """Start the others on a system; None: nothing is left to do."""
        self._next(order)

    def orders(self) -> Iterator[Order]:
        """What the first process starts, until nothing is left."""
        while (order := self._next(None)) is not None:
            yield order

    def wait(self) -> None:
        self._roll_call()

    def share(self, value: Any) -> Any:
        self._roll_call()
        return _spoken(super().share, value)

    def gather_objects(self, value: Any) -> list[Any]:
        self._roll_call()
        return _spoken(super().gather_objects, value)

    @contextmanager
    def telling_failure(self) -> Iterator[None]:
        """For the others: whatever goes wrong in here the first process reports, in place of waiting in vain."""
        try:
            yield
        except Exception as error:
            known = error if isinstance(error, PipelineError) else PipelineError(f"{type(error).__name__}: {error}")
            with suppress(PipelineError):  # the first one has failed too, and says so itself
                self._roll_call((known.message, known.fix))
            raise

    def _next(self, order: Order | None) -> Order | None:
        if self.size == 1:
            return None
        holder = [order]
        _spoken(lambda _: dist.broadcast_object_list(holder, src=0, group=self._patient), order)
        return holder[0]

    def _roll_call(self, failure: tuple[str, str | None] | None = None) -> None:
        """Before all that processes do together, each says whether it has failed."""
        for failed in _spoken(super().gather_objects, failure):
            if failed:
                raise PipelineError(*failed)


def shared_out(items: list[_Value], world: World, work: Callable[[_Value], Any]) -> Iterable[Any]:
    """Results of `work` on all items in their order, everywhere; of several processes each does every `size`-th."""
    every = world.gather_objects([work(item) for item in items[world.rank :: world.size]])
    return [every[place % world.size][place // world.size] for place in range(len(items))]


def _spoken(call: Callable[[Any], _Value], value: Any) -> _Value:
    try:
        return call(value)
    except RuntimeError as error:  # the connection broke, or nobody came in time
        raise PipelineError(
            "another process of this run ended, or did not answer for dist_timeout_minutes",
            fix="its own message stands above; if there is none, the system killed it: is memory short?",
        ) from error
