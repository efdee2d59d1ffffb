"""Several real models behind one server: which one answers, and in which template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.rest_client import CHAT, HELLO, LOAD, STATUS, UNLOAD, Answer

from nitrolib.adapters.rest import create_app
from nitrolib.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nitrolib.adapters.rest.service import Service

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"


class Server:
    """The application in this process, with engines of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        base = {
            "dialects": ("nitro",),
            "data_dir": str(folder),
            "threads": 1,
            "ctx_len": 256,
            "no_model": "model" not in settings,
        }
        self.app = create_app(settings=Settings(**{**base, **settings}))
        self.http = self.app.test_client()

    @property
    def service(self) -> Service:
        found: Service = self.app.extensions["nitrolib"]
        return found

    def chat(self, **fields: Any) -> Answer:
        got = self.http.post(CHAT, json={"messages": HELLO, "max_tokens": 2, **fields})
        answer = Answer(got.status_code, got.headers, got.data)
        got.close()
        return answer

    def prompt(self, **fields: Any) -> str:
        answer = self.http.post("/apply-template", json={"messages": HELLO, **fields})
        assert answer.status_code == 200, answer.data
        text: str = answer.json["prompt"]
        return text

    def status(self) -> dict[str, Any]:
        data: dict[str, Any] = self.http.get(STATUS).json["model_data"]
        return data

    def loaded(self) -> list[str]:
        return [seat.key for seat in self.service.pool.seats()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder whose registry has the models plain, templated and prompted."""
    models = tmp_path / "models"
    for name in ("plain", "templated", "prompted", "parts"):
        (models / name).mkdir(parents=True)
    make_llama(models / "plain" / "model.gguf")
    make_llama(models / "templated" / "model.gguf", chat_template=TEMPLATE)
    make_llama(models / "prompted" / "model.gguf", chat_template=TEMPLATE)
    make_llama(models / "parts" / "model.gguf", chat_template=TEMPLATE)
    prompts = {"pre_prompt": "", "user_prompt": "Q: ", "ai_prompt": " A:", "ctx_len": 128}
    _manifest(models / "prompted", settings=prompts, parameters={"stop": ["END"]})
    template = {"prompt_template": "<s>{system_message}<u>{prompt}<a>"}
    _manifest(models / "parts", settings=template)
    return tmp_path


def _manifest(folder: Path, **content: Any) -> None:
    (folder / "model.json").write_text(json.dumps(content))


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    yield made
    made.service.close()


# ---- which model ---------------------------------------------------------------------------------


def test_a_name_that_the_registry_knows_starts_that_model(server: Server) -> None:
    answer = server.chat(model="plain")
    assert answer.status == 200, answer.json
    assert "x-nitro-ignored" not in answer.headers
    assert server.loaded() == ["plain"]
    assert server.chat(model="templated").status == 200
    assert server.loaded() == ["templated"]  # the other one, idle, made room


def test_a_model_that_is_served_by_its_id_is_as_its_manifest_says(folder: Path) -> None:
    server = Server(folder, model="prompted", ctx_len=2048)
    try:
        assert server.loaded() == ["prompted"]
        assert server.prompt().startswith("Q: ")
        with server.service.use() as lease:
            assert lease.status.n_ctx == 128
            assert lease.profile.stop == ("END",)
    finally:
        server.service.close()


def test_what_the_operator_sets_goes_before_the_manifest(folder: Path) -> None:
    server = Server(folder, model="prompted", ctx_len=64, user_prompt="ME: ")
    try:
        assert "ME: " in server.prompt()
        with server.service.use() as lease:
            assert lease.status.n_ctx == 64
    finally:
        server.service.close()


def test_a_name_that_nobody_knows_is_answered_by_the_loaded_model_and_reported(
    server: Server,
) -> None:
    server.chat(model="plain")
    answer = server.chat(model="gpt-3.5-turbo")
    assert (answer.status, answer.headers["x-nitro-ignored"]) == (200, "model")
    assert server.loaded() == ["plain"]


@pytest.mark.parametrize("name", ["", "_", None])
def test_no_name_is_the_loaded_model(server: Server, name: str | None) -> None:
    assert server.chat(model=name).status == 409
    server.chat(model="plain")
    answer = server.chat(model=name)
    assert answer.status == 200
    assert "x-nitro-ignored" not in answer.headers


def test_without_a_model_an_unknown_name_is_the_missing_models_409(server: Server) -> None:
    answer = server.chat(model="gpt-3.5-turbo")
    assert (answer.status, answer.json["error"]["code"]) == (409, "model_not_loaded")


def test_strict_models_make_an_unknown_name_404(folder: Path) -> None:
    server = Server(folder, strict_model=True)
    try:
        assert server.chat(model="plain").status == 200
        answer = server.chat(model="gpt-3.5-turbo")
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    finally:
        server.service.close()


def test_a_loaded_model_is_known_by_its_alias_and_path_too(server: Server, folder: Path) -> None:
    path = str(make_llama(folder / "own.gguf"))
    body = {"llama_model_path": path, "model_alias": "mine", "cpu_threads": 1}
    assert server.http.post(LOAD, json=body).status_code == 200
    for name in ("mine", path):
        assert "x-nitro-ignored" not in server.chat(model=name).headers


@pytest.mark.parametrize(
    "name", ["../plain", "plain/../plain", "/etc/passwd", "a\x00b", "x" * 4096]
)
def test_names_are_never_paths(server: Server, name: str) -> None:
    server.chat(model="plain")
    answer = server.chat(model=name)
    assert (answer.status, answer.headers["x-nitro-ignored"]) == (200, "model")


def test_several_models_stay_loaded_where_the_operator_allows_it(folder: Path) -> None:
    server = Server(folder, max_models=2)
    try:
        for name in ("plain", "templated", "plain", "prompted"):
            assert server.chat(model=name).status == 200
        assert server.loaded() == ["prompted", "plain"]  # templated was unused for longest
        assert server.http.get(UNLOAD).json["message"] == "Model unloaded successfully"
        assert server.loaded() == ["plain"]
    finally:
        server.service.close()


def test_a_model_whose_file_is_absent_is_404_and_costs_no_loaded_one(
    server: Server, folder: Path
) -> None:
    (folder / "models" / "gone").mkdir()
    _manifest(folder / "models" / "gone", source_url="https://example.org/gone.gguf")
    server.chat(model="plain")
    answer = server.chat(model="gone")
    assert answer.status == 200  # as an unknown name is
    assert answer.headers["x-nitro-ignored"] == "model"
    assert server.loaded() == ["plain"]


# ---- which template ------------------------------------------------------------------------------


def test_a_model_of_the_registry_is_talked_to_as_its_file_says(server: Server) -> None:
    assert server.prompt(model="templated") == "[user]Hello\n[assistant]"
    status = server.status()
    assert (status["chat_template"], status["user_prompt"]) == (TEMPLATE, "")


def test_a_file_without_a_template_has_nitros_prompts(server: Server) -> None:
    assert server.prompt(model="plain").endswith("USER: Hello\nASSISTANT:")
    assert server.status()["chat_template"] is None


def test_prompts_of_a_manifest_go_before_the_files_template(server: Server) -> None:
    assert server.prompt(model="prompted") == "Q: Hello A:"
    status = server.status()
    assert (status["n_ctx"], status["user_prompt"]) == (128, "Q: ")
    assert "END" in status["stop"]
    assert server.prompt(model="parts") == "<u>Hello<a>"


def test_prompts_of_the_settings_go_before_the_files_template(folder: Path) -> None:
    server = Server(folder, user_prompt="U> ", pre_prompt="", ai_prompt="A>")
    try:
        assert server.prompt(model="templated") == "U> HelloA>"
        assert server.prompt(model="prompted") == "Q: Hello A:"
    finally:
        server.service.close()


def test_a_model_given_to_the_server_is_talked_to_as_its_file_says(folder: Path) -> None:
    server = Server(folder, model=str(folder / "models" / "templated" / "model.gguf"))
    try:
        assert server.prompt() == "[user]Hello\n[assistant]"
        assert server.loaded() == ["templated"]  # known by its id in the registry
    finally:
        server.service.close()


def test_what_nitro_loads_has_nitros_prompts(server: Server, folder: Path) -> None:
    path = str(folder / "models" / "templated" / "model.gguf")
    loaded = server.http.post(LOAD, json={"llama_model_path": path, "cpu_threads": 1})
    assert loaded.status_code == 200, loaded.data
    assert server.prompt().endswith("USER: Hello\nASSISTANT:")


def test_a_broken_template_in_a_file_is_reported_and_nitros_prompts_serve(
    server: Server, folder: Path
) -> None:
    (folder / "models" / "broken").mkdir()
    make_llama(folder / "models" / "broken" / "model.gguf", chat_template="{% if %}")
    assert server.prompt(model="broken").endswith("USER: Hello\nASSISTANT:")
    assert any("chat template" in warning for warning in server.status()["warnings"])


# ---- a caller's engine ---------------------------------------------------------------------------


def test_a_callers_engine_is_served_and_stays_the_callers(folder: Path) -> None:
    from nitrolib import Engine, LoadOptions

    path = folder / "models" / "templated" / "model.gguf"
    with Engine.open(path, LoadOptions(threads=1, ctx_len=256, warm_up=False)) as engine:
        settings = Settings(dialects=("nitro",), data_dir=str(folder))
        app = create_app(engine, settings)
        http = app.test_client()
        assert http.post("/apply-template", json={"messages": HELLO}).json["prompt"].startswith("[")
        engine.unload()
        assert http.post(CHAT, json={"messages": HELLO}).status_code == 409
        engine.load(path, LoadOptions(threads=1, ctx_len=256, warm_up=False))
        body = {"messages": HELLO, "max_tokens": 1}
        assert http.post(CHAT, json=body).status_code == 200
        app.extensions["nitrolib"].close()
        assert engine.status().model is not None
