import asyncio
import multiprocessing
import shutil
import threading
from pathlib import Path

import pytest
from pipeline_sdg.journal import Journal, Reply, call_key
from pipeline_sdg.journals import journal_name, open_journal

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
        assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_or_newer_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(PipelineError, match="is damaged"):
        Journal(path)
    path.unlink()
    with Journal(path) as journal:
        journal._writer.execute("PRAGMA user_version=99")
    with pytest.raises(PipelineError, match="newer version"):
        Journal(path)


def test_answers_that_come_together_share_commits_and_each_is_on_disk_when_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.sqlite"
    sizes: list[int] = []
    real = Journal._commit

    def counted(self: Journal, rows: list) -> None:
        sizes.append(len(rows))
        assert threading.current_thread() is not threading.main_thread()  # the disk is waited for elsewhere
        real(self, rows)

    monkeypatch.setattr(Journal, "_commit", counted)

    async def work() -> None:
        with Journal(path) as journal, Journal(path) as other:

            async def one(number: int) -> None:
                await journal.keep("qa", "m", {f"k{number}": REPLY})
                assert other.get(f"k{number}") == REPLY

            await asyncio.gather(*(one(number) for number in range(40)))

    asyncio.run(work())
    assert sum(sizes) == 40 and len(sizes) <= 3


def test_an_answer_that_cannot_be_kept_is_an_error_for_its_caller(tmp_path: Path) -> None:
    async def work() -> None:
        with Journal(tmp_path / "j.sqlite") as journal:
            journal._writer.execute("PRAGMA query_only=1")
            results = await asyncio.gather(
                *(journal.keep("qa", "m", {f"k{number}": REPLY}) for number in range(3)), return_exceptions=True
            )
            assert all(isinstance(item, PipelineError) and "cannot write" in str(item) for item in results)
            journal._writer.execute("PRAGMA query_only=0")
            await journal.keep("qa", "m", {"later": REPLY})
            assert len(journal) == 1

    asyncio.run(work())


def _write_many(path: Path, name: str) -> None:
    with Journal(path) as journal:
        for number in range(20):
            journal.put(f"{name}{number}", "qa", "m", REPLY)


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with Journal(path) as journal:
        assert len(journal) == 60
        assert journal.spent() == {"qa": (600, 300)}


def test_a_shard_writes_its_own_file_and_reads_all(tmp_path: Path) -> None:
    assert (journal_name(None), journal_name((2, 4))) == ("journal.sqlite", "journal-2-of-4.sqlite")
    for shard in (None, (1, 4), (2, 4)):
        with open_journal(tmp_path, shard) as journal:
            journal.put(f"{shard}", "qa", "m", REPLY)
    with open_journal(tmp_path) as journal:
        assert all(journal.get(f"{shard}") == REPLY for shard in (None, (1, 4), (2, 4)))
        assert journal.path.name == "journal.sqlite" and len(journal) == 3
    assert not list(tmp_path.glob("*.owner"))


def test_a_journal_that_another_machine_has_open_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_journal(tmp_path, (1, 2)) as journal:
        journal.put("k", "qa", "m", REPLY)
    owner = tmp_path / "journal-1-of-2.owner"
    owner.write_text("elsewhere\n")
    with open_journal(tmp_path, (2, 2)) as journal:
        assert journal.get("k") is None
    assert "in use on elsewhere" in caplog.text and owner.exists()
    with open_journal(tmp_path, (1, 2)) as journal:  # its own file is always read: the dead run was this shard's
        assert journal.get("k") == REPLY


def test_resume_says_which_answers_are_used(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="resume=always"), open_journal(tmp_path, resume="always"):
        pass
    with open_journal(tmp_path) as journal:
        journal.put("k", "qa", "m", REPLY)
    with open_journal(tmp_path, resume="always") as journal:
        assert journal.get("k") == REPLY
    with open_journal(tmp_path, resume="never") as journal:
        assert journal.get("k") is None
        journal.put("new", "qa", "m", REPLY)
    with open_journal(tmp_path) as journal:
        assert (journal.get("k"), journal.get("new")) == (None, REPLY)
    [aside] = tmp_path.glob("journal.until-*.sqlite")
    with Journal(aside) as journal:
        assert journal.get("k") == REPLY  # paid for: kept


def test_what_a_killed_process_left_in_the_log_is_found(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put("k", "qa", "m", REPLY)
        for path in tmp_path.glob("j.sqlite*"):  # as the disk looks at a kill: the answer is in the log alone
            shutil.copy(path, tmp_path / path.name.replace("j.", "copy."))
    with Journal(tmp_path / "copy.sqlite") as journal:
        assert journal.get("k") == REPLY
