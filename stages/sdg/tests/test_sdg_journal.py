import asyncio
import multiprocessing
import shutil
import threading
from pathlib import Path

import pytest
from pipeline_sdg.journal import Journal, Reply, call_key
from pipeline_sdg.journals import open_journal, running_shards, unfinished_shards

from pipeline.errors import PipelineError
from pipeline.run.lock import stage_lock
from pipeline.run.manifest import mark_started

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


def part(root: Path, name: str) -> Path:
    return root / name if name == "preview" else root / "shards" / name


def put(root: Path, name: str | None, key: str) -> Path:
    """One answer in the journal of the root, the preview or a shard."""
    folder = part(root, name) if name else root
    with open_journal(folder, root) as journal:
        journal.put(key, "qa", "m", REPLY)
    return folder


def test_a_shard_reads_its_own_answers_and_the_roots_and_the_root_reads_all(tmp_path: Path) -> None:
    names = (None, "preview", "1-of-2", "2-of-2")
    for name in names:
        put(tmp_path, name, f"{name}")
    known = {name: {key for key in names if _has(tmp_path, name, f"{key}")} for name in names}
    assert known == {
        None: set(names),
        "preview": {None, "preview"},
        "1-of-2": {None, "preview", "1-of-2"},
        "2-of-2": {None, "preview", "2-of-2"},
    }
    assert not list(tmp_path.rglob("*.owner"))


def _has(root: Path, name: str | None, key: str) -> bool:
    with open_journal(part(root, name) if name else root, root) as journal:
        return journal.get(key) == REPLY and journal.knows(key)


def test_a_shard_has_a_budget_of_its_own_and_the_root_pays_for_all(tmp_path: Path) -> None:
    for name in (None, "preview", "1-of-2", "2-of-2"):
        put(tmp_path, name, f"{name}")
    with open_journal(part(tmp_path, "1-of-2"), tmp_path) as journal:
        assert journal.spent() == {"qa": (10, 5)} and len(journal) == 3
    with open_journal(tmp_path) as journal:
        assert journal.spent() == {"qa": (40, 20)}
        assert journal.means(4) == {"qa": (10, 5)} and journal.means(5) == {}


def test_hundreds_of_shards_are_read_and_none_is_touched(tmp_path: Path) -> None:
    import resource

    names = [f"{number}-of-150" for number in range(1, 151)]
    for name in names:
        put(tmp_path, name, name)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with open_journal(tmp_path) as journal:
            assert all(journal.knows(name) for name in names)
            beside = {path.name for path in (tmp_path / "shards").rglob("*") if path.is_file()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert beside == {"journal.sqlite"}


def test_an_empty_journal_says_so(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        assert journal.empty
    put(tmp_path, "1-of-2", "k")
    with open_journal(tmp_path) as journal:
        assert not journal.empty


def test_a_journal_that_another_machine_has_open_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = put(tmp_path, "1-of-2", "k")
    owner = folder / "journal.owner"
    owner.write_text("elsewhere\n")
    with open_journal(tmp_path) as journal:
        assert journal.get("k") is None
    assert "in use on elsewhere" in caplog.text and owner.exists()
    [running] = running_shards(tmp_path)
    assert running.startswith("shards/1-of-2 (in use on elsewhere") and str(owner) in running
    with open_journal(folder, tmp_path) as journal:  # its own file is always read: the dead run was this shard's
        assert journal.get("k") == REPLY
    assert running_shards(tmp_path) == []


def test_shards_that_run_or_did_not_come_to_their_end_are_named(tmp_path: Path) -> None:
    assert (unfinished_shards(tmp_path), running_shards(tmp_path)) == ([], [])
    for name in ("1-of-4", "2-of-4", "3-of-4", "4-of-4"):
        (put(tmp_path, name, name) / "manifest.json").write_text("{}")
    (part(tmp_path, "1-of-4") / "manifest.json").unlink()
    mark_started(part(tmp_path, "2-of-4"), "sdg")
    with stage_lock(part(tmp_path, "3-of-4")):
        [running] = running_shards(tmp_path)
        assert running.startswith("shards/3-of-4 (process ")
        assert unfinished_shards(tmp_path) == ["shards/1-of-4", "shards/2-of-4", "shards/3-of-4"]
    assert unfinished_shards(tmp_path) == ["shards/1-of-4", "shards/2-of-4"]


def test_a_journal_of_the_first_format_is_opened_and_gets_the_new_table(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.put("k", "qa", "m", REPLY)
        journal._writer.execute("DROP TABLE formats")
        journal._writer.execute("PRAGMA user_version=1")
    with Journal(path) as journal:
        assert journal.get("k") == REPLY and journal.form("a", "m") is None
        journal.put_form("a", "m", "prompt")
        journal.put_form("a", "m", "json_object")
    with Journal(tmp_path / "own.sqlite", [path]) as journal:
        assert (journal.form("a", "m"), journal.form("b", "m")) == ("json_object", None)


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
