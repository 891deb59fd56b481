"""Vectors kept between runs: used again exactly when text and key are equal, whatever was interrupted or cut off."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval import encode_corpus as encode_module
from pipeline.retrieval.encode_corpus import Batches, encode_corpus
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.vector_store import StoredPassages, VectorStore, hashes_of, store_key
from pipeline.retrieval.world import World
from pipeline.run.files import write_json

KEY = {"model": "m", "contract": "c", "tokenizer": "t", "dtype": "float32"}
DIMENSION = 8


class Killed(Exception):
    """Stands for a process that ends in the middle."""


class Encoder:
    """Words to vectors without a model; notes what it encodes and may end after some texts."""

    def __init__(self, ends_after: float = np.inf) -> None:
        self.contract = EncodingContract(query_max_length=64, passage_max_length=64)
        self.seen: list[str] = []
        self.ends_after = ends_after

    def tokenize(self, texts, kind):
        self.seen += texts
        return [[len(text), *text.encode()] for text in texts]

    def encode_tokens(self, tokens, kind, *, batch_tokens, batch_texts, on_batch):
        if len(self.seen) > self.ends_after:
            raise Killed
        on_batch(len(tokens))
        return np.array([vector_of(bytes(item[1:]).decode()) for item in tokens], np.float32).reshape(-1, DIMENSION)


def vector_of(text: str) -> np.ndarray:
    digest = hashlib.sha256(text.encode()).digest()
    vector = np.frombuffer(digest, np.uint8)[:DIMENSION].astype(np.float32) + 1
    return vector / np.linalg.norm(vector)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(encode_module, "_SHARD_TEXTS", 4)
    monkeypatch.setattr(encode_module, "_HASHED_AT_ONCE", 3)


@pytest.fixture
def texts() -> list[str]:
    return [f"passage {number} " + "word " * (number % 7) for number in range(30)]


def encoded(folder, texts, encoder=None, key=None, world=None, kind="passage") -> StoredPassages:
    store = VectorStore(folder, key or KEY, normalized=True)
    numbered = lambda numbers: [texts[number] for number in numbers]  # noqa: E731
    return encode_corpus(encoder or Encoder(), store, kind, len(texts), numbered, Batches(), world)


def expected(texts) -> np.ndarray:
    return np.array([vector_of(text).astype(np.float16) for text in texts], np.float32)


def shard_folders(folder) -> dict[str, int]:
    """Name -> inode of each shard."""
    return {item.name: item.stat().st_ino for item in folder.glob("*/*/*") if item.is_dir()}


def test_each_text_is_encoded_once_and_comes_back_in_its_place(tmp_path, texts):
    encoder, many = Encoder(), texts + texts[:5]
    found = encoded(tmp_path, many, encoder)
    assert len(found) == 35 and found.dimension == DIMENSION
    np.testing.assert_array_equal(found.take(np.arange(35)), expected(many))
    assert sorted(encoder.seen) == sorted(texts)
    again = Encoder()
    assert np.array_equal(encoded(tmp_path, many[::-1], again).take(np.arange(35)), expected(many[::-1]))
    assert again.seen == []


@pytest.mark.parametrize("finished", range(8))
def test_after_an_interruption_no_finished_shard_is_encoded_again(tmp_path, texts, finished):
    first = Encoder(ends_after=4 * finished)
    with pytest.raises(Killed):
        encoded(tmp_path, texts, first)
    kept = shard_folders(tmp_path)
    assert len(kept) == finished
    second = Encoder()
    found = encoded(tmp_path, texts, second)
    np.testing.assert_array_equal(found.take(np.arange(30)), expected(texts))
    assert len(second.seen) == 30 - 4 * finished and not set(second.seen) & set(first.seen[: 4 * finished])
    assert kept.items() <= shard_folders(tmp_path).items(), "finished shards were not touched"


def test_a_changed_text_alone_is_encoded_again(tmp_path, texts):
    encoded(tmp_path, texts)
    changed = [*texts[:7], "another text", *texts[8:]]
    encoder = Encoder()
    found = encoded(tmp_path, changed, encoder)
    assert encoder.seen == ["another text"]
    np.testing.assert_array_equal(found.take(np.arange(30)), expected(changed))


@pytest.mark.parametrize("name", KEY)
def test_another_key_shares_nothing(tmp_path, texts, name):
    encoded(tmp_path, texts)
    encoder = Encoder()
    encoded(tmp_path, texts, encoder, KEY | {name: "other"})
    assert sorted(encoder.seen) == sorted(texts)


def test_questions_and_passages_of_the_same_text_are_kept_apart(tmp_path, texts):
    encoded(tmp_path, texts)
    encoder = Encoder()
    encoded(tmp_path, texts, encoder, kind="query")
    assert sorted(encoder.seen) == sorted(texts)


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def wrong_rows(shard):
    np.save(shard / "vectors.npy", np.load(shard / "vectors.npy")[:-1])


DAMAGE = {
    "vectors cut off": lambda shard: cut(shard / "vectors.npy"),
    "vectors empty": lambda shard: cut(shard / "vectors.npy", 0),
    "texts cut off": lambda shard: cut(shard / "texts.npy"),
    "texts empty": lambda shard: cut(shard / "texts.npy", 0),
    "vectors gone": lambda shard: (shard / "vectors.npy").unlink(),
    "texts gone": lambda shard: (shard / "texts.npy").unlink(),
    "fewer vectors than texts": wrong_rows,
    "no array": lambda shard: (shard / "vectors.npy").write_bytes(b"not an array at all"),
    "never renamed": lambda shard: shard.rename(shard.parent / ".shard-left"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_half_shard_counts_as_missing_and_is_made_again(tmp_path, texts, damage):
    encoded(tmp_path, texts)
    shard = sorted(tmp_path.glob("*/passage/*"))[2]
    held = len(np.load(shard / "texts.npy"))
    DAMAGE[damage](shard)
    encoder = Encoder()
    found = encoded(tmp_path, texts, encoder)
    assert len(encoder.seen) == held
    np.testing.assert_array_equal(found.take(np.arange(30)), expected(texts))
    again = Encoder()
    encoded(tmp_path, texts, again)
    assert again.seen == [], "what was made again is found again"


def test_a_vector_that_is_not_finite_is_an_error_and_kept_nowhere(tmp_path, texts):
    class Broken(Encoder):
        def encode_tokens(self, tokens, kind, **how):
            return super().encode_tokens(tokens, kind, **how) * np.float32(np.nan)

    with pytest.raises(PipelineError, match="no finite vector for 4 passage texts") as error:
        encoded(tmp_path, texts, Broken())
    assert "precision=fp32" in error.value.fix and shard_folders(tmp_path) == {}
    store = VectorStore(tmp_path, KEY, normalized=True)
    with pytest.raises(PipelineError, match="not finite"):
        store.add("passage", hashes_of(["a"]), np.full((1, 3), 1e6, np.float32))
    assert shard_folders(tmp_path) == {}


def test_vectors_of_any_length_are_kept_in_full(tmp_path):
    store = VectorStore(tmp_path, KEY, normalized=False)
    vectors = np.array([[1e6, 1e-6, 1 / 3]], np.float32)
    store.add("passage", hashes_of(["a"]), vectors)
    np.testing.assert_array_equal(store.open("passage", hashes_of(["a"])).take(np.array([0, 0])), vectors[[0, 0]])


def test_what_was_never_encoded_is_asked_for_in_vain(tmp_path):
    store = VectorStore(tmp_path, KEY, normalized=True)
    with pytest.raises(KeyError, match="1 texts are not in"):
        store.open("passage", hashes_of(["a"]))
    store.add("passage", hashes_of(["a"]), np.ones((1, 2), np.float32))
    assert store.missing("passage", hashes_of(["a", "b"])).tolist() == [False, True]


def test_vectors_made_in_a_place_of_their_own_are_given_to_all(tmp_path):
    hashes = hashes_of(["a", "b"])
    shared, own = (VectorStore(place, KEY, normalized=True) for place in (tmp_path, tmp_path / ".fresh-1"))
    shared.add("passage", hashes[:1], np.ones((1, 2), np.float32))
    for number in range(2):
        own.add("passage", hashes[number : number + 1], np.full((1, 2), 0.5, np.float32))
    held = own.open("passage", hashes)
    own.publish(shared)
    assert not (tmp_path / ".fresh-1").exists() and (shared.folder / "key.json").is_file()
    assert not shared.missing("passage", hashes).any()
    assert held.take(np.arange(2)).tolist() == [[0.5, 0.5]] * 2, "who reads them goes on"


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut off"])
def test_a_shard_that_another_run_brings_at_the_same_moment_is_as_good(tmp_path, monkeypatch, whole):
    """Between our look and our rename the place is taken."""
    store, hashes, ones = VectorStore(tmp_path, KEY, normalized=True), hashes_of(["a"]), np.ones((1, 2), np.float32)
    real = os.replace
    write_json(store.folder / "key.json", KEY)  # so that the first rename is the shard's

    def late(source, target):
        monkeypatch.setattr(os, "replace", real)
        store.add("passage", hashes, ones)
        if not whole:
            cut(next(store.folder.glob("passage/*/vectors.npy")))
        real(source, target)

    monkeypatch.setattr(os, "replace", late)
    if whole:
        store.add("passage", hashes, ones)
        assert store.open("passage", hashes).take(np.array([0])).tolist() == [[1, 1]]
    else:
        with pytest.raises(OSError, match="not empty"):
            store.add("passage", hashes, ones)
    assert not list(tmp_path.glob("*/passage/.shard-*"))


def test_vectors_of_ones_own_mend_a_shard_that_was_cut_off(tmp_path):
    hashes, ones = hashes_of(["a"]), np.ones((1, 2), np.float32)
    shared, own = (VectorStore(place, KEY, normalized=True) for place in (tmp_path, tmp_path / ".fresh-1"))
    for store in (shared, own):
        store.add("passage", hashes, ones)
    cut(next(shared.folder.glob("passage/*/vectors.npy")))
    own.publish(shared)
    assert not shared.missing("passage", hashes).any() and len(list(shared.folder.glob("passage/*"))) == 1


def test_no_text_at_all(tmp_path):
    found = encoded(tmp_path, [])
    assert len(found) == 0 and found.take(np.arange(0)).shape[0] == 0 and list(found.blocks(5)) == []


@given(st.data(), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_blocks_give_every_passage_once_with_its_vector(data, size):
    shards = [np.arange(rows * 2, dtype=np.float16).reshape(rows, 2) + 100 * n for n, rows in enumerate((1, 5, 3))]
    places = data.draw(st.lists(st.sampled_from([(n, r) for n, held in enumerate(shards) for r in range(len(held))])))
    shard, row = (np.array([place[side] for place in places], np.int64) for side in (0, 1))
    stored = StoredPassages(shards, shard, row)
    vectors = np.array([shards[n][r] for n, r in places], np.float16).reshape(-1, 2)
    blocks = list(stored.blocks(size))
    numbers = np.concatenate([held for held, _ in blocks]) if blocks else np.empty(0, np.int64)
    assert sorted(numbers.tolist()) == list(range(len(places)))
    for held, found in blocks:
        assert 0 < len(held) <= size
        np.testing.assert_array_equal(found, vectors[held])
    np.testing.assert_array_equal(stored.take(np.arange(len(places))[::-1]), vectors[::-1].astype(np.float32))


@dataclass(frozen=True)
class Thread(World):
    board: list = field(default_factory=list)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))

    def wait(self) -> None:
        self.barrier.wait()

    def share(self, value):
        """As a broadcast: the first process goes on at once."""
        if self.leads:
            self.board.append(value)
        while not self.board:
            time.sleep(0.001)
        return self.board[0]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("already", [0, 8])
def test_two_processes_share_the_shards_and_both_get_all(tmp_path, texts, already, late):
    if already:
        with pytest.raises(Killed):
            encoded(tmp_path, texts, Encoder(ends_after=already))
    encoded(tmp_path / "alone", texts)
    barrier, board, encoders = threading.Barrier(2, timeout=30), [], (Encoder(), Encoder())
    found: list[StoredPassages | None] = [None, None]

    def work(rank: int) -> None:
        if rank and late:  # the first one has finished all its shards when this one begins to look
            while len(encoders[0].seen) < 4 * (4 - already // 8):
                time.sleep(0.001)
        found[rank] = encoded(tmp_path, texts, encoders[rank], world=Thread(rank, 2, board, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        np.testing.assert_array_equal(one.take(np.arange(30)), expected(texts))
    assert all(encoder.seen for encoder in encoders)
    assert len(encoders[0].seen) + len(encoders[1].seen) == 30 - already
    assert not set(encoders[0].seen) & set(encoders[1].seen)
    for file in (tmp_path / "alone").rglob("*.npy"):
        assert (tmp_path / file.relative_to(tmp_path / "alone")).read_bytes() == file.read_bytes()


def key_of(tiny, **contract) -> dict[str, str | None]:
    contract = EncodingContract(base_model=str(tiny), query_max_length=64, passage_max_length=64, **contract)
    encoder = BiEncoder.load(str(tiny), contract)
    return store_key(encoder, str(tiny), None)


@pytest.mark.slow
def test_the_key_stands_for_weights_tokenizer_and_contract(tmp_path, tiny_model):
    import shutil

    tiny = tiny_model("bert")
    own = shutil.copytree(tiny, tmp_path / "copy")
    first = key_of(tiny)
    assert key_of(own) == first, "the same model in another folder is the same"
    assert key_of(tiny, pooling="cls") != first
    assert key_of(tiny, query_prefix="q: ") == first, "a prefix is part of the text"
    weights = own / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert key_of(own) != first
    assert {name for name, value in key_of(own).items() if value != first[name]} == {"model"}


def test_a_hub_model_counts_by_the_commit_that_was_loaded():
    def key(commit, revision):
        model = SimpleNamespace(config=SimpleNamespace(_commit_hash=commit))
        encoder = SimpleNamespace(model=model, contract=EncodingContract())
        return store_key(encoder, "someone/model", revision)["model"]

    assert key("abc", None) == key("abc", "main") == "someone/model@abc"
    assert key("abc", None) != key("def", None) and key(None, "v1") == "someone/model@v1"


@pytest.mark.slow
def test_the_same_weights_under_both_names_are_one(tiny_model):
    contract = EncodingContract(query_max_length=64, passage_max_length=64)
    encoder = BiEncoder.load("embedded:all-MiniLM-L6-v2", contract)
    folder = resolve_model("embedded:all-MiniLM-L6-v2")
    assert store_key(encoder, "embedded:all-MiniLM-L6-v2", None) == store_key(encoder, folder, None)


def test_only_what_was_abandoned_long_ago_is_swept(tmp_path):
    """Two runs may share a folder: what one is writing now the other must not take away."""
    store = VectorStore(tmp_path, KEY, normalized=True)
    store.add("passage", hashes_of(["a"]), np.ones((1, 2), np.float32))
    for name, age in ((".shard-new", 10), (".shard-old", 10_000)):
        (store.folder / "passage" / name).mkdir()
        os.utime(store.folder / "passage" / name, (time.time() - age,) * 2)
    store.sweep()
    left = {path.name for path in (store.folder / "passage").iterdir()}
    assert ".shard-new" in left and ".shard-old" not in left and len(left) == 2
