"""Names that clients send lead nowhere: no id of a model, thread, file or slot in a path or a body
makes a server that others can reach open, list or change anything outside its folders."""

from __future__ import annotations

import copy
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.rest_client import Rest
from support.rest_matrix import Case, cases

from nitrolib.adapters.rest.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = {"Authorization": "Bearer k"}
SECRET = "s3cret-content"
# Fields of bodies that name something that is kept.
NAMES = frozenset(
    {
        "model",
        "model_id",
        "llama_model_path",
        "model_path",
        "mmproj",
        "id",
        "source_url",
        "filename",
    }
    | {"assistant_id", "previous_response_id", "file_ids", "llama_log_folder", "grammar_file"}
)


# The registry looks at what bears a link's name, to tell its operator that links are not followed.
LINKS = (os.path.join("models", "link"), os.path.join("demo", "link.gguf"))


class Touched:
    """Which paths under a folder this process opens, lists, makes, moves or removes."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.events: list[tuple[str, str]] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, given: tuple[Any, ...]) -> None:
        if self.folder is None or not event.startswith(("open", "os.", "shutil.", "sqlite3.")):
            return
        for one in given:
            if isinstance(one, str | bytes | os.PathLike):
                if event == "os.listdir" and os.fsdecode(one).endswith(LINKS):
                    continue
                path = os.path.realpath(os.fsdecode(one).replace("\0", ""))
                if path.startswith(self.folder):
                    self.events.append((event, path))


TOUCHED = Touched()  # an audit hook stays for good


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Path]:
    """A models folder with a model and links out of it, and secrets beside it."""
    for place in ("models/demo", "secret/model"):
        (tmp_path / place).mkdir(parents=True)
        make_llama(tmp_path / place / "model.gguf")
    (tmp_path / "secret" / "model" / "model.json").write_text(f'{{"name": "{SECRET}"}}')
    (tmp_path / "secret" / "note.txt").write_text(SECRET)
    (tmp_path / "models" / "link").symlink_to(tmp_path / "secret" / "model")
    (tmp_path / "models" / "demo" / "link.gguf").symlink_to(
        tmp_path / "secret" / "model" / "model.gguf"
    )
    TOUCHED.events.clear()
    TOUCHED.folder = str((tmp_path / "secret").resolve())
    yield tmp_path
    TOUCHED.folder = None


def hostile(world: Path) -> list[str]:
    secret = world / "secret"
    return [
        "../secret/model",
        "..\\secret\\model",
        "demo/../../secret/model",
        "./../secret/note.txt",
        "..%2fsecret%2fmodel",
        "%2e%2e/secret/model",
        str(secret / "model" / "model.gguf"),
        f"file://{secret}/model/model.gguf",
        "link",
        "link/model.gguf",
        "demo/link.gguf",
        "demo\0/../../secret/note.txt",
        "..",
        ".",
        "/",
    ]


def requests(name: str, evil: str) -> Iterator[Case]:
    """Every operation of a document with *evil* in place of what it names, one name at a time."""
    firsts = (case for case in cases(name) if case.kind == "expected")
    for first in firsts:
        variables = [one["name"] for one in first.operation.parameters if one["in"] == "path"]
        if variables:
            yield first.at(dict.fromkeys(variables, evil))
        rules = first.operation.rules
        for field in sorted(NAMES & (rules.properties if rules else frozenset())):
            body = copy.deepcopy(first.body)
            body[field] = [evil] if field == "file_ids" else evil
            yield Case(
                operation=first.operation, kind="value", path=first.path, body=body,
                query=first.query, statuses=frozenset(), field=field,
            )  # fmt: skip


def state(world: Path) -> dict[Path, int]:
    """What lies among the secrets, and when it was written; this look at it does not count."""
    found = {path: path.stat().st_mtime_ns for path in (world / "secret").rglob("*")}
    TOUCHED.events.clear()
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_name_leads_out_of_the_folders(dialect: str, world: Path) -> None:
    rest = Rest(
        dialects=(dialect,), host="0.0.0.0", api_key="k",
        data_dir=str(world), models_dir=str(world / "models"), locallab_rate=0,
    )  # fmt: skip
    rest.document = "common"
    before = state(world)
    tried = 0
    for evil in hostile(world):
        for case in requests(dialect, evil):
            body = {} if case.body is None else {"json": case.body}
            answer = rest.http.open(
                case.path, method=case.method, headers=KEY, query_string=case.query, **body
            )
            tried += 1
            shown = (case.id, evil, answer.status, answer.text[:300])
            assert not TOUCHED.events, (shown, TOUCHED.events)
            assert SECRET not in answer.text, shown
            assert answer.status_code in case.operation.statuses | {404, 405}, shown
            answer.close()
    rest.app.extensions["nitrolib"].close()
    assert tried > 50
    assert state(world) == before


def test_what_is_touched_would_be_noticed(world: Path) -> None:
    """So that the test above can fail."""
    (world / "models" / "link" / "model.json").read_text()
    [*(world / "secret").iterdir()]
    names = {event for event, _ in TOUCHED.events}
    assert {"open", "os.listdir"} & names or {"open", "os.scandir"} & names
    assert "open" in names
