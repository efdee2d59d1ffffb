"""A store's database: opening, migrating, transactions, threads and processes, failures."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.stores import KINDS, opened, store_url

from nitrolib.errors import Conflict, InvalidRequest, NotFound, StorageError
from nitrolib.store import Store, database

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with store_url(request.param, tmp_path) as url:
        yield url


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=120,
    )


def scalar(store: Store, statement: str) -> Any:
    with store._database.read() as connection:
        return connection.exec_driver_sql(statement).scalar()


class TestOpening:
    def test_what_was_written_is_there_after_opening_again(self, url: str) -> None:
        with Store.open(url) as store:
            thread = store.threads.create(title="kept")
        with Store.open(url) as store:
            assert store.threads.get(thread.id) == thread
            assert [one.id for one in store.assistants.list().data] == ["jan"]

    def test_a_closed_store_may_be_closed_again(self, url: str) -> None:
        store = Store.open(url)
        store.close()
        store.close()

    def test_two_stores_see_each_other(self, url: str) -> None:
        with Store.open(url) as one, Store.open(url) as two:
            thread = one.threads.create()
            assert two.threads.get(thread.id) == thread
            two.threads.delete(thread.id)
            with pytest.raises(NotFound):
                one.threads.get(thread.id)

    def test_many_processes_may_open_a_new_store_at_once(self, url: str) -> None:
        code = (
            "import sys; from nitrolib.store import Store; sys.stdin.read()\n"
            "with Store.open(sys.argv[1]) as store: print(store.threads.create().id)"
        )
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for _ in range(6)
        ]
        for child in children:  # all wait here, and go on together
            assert child.stdin is not None
            child.stdin.close()
            child.stdin = None
        ids = {child.communicate(timeout=120)[0].strip() for child in children}
        assert [child.returncode for child in children] == [0] * 6
        with Store.open(url) as store:
            assert {one.id for one in store.threads.list().data} == ids
            assert len(ids) == 6

    def test_the_migrations_make_the_tables_that_the_code_reads(self, url: str) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from nitrolib.store.tables import metadata

        with Store.open(url) as store, store._database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []

    def test_a_migration_can_be_undone(self, url: str) -> None:
        from alembic import command

        from nitrolib.store.upgrade import _config

        with Store.open(url) as store:
            config = _config()
            with store._database.write() as connection:
                config.attributes["connection"] = connection
                command.downgrade(config, "base")
        with Store.open(url) as store:
            assert store.assistants.get("jan")

    def test_a_store_of_a_later_version_is_refused(self, url: str) -> None:
        with Store.open(url) as store, store._database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StorageError, match="of version 9999") as caught:
            Store.open(url)
        assert caught.value.facts["reason"] == "version"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "threads.db",
            "mysql://user:secret@host/name",
            "sqlite://",
            "sqlite:///:memory:",
            "postgresql://user:secret@host:no-port/name",
        ],
    )
    def test_another_url_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            Store.open(url)
        assert caught.value.field == "url"
        assert "secret" not in str(caught.value)

    def test_a_server_that_is_not_there_is_an_error_without_the_password(self) -> None:
        with pytest.raises(StorageError) as caught:
            Store.open("postgresql://user:secret@127.0.0.1:9/name")
        assert "secret" not in str(caught.value)

    def test_without_the_packages_the_error_says_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['sqlalchemy'] = None\n"
            "from nitrolib import StorageError; from nitrolib.store import Store\n"
            "try: Store.open('sqlite:///x.db')\n"
            "except StorageError as error: print(error, error.reason)"
        )
        assert python(code).stdout == (
            "keeping threads needs the extra: pip install 'nitrolib[store]' driver\n"
        )


class TestSqlite:
    def test_a_path_is_opened_whatever_is_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "a?b=c#d%20@é" / "store.db"
        with Store.open(path) as store:
            thread = store.threads.create()
        assert path.is_file()
        with Store.open(path) as store:
            assert store.threads.get(thread.id) == thread

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "deep 100%" / "földer" / "store.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[Store]:
        with Store.open(f"sqlite:///{path}") as store:
            yield store

    def test_every_commit_reaches_the_disk_through_a_log(self, store: Store) -> None:
        assert scalar(store, "PRAGMA journal_mode") == "wal"
        assert scalar(store, "PRAGMA synchronous") == 2
        assert scalar(store, "PRAGMA foreign_keys") == 1
        assert scalar(store, "PRAGMA busy_timeout") == database.BUSY_S * 1000

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
    def test_the_file_is_its_owners_alone(self, store: Store, path: Path) -> None:
        store.threads.create()
        assert {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {
            "store.db": 0o600,
            "store.db-shm": 0o600,
            "store.db-wal": 0o600,
        }

    def test_a_full_disk_is_an_error_that_undoes_the_write(self, store: Store) -> None:
        thread = store.threads.create(title="kept")
        pages = scalar(store, "PRAGMA page_count")
        scalar(store, f"PRAGMA max_page_count={pages + 8}")
        with pytest.raises(StorageError) as caught:
            store.threads.update(thread.id, metadata={"text": "x" * 100_000})
        assert caught.value.facts["reason"] == "space"
        assert store.threads.get(thread.id) == thread
        scalar(store, "PRAGMA max_page_count=1000000")
        store.threads.update(thread.id, metadata={"text": "x" * 100_000})

    def test_something_else_than_a_database_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        path.write_bytes(b"this is no database " * 1000)
        with pytest.raises(StorageError) as caught:
            Store.open(f"sqlite:///{path}")
        assert caught.value.facts["reason"] == "damaged"
        assert path.read_bytes() == b"this is no database " * 1000

    def test_a_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError) as caught:
            Store.open(f"sqlite:///{tmp_path}")
        assert caught.value.facts["reason"] == "access"

    def test_a_writer_that_never_ends_is_an_error_for_the_others(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "BUSY_S", 0.2)
        with (
            Store.open(f"sqlite:///{path}") as store,
            contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        ):
            thread = store.threads.create()
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError) as caught:
                store.threads.create()
            assert caught.value.facts["reason"] == "busy"
            assert store.threads.list().data == (thread,)  # readers go on
            other.execute("ROLLBACK")
            store.threads.create()

    def test_a_fork_has_connections_of_its_own(self, store: Store, path: Path) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("nothing forks here")
        code = (
            "import os, sys; from nitrolib.store import Store\n"
            "store = Store.open(sys.argv[1]); parent = store.threads.create().id\n"
            "child = os.fork()\n"
            "made = store.threads.create(title='after').id\n"
            "assert store.threads.get(parent)\n"
            "if child: assert os.waitpid(child, 0)[1] == 0\n"
            "store.close(); os._exit(0)"
        )
        python(code, f"sqlite:///{path}")
        assert len(store.threads.list().data) == 3


class TestTransactions:
    def test_what_happens_in_one_happens_as_one(self, url: str) -> None:
        with Store.open(url) as store, Store.open(url) as other:
            with store.transaction():
                thread = store.threads.create()
                message = store.messages.create(thread.id, role="user")
                assert store.messages.get(thread.id, message.id) == message
                assert other.threads.list().data == ()
            assert other.messages.get(thread.id, message.id) == message

    def test_a_block_that_raises_undoes_everything(self, url: str) -> None:
        with Store.open(url) as store:
            kept = store.threads.create()

            def fail() -> None:
                with store.transaction():
                    store.threads.create()
                    store.threads.delete(kept.id)
                    raise ValueError("enough")

            with pytest.raises(ValueError, match="enough"):
                fail()
            assert store.threads.list().data == (kept,)

    def test_a_refusal_inside_may_be_caught(self, url: str) -> None:
        with Store.open(url) as store:
            with store.transaction():
                thread = store.threads.create(id="one")
                with pytest.raises(Conflict):
                    store.threads.create(id="one")
                with pytest.raises(NotFound):
                    store.threads.delete("two")
                message = store.messages.create("one", role="user")
            assert store.messages.get(thread.id, message.id) == message

    def test_one_thread_is_not_in_the_transaction_of_another(self, url: str) -> None:
        with Store.open(url) as store:
            found: list[Any] = []
            with store.transaction():
                store.threads.create()
                reader = threading.Thread(target=lambda: found.append(store.threads.list().data))
                reader.start()
                reader.join()
            assert found == [()]


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_write_and_read_at_once(kind: str, tmp_path: Path) -> None:
    errors: list[Exception] = []
    with opened(kind, tmp_path) as store:
        shared = store.threads.create().id

        def work(number: int) -> None:
            try:
                for index in range(15):
                    made = store.messages.create(shared, id=f"m_{number}_{index}", role="user")
                    assert store.messages.get(shared, made.id) == made
                    store.messages.list(shared)
            except Exception as error:  # noqa: BLE001 - whatever it is fails the test
                errors.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert errors == []
        found = store.messages.ids([shared])[shared]
        assert len(found) == 20 * 15
        for number in range(20):  # each thread's own stay in their order
            mine = [one for one in found if one.startswith(f"m_{number}_")]
            assert mine == [f"m_{number}_{index}" for index in range(15)]
