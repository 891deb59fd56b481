"""A folder of vectors that is too large: what goes, what stays, and when nothing goes."""

from __future__ import annotations

import errno
import fcntl
import os

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.retrieval.vector_cache import clock, in_use, prune
from pipeline.retrieval.vector_store import VectorStore, hashes_of

LONG_AGO = 1_000_000_000 * 10**9
"""ns: far before any clock of a test."""


def kept(folder, model: str, texts: list[str], age: int) -> VectorStore:
    """A store with one shard, used `age` seconds after LONG_AGO."""
    store = VectorStore(folder, {"model": model}, normalized=False)
    store.add("passage", hashes_of(texts), np.ones((len(texts), 4), np.float32))
    (shard,) = (path for path in (store.folder / "passage").iterdir() if (path / "texts.npy").is_file())
    os.utime(shard, ns=(LONG_AGO + age * 10**9,) * 2)
    return store


def there(store: VectorStore, texts: list[str]) -> bool:
    return not store.missing("passage", hashes_of(texts)).any()


@pytest.fixture
def stores(tmp_path) -> dict[str, VectorStore]:
    """One shard each; `second` was used before `first`."""
    return {name: kept(tmp_path, name, [name], age) for name, age in (("first", 3), ("second", 1), ("third", 2))}


def size_of(store: VectorStore) -> int:
    return sum(file.stat().st_size for file in store.folder.glob("passage/*/*"))


def test_the_longest_unused_go_first_until_the_rest_fits(tmp_path, stores):
    since, one = clock(tmp_path), size_of(stores["first"])
    done = prune(tmp_path, most=2 * one, since=since)
    assert (done.shards, done.freed, done.left) == (1, one, 2 * one)
    assert [there(store, [name]) for name, store in stores.items()] == [True, False, True]
    assert not stores["second"].folder.exists(), "no empty store is left"
    assert prune(tmp_path, most=2 * one, since=since).shards == 0
    assert not list(tmp_path.glob(".gone-*"))


def test_what_was_used_since_the_run_began_stays(tmp_path, stores):
    since = clock(tmp_path)
    opened = stores["second"].open("passage", hashes_of(["second"]))
    assert prune(tmp_path, most=0, since=since).shards == 2
    assert [there(store, [name]) for name, store in stores.items()] == [False, True, False]
    assert opened.take(np.array([0])).tolist() == [[1.0] * 4]


def test_only_the_texts_that_are_not_used_leave_a_store(tmp_path):
    store = kept(tmp_path, "model", ["old passage"], 1)
    since = clock(tmp_path)
    store.add("passage", hashes_of(["new passage"]), np.ones((1, 4), np.float32))
    store.open("passage", hashes_of(["new passage"]))
    assert prune(tmp_path, most=0, since=since).shards == 1
    assert there(store, ["new passage"]) and not there(store, ["old passage"])


def test_vectors_that_another_run_has_open_stay_readable(tmp_path, stores):
    opened = stores["first"].open("passage", hashes_of(["first"]))
    assert prune(tmp_path, most=0, since=clock(tmp_path) + 1).shards == 3
    assert opened.take(np.array([0])).tolist() == [[1.0] * 4]


def test_nothing_is_deleted_while_somebody_looks_vectors_up(tmp_path, stores):
    with in_use(tmp_path), in_use(tmp_path):
        assert prune(tmp_path, most=0, since=clock(tmp_path)) is None
    assert all(there(store, [name]) for name, store in stores.items())
    assert prune(tmp_path, most=0, since=clock(tmp_path)).shards == 3


def test_what_a_killed_process_left_is_removed_and_foreign_folders_are_not(tmp_path, stores):
    (tmp_path / ".gone-x").mkdir()
    foreign = tmp_path / "notes" / "a" / "b"
    foreign.mkdir(parents=True)
    (foreign / "vectors.npy").write_text("mine")
    prune(tmp_path, most=0, since=clock(tmp_path))
    assert not (tmp_path / ".gone-x").exists() and (foreign / "vectors.npy").is_file()


def test_a_shared_lock_is_asked_for_as_nfs_wants_it(tmp_path, monkeypatch):
    def nfs(lock, how):
        if how & fcntl.LOCK_SH and not lock.readable():
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", nfs)
    with in_use(tmp_path):
        assert clock(tmp_path) > 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOLCK, errno.ENOSYS])
def test_a_folder_that_cannot_be_locked_is_named_with_its_key(tmp_path, monkeypatch, code):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(PipelineError, match=str(tmp_path)) as caught, in_use(tmp_path):
        pass
    assert "cache_embeddings_dir" in caught.value.fix
