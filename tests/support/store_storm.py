"""A store whose writer is killed again and again: nothing that was acknowledged may be missing.

    python tests/support/store_storm.py --count 100

A child process writes from several threads and prints a line before each change and one after it;
it is killed with SIGKILL in the middle. Then the store is opened again: every change whose second
line came is there, one whose second line did not come is there whole or not at all, and SQLite
finds its file sound. The next child goes on in the same store.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from nitrolib.errors import NotFound
from nitrolib.store import Store, text_part

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS = 3  # threads of the child
TEXT = "an answer of some length " * 40  # a few pages of SQLite in each transaction


def write_forever(url: str, seed: int) -> None:
    """What the child does, until it is killed."""
    store = Store.open(url)
    for number in range(WRITERS):
        work = Writer(store, f"{seed}_{number}", random.Random(f"{seed} {number}")).run
        threading.Thread(target=work, daemon=True).start()
    signal.pause()


class Writer:
    """One thread of the child; it changes only what it made itself."""

    def __init__(self, store: Store, name: str, rng: random.Random) -> None:
        self._store = store
        self._name = name
        self._rng = rng
        self._numbers = itertools.count()
        self._threads: list[str] = []

    def run(self) -> None:
        kinds: list[Callable[[], None]] = [
            self._thread,
            self._message,
            self._message,
            self._rename,
            self._answer,
            self._delete,
        ]
        while True:
            kind = self._rng.choice(kinds) if self._threads else self._thread
            kind()

    def _new(self, prefix: str) -> str:
        return f"{prefix}_{self._name}_{next(self._numbers)}"

    def _thread(self) -> None:
        """A thread with its first two messages, all at once."""
        thread, first, second = self._new("t"), self._new("m"), self._new("m")
        say("try", "thread", thread, [first, second])
        with self._store.transaction():
            self._store.threads.create(id=thread, title="new")
            for message in (first, second):
                self._store.messages.create(
                    thread, id=message, role="user", content=[text_part(message + TEXT)]
                )
        say("done", "thread", thread, [first, second])
        self._threads.append(thread)

    def _message(self) -> None:
        thread, message = self._rng.choice(self._threads), self._new("m")
        say("try", "message", thread, message)
        self._store.messages.create(
            thread,
            id=message,
            role="user",
            content=[text_part(message + TEXT)],
            file_ids=[f"f_{message}", "g"],
        )
        say("done", "message", thread, message)

    def _rename(self) -> None:
        thread, title = self._rng.choice(self._threads), self._new("title")
        say("try", "rename", thread, title)
        self._store.threads.update(thread, title=title)
        say("done", "rename", thread, title)

    def _answer(self) -> None:
        """A run that ends with its message, both at once."""
        thread, run, message = self._rng.choice(self._threads), self._new("r"), self._new("m")
        say("try", "run", thread, run)
        self._store.runs.create(thread, id=run, assistant_id="jan")
        say("done", "run", thread, run)
        say("try", "answer", thread, [run, message])
        with self._store.transaction():
            self._store.messages.create(
                thread,
                id=message,
                role="assistant",
                run_id=run,
                content=[text_part(message + TEXT)],
            )
            self._store.runs.update(thread, run, status="completed")
        say("done", "answer", thread, [run, message])

    def _delete(self) -> None:
        thread = self._threads.pop(self._rng.randrange(len(self._threads)))
        say("try", "delete", thread, None)
        self._store.threads.delete(thread)
        say("done", "delete", thread, None)


def say(*line: Any) -> None:
    """One line to the parent, in one piece: a pipe takes this much at once."""
    os.write(1, json.dumps(line).encode() + b"\n")


class Kept:
    """What must be in the store by the lines of the children. Of each thread: its title, messages
    and runs; the change that was under way when the child was killed, if there was one."""

    def __init__(self) -> None:
        self.threads: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.open: dict[str, tuple[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def read(self, line: bytes) -> None:
        state, kind, thread, what = json.loads(line)
        if state == "try":
            self.open[thread] = (kind, what)
            return
        del self.open[thread]
        self.counts[kind] += 1
        self._apply(kind, thread, what)

    def _apply(self, kind: str, thread: str, what: Any) -> None:
        if kind == "thread":
            self.threads[thread] = {"title": "new", "messages": list(what), "runs": {}}
        elif kind == "message":
            self.threads[thread]["messages"].append(what)
        elif kind == "rename":
            self.threads[thread]["title"] = what
        elif kind == "run":
            self.threads[thread]["runs"][what] = "queued"
        elif kind == "answer":
            run, message = what
            self.threads[thread]["messages"].append(message)
            self.threads[thread]["runs"][run] = "completed"
        else:
            del self.threads[thread]
            self.gone.add(thread)

    def check(self, store: Store) -> None:
        """Compare with *store*; what was under way is there whole or not at all, and from now on
        it must stay as it was found."""
        for thread, (kind, what) in self.open.items():
            if self._happened(store, kind, thread, what):
                self._apply(kind, thread, what)
                self.counts["unsaid"] += 1
        self.open.clear()
        found = {one.id: one for one in store.threads.list(limit=None).data}
        assert found.keys() == self.threads.keys(), "threads are missing, or came back"
        messages = store.messages.ids(list(found))
        for thread, expected in self.threads.items():
            assert found[thread].title == expected["title"]
            assert list(messages[thread]) == expected["messages"], thread
            runs = store.runs.list(thread, limit=None).data
            assert {run.id: run.status for run in runs} == expected["runs"], thread

    def check_messages(self, store: Store) -> None:
        """Compare every message's text and files too."""
        for thread, expected in self.threads.items():
            page = store.messages.list(thread, limit=None, order="asc")
            assert [one.text for one in page.data] == [m + TEXT for m in expected["messages"]]
            for one in page.data:
                assert one.file_ids in ((), (f"f_{one.id}", "g"))

    def _happened(self, store: Store, kind: str, thread: str, what: Any) -> bool:
        try:
            title = store.threads.get(thread).title
        except NotFound:
            assert kind in ("thread", "delete")
            return kind == "delete"
        if kind == "rename":
            return title == what
        if kind == "run":
            return what in {run.id for run in store.runs.list(thread, limit=None).data}
        if kind in ("message", "answer"):
            message = what if kind == "message" else what[1]
            return message in store.messages.ids([thread])[thread]
        return kind == "thread"


def storm(url: str, count: int, seed: int = 0) -> Counter[str]:
    """Kill a writer *count* times. Returns how many changes of each kind were acknowledged."""
    rng = random.Random(seed)
    kept = Kept()
    for number in range(count):
        _one_life(_named(url), f"{seed}{number}", kept, rng)
        _wait_for_sessions(url)
        with Store.open(url) as store:
            kept.check(store)
        _check_file(url)
    with Store.open(url) as store:
        kept.check_messages(store)
    _check_file(url)
    return kept.counts


def _one_life(url: str, seed: str, kept: Kept, rng: random.Random) -> None:
    """Start a writer, let it make some changes, kill it, and read what it said."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--write", url, "--seed", seed], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    with child, child.stdout:
        try:
            for _ in range(rng.randint(1, 60)):
                line = child.stdout.readline()
                assert line, "the writer died by itself"
                kept.read(line)
            time.sleep(rng.random() * 0.005)
        finally:
            child.kill()
        for line in child.stdout:
            kept.read(line)
    assert child.returncode == -signal.SIGKILL


def _check_file(url: str) -> None:
    """SQLite finds the file sound."""
    if not url.startswith("sqlite:///"):
        return
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def _named(url: str) -> str:
    """*url*, with a name for the sessions of the children where there are sessions."""
    if not url.startswith("postgresql"):
        return url
    return f"{url}{'&' if '?' in url else '?'}application_name=storm_{os.getpid()}"


def _wait_for_sessions(url: str) -> None:
    """A server of PostgreSQL ends what a killed client had sent: wait until it has."""
    if not url.startswith("postgresql"):
        return
    import psycopg

    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        while connection.execute(query, [f"storm_{os.getpid()}"]).fetchone() != (0,):
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="an empty database; by default a file of SQLite")
    parser.add_argument("--write", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_forever(arguments.write, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/store.db"
        counts = storm(url, arguments.count, arguments.seed)
    for kind, number in sorted(counts.items()):
        print(f"{kind:10} {number:6}")
    print(f"{arguments.count} kills, nothing missing, nothing damaged")


if __name__ == "__main__":
    main()
