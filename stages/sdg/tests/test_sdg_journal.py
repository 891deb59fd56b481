from pathlib import Path

import pytest
from pipeline_sdg.journal import Journal, Reply, call_key

from pipeline.errors import PipelineError

REPLY = Reply("text ü", "stop", 10, 5)


def test_an_answer_survives_and_is_found_by_its_key_alone(tmp_path: Path) -> None:
    key = call_key(role="qa", model="m", messages=[{"role": "user", "content": "x"}], temperature=0.6)
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put(key, "qa", "m", REPLY)
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.get(key) == REPLY
        assert journal.get(call_key(role="qa")) is None
        assert len(journal) == 1


def test_the_key_moves_with_everything_that_moves_an_answer() -> None:
    base = {"role": "qa", "model": "m", "messages": [{"content": "x"}], "schema": {}, "temperature": 0.6, "seed": 1}
    changes = [
        {"role": "j"},
        {"model": "n"},
        {"messages": [{"content": "y"}]},
        {"schema": {"a": 1}},
        {"temperature": 0.7},
        {"seed": 2},
    ]
    keys = {call_key(**base), *(call_key(**{**base, **change}) for change in changes)}
    assert len(keys) == len(changes) + 1
    assert call_key(**dict(reversed(base.items()))) == call_key(**base)


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put_many("embed", "m", {"a": REPLY, "b": REPLY})
        with pytest.raises(PipelineError):
            journal.put_many("embed", "m", {"c": REPLY, "d": Reply(None, None, 0, 0)})  # type: ignore[arg-type]
        assert len(journal) == 2
        journal.put("e", "embed", "m", REPLY)
        assert journal.get("c") is None and journal.get("e") == REPLY


def test_every_commit_is_synced(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_or_newer_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(PipelineError, match="is damaged"):
        Journal(path)
    path.unlink()
    with Journal(path) as journal:
        journal._db.execute("PRAGMA user_version=99")
    with pytest.raises(PipelineError, match="newer version"):
        Journal(path)
