"""Which files a client may name: any where nobody else can reach the server, else only those inside
folders that are meant for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.rest_client import LOAD, Rest

from nitrolib.adapters.rest.model_paths import ModelPaths
from nitrolib.config import Settings
from nitrolib.errors import Forbidden

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def remote(tmp_path: Path) -> ModelPaths:
    """Of a server that others can reach, with the folders `models` and `more`."""
    for name in ("models/zephyr", "models-2", "more", "secret"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "models" / "link.gguf").symlink_to(tmp_path / "secret" / "a.gguf")
    (tmp_path / "models" / "inside.gguf").symlink_to(tmp_path / "models" / "zephyr" / "a.gguf")
    (tmp_path / "models" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "models" / "loop").symlink_to(tmp_path / "models" / "loop")
    settings = Settings(
        host="0.0.0.0",
        api_key="k",
        models_dir=str(tmp_path / "models"),
        allow_paths=(str(tmp_path / "more"),),
    )
    return ModelPaths(settings)


@pytest.mark.parametrize("path", ["a.gguf", "/etc/passwd", "../../a.gguf", "C:\\a.gguf"])
def test_on_a_loopback_address_any_path_will_do(path: str) -> None:
    assert ModelPaths(Settings()).check(path) == path


@pytest.mark.parametrize("path", ["zephyr/a.gguf", "{root}/models/zephyr/a.gguf", "not/there.gguf"])
def test_paths_into_the_models_folder_pass(remote: ModelPaths, tmp_path: Path, path: str) -> None:
    found = remote.check(path.format(root=tmp_path))
    assert found == str(tmp_path / "models" / path.format(root=tmp_path))


def test_paths_into_an_allowed_folder_pass(remote: ModelPaths, tmp_path: Path) -> None:
    path = str(tmp_path / "more" / "a.gguf")
    assert remote.check(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../secret/a.gguf",
        "zephyr/../../secret/a.gguf",
        "zephyr/../zephyr/a.gguf",
        "..\\secret\\a.gguf",
        "{root}/secret/a.gguf",
        "{root}/secret/none.gguf",
        "{root}/models/../secret/a.gguf",
        "{root}/models-2/a.gguf",
        "{root}/models",
        "{root}",
        "/etc/passwd",
        "/",
        "link.gguf",
        "inside.gguf",
        "folder/a.gguf",
        "folder/none.gguf",
        "{root}/models/link.gguf",
        "loop",
        "loop/a.gguf",
    ],
)
def test_all_others_are_refused_alike(remote: ModelPaths, tmp_path: Path, path: str) -> None:
    with pytest.raises(Forbidden) as caught:
        remote.check(path.format(root=tmp_path))
    assert str(caught.value) == "models by path must lie in the models folder of this server"


def test_a_models_folder_that_is_itself_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "real")
    settings = Settings(host="0.0.0.0", api_key="k", models_dir=str(tmp_path / "models"))
    assert ModelPaths(settings).check("a.gguf") == str(tmp_path / "models" / "a.gguf")


def test_a_refused_load_is_403_and_tells_nothing_of_the_file(tmp_path: Path) -> None:
    rest = Rest(loaded=False, host="0.0.0.0", api_key="k", models_dir=str(tmp_path / "models"))
    (tmp_path / "there.gguf").write_bytes(b"GGUF")
    answers = [
        rest.post(LOAD, {"llama_model_path": str(tmp_path / name)}, headers=HEADERS)
        for name in ("there.gguf", "nowhere.gguf")
    ]
    assert [answer.status for answer in answers] == [403, 403]
    assert answers[0].json == answers[1].json
    assert str(tmp_path) not in answers[0].data.decode()
    assert rest.engine.loads == []
    inside = rest.post(LOAD, {"llama_model_path": "in.gguf"}, headers=HEADERS)
    assert inside.status == 200
    assert rest.engine.loads[0][0] == str(tmp_path / "models" / "in.gguf")


HEADERS = {"Authorization": "Bearer k"}
