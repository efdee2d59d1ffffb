"""Models of the Jan dialect over a fake engine: one object for both schemas, in every state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.jan_rest import MODEL, Jan

from nitrolib.adapters.rest.profile import Profile
from nitrolib.errors import DownloadError
from nitrolib.models import DownloadStatus
from nitrolib.validation import schema

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with one model that is there and one that is not."""
    for name in ("small", "org/absent"):
        (tmp_path / "models" / name).mkdir(parents=True)
    make_llama(tmp_path / "models" / "small" / "small.gguf")
    absent = {"source_url": "https://example.org/absent.gguf"}
    (tmp_path / "models" / "org" / "absent" / "model.json").write_text(json.dumps(absent))
    return tmp_path / "models"


@pytest.fixture
def jan(tmp_path: Path, folder: Path) -> Jan:
    return Jan(tmp_path, models_dir=str(folder), loaded=False)


def listed(jan: Jan, query: str = "") -> list[Any]:
    answer = jan.call("GET", f"/models{query}", None, "ListModelsResponse")
    for one in answer["data"]:
        for name in ("Model", "ModelDto", "ModelObject"):
            schema("jan", name).check(one)
    data: list[Any] = answer["data"]
    return data


def state_of(jan: Jan, model: str) -> str:
    shown = jan.call("GET", f"/models/{model}", None, "GetModelResponse")
    state: str = shown["state"]
    return state


class Downloads:
    """What downloads are asked for and say; nothing is fetched."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.state: Any = "downloading"
        self.known: set[str] = set()
        self.error: Exception | None = None

    def start(self, source: Any, **fields: Any) -> DownloadStatus:
        if self.error is not None:
            raise self.error
        self.asked.append((source, fields))
        name = getattr(source, "id", None) or fields.get("id") or "made-up"
        self.known.add(name)
        return DownloadStatus(id=name, source_url="x", state=self.state)

    def status(self, model: str) -> DownloadStatus | None:
        if model not in self.known:
            return None
        return DownloadStatus(id=model, source_url="x", state=self.state)

    def cancel(self, model: str) -> bool:
        known = model in self.known
        self.known.discard(model)
        return known

    def close(self) -> None:
        pass


@pytest.fixture
def downloads(jan: Jan) -> Downloads:
    made = Downloads()
    jan.app.extensions["nitrolib"]._downloads = made
    return made


class TestStates:
    def test_a_model_without_its_file_is_told_of_but_not_listed(self, jan: Jan) -> None:
        assert [one["id"] for one in listed(jan)] == ["small"]
        assert state_of(jan, "org/absent") == "not_downloaded"

    def test_start_and_stop_change_the_state(self, jan: Jan) -> None:
        assert state_of(jan, "small") == "downloaded"
        for _ in range(2):
            started = jan.call("PUT", "/models/small/start", None, "StartModelResponse")
            assert (started["id"], started["state"]) == ("small", "running")
            assert state_of(jan, "small") == "running"
        assert len(jan.engine.loads) == 1
        for _ in range(2):
            stopped = jan.call("PUT", "/models/small/stop", None, "StopModelResponse")
            assert stopped["state"] == "stopped"
            assert state_of(jan, "small") == "stopped"
        assert [one["state"] for one in listed(jan)] == ["available"]

    def test_a_model_that_chats_started_has_run_too(self, jan: Jan) -> None:
        jan.call("POST", "/chat/completions", jan.chat_body(model="small"))
        assert state_of(jan, "small") == "running"
        jan.app.extensions["nitrolib"].pool.unload()
        assert state_of(jan, "small") == "stopped"

    def test_a_model_on_its_way_is_listed(self, jan: Jan, downloads: Downloads) -> None:
        downloads.known.add("org/absent")
        assert [(one["id"], one["state"]) for one in listed(jan)] == [
            ("small", "available"),
            ("org/absent", "downloading"),
        ]
        assert state_of(jan, "org/absent") == "not_downloaded"

    def test_while_it_is_loaded_or_unloaded_it_says_what_can_be_done(self, jan: Jan) -> None:
        pool = jan.app.extensions["nitrolib"].pool
        for state, told in (("loading", "downloaded"), ("unloading", "running")):
            pool.state = lambda _key, state=state: state
            assert state_of(jan, "small") == told


class TestList:
    def test_the_current_model_comes_first(self, jan: Jan, folder: Path) -> None:
        (folder / "another").mkdir()
        make_llama(folder / "another" / "x.gguf")
        assert [one["id"] for one in listed(jan)] == ["another", "small"]
        assert listed(jan, "?loaded=true") == []
        jan.call("PUT", "/models/small/start")
        assert [one["id"] for one in listed(jan)] == ["small", "another"]
        assert [one["id"] for one in listed(jan, "?loaded=true")] == ["small"]

    def test_a_model_loaded_by_its_path_is_listed_by_its_name(self, tmp_path: Path) -> None:
        jan = Jan(tmp_path, models_dir=str(tmp_path / "none"))
        assert [one["id"] for one in listed(jan)] == [MODEL]
        assert state_of(jan, MODEL) == "running"

    def test_no_folder_is_no_model(self, tmp_path: Path) -> None:
        jan = Jan(tmp_path, models_dir=str(tmp_path / "none"), loaded=False)
        assert listed(jan) == []

    def test_a_bad_query_is_refused(self, jan: Jan) -> None:
        assert jan.fails("GET", "/models?loaded=maybe") == (400, "invalid_value", "loaded")


class TestStart:
    def test_the_body_overlays_model_json(self, jan: Jan, folder: Path) -> None:
        settings = {"ctx_len": "512", "n_parallel": "2", "embedding": "false"}
        (folder / "small" / "model.json").write_text(json.dumps({"settings": settings}))
        jan.call("PUT", "/models/small/start", {"ctx_len": 1024, "cpu_threads": 1})
        options = jan.engine.loads[0][1]
        assert (options.ctx_len, options.n_parallel, options.embedding) == (1024, 2, False)
        shown = jan.call("GET", "/models/small", None, "GetModelResponse")
        assert shown["settings"]["ctx_len"] == "1024"
        assert (shown["parameters"]["ctx_len"], shown["parameters"]["n_parallel"]) == (1024, 2)
        assert json.loads((folder / "small" / "model.json").read_text())["settings"] == settings

    def test_the_body_may_be_an_object_in_a_text(self, jan: Jan) -> None:
        text = json.dumps(json.dumps({"ctx_len": 1024}))
        answer = jan.request(
            "PUT", "/v1/models/small/start", data=text, content_type="application/json"
        )
        assert answer.status == 200
        assert jan.engine.loads[0][1].ctx_len == 1024

    def test_other_settings_load_it_anew(self, jan: Jan) -> None:
        jan.call("PUT", "/models/small/start", {"ctx_len": 512})
        jan.call("PUT", "/models/small/start")
        assert len(jan.engine.loads) == 1
        jan.call("PUT", "/models/small/start", {"ctx_len": 1024})
        assert [options.ctx_len for _, options, _ in jan.engine.loads] == [512, 1024]

    def test_prompts_may_be_given(self, jan: Jan) -> None:
        body = {"prompt_template": "{system_message}\nQ: {prompt}\nA:"}
        jan.call("PUT", "/models/small/start", body)
        jan.call("POST", "/chat/completions", jan.chat_body(model="small"))
        assert "Q: Hello" in jan.engine.requests[0].prompt.text  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"ctx_len": "512"}, "ctx_len"),
            ({"ngl": -1}, "ngl"),
            ({"n_parallel": 0}, "n_parallel"),
            ({"n_parallel": 65}, "n_parallel"),
        ],
    )
    def test_a_bad_setting_is_refused(self, jan: Jan, body: Any, field: str) -> None:
        assert jan.fails("PUT", "/models/small/start", body) == (400, "invalid_value", field)
        text = json.dumps(json.dumps(body))
        answer = jan.request(
            "PUT", "/v1/models/small/start", data=text, content_type="application/json"
        )
        assert (answer.status, answer.json["error"]["param"]) == (400, field)
        assert jan.engine.loads == []

    @pytest.mark.parametrize("data", ['"nonsense"', '"[1]"', '"', "5", "[]"])
    def test_a_body_that_is_no_object_is_refused(self, jan: Jan, data: str) -> None:
        answer = jan.request(
            "PUT", "/v1/models/small/start", data=data, content_type="application/json"
        )
        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")

    def test_what_is_not_there_cannot_be_started(self, jan: Jan) -> None:
        for model in ("nothing", "org/absent", "..", "%2e%2e%2fsmall"):
            for action in ("start", "stop"):
                if (model, action) == ("org/absent", "stop"):
                    continue
                refused = jan.fails("PUT", f"/models/{model}/{action}", None)
                assert refused[:2] == (404, "model_not_found"), (model, action)


class TestDelete:
    def test_a_running_model_is_stopped_and_gone(self, jan: Jan, folder: Path) -> None:
        jan.call("PUT", "/models/small/start")
        gone = jan.call("DELETE", "/models/small", None, "DeleteModelResponse")
        assert gone == {"id": "small", "object": "model", "deleted": True}
        assert jan.engine.model is None
        assert not (folder / "small").exists()
        assert jan.fails("GET", "/models/small") == (404, "model_not_found", "model")
        assert jan.fails("DELETE", "/models/small") == (404, "model_not_found", "model")

    def test_a_file_in_place_stays(self, jan: Jan, tmp_path: Path, folder: Path) -> None:
        path = make_llama(tmp_path / "mine.gguf")
        jan.call("POST", "/models", {"source_url": str(path), "id": "mine"})
        jan.call("DELETE", "/models/mine")
        assert path.is_file()
        assert not (folder / "mine").exists()

    def test_a_download_is_ended(self, jan: Jan, downloads: Downloads) -> None:
        downloads.known.add("org/absent")
        jan.call("DELETE", "/models/org/absent", None, "DeleteModelResponse")
        assert downloads.known == set()
        assert jan.fails("GET", "/models/org/absent")[0] == 404

    @pytest.mark.parametrize("model", ["..", "%2e%2e", "../small", "a/../small", "%00", "C:%5Cx"])
    def test_no_id_is_a_path(self, jan: Jan, folder: Path, model: str) -> None:
        assert jan.fails("DELETE", f"/models/{model}")[0] in (404, 405)
        assert (folder / "small" / "small.gguf").is_file()


class TestAdd:
    @pytest.mark.parametrize("as_url", [True, False])
    def test_a_file_on_this_machine_stays_where_it_is(
        self, jan: Jan, tmp_path: Path, as_url: bool
    ) -> None:
        path = make_llama(tmp_path / "my model.Q8_0.gguf")
        source = path.as_uri() if as_url else str(path)
        made = jan.call("POST", "/models", {"source_url": source}, "DownloadModelResponse")
        assert (made["id"], made["state"]) == ("my model.Q8_0", "downloaded")
        shown = jan.call("GET", "/models/my model.Q8_0", None, "GetModelResponse")
        assert shown["source_url"] == path.as_uri()
        again = jan.call("POST", "/models", {"source_url": source}, "DownloadModelResponse")
        assert again == made

    def test_what_is_told_of_it_is_shown(self, jan: Jan, tmp_path: Path) -> None:
        body = {
            "source_url": str(make_llama(tmp_path / "x.gguf")),
            "id": "org/mine",
            "name": "Mine",
            "description": "About it",
            "settings": {"ctx_len": 512},
            "parameters": {"temperature": 0.1},
            "metadata": {"author": "Ada", "tags": ["a"]},
        }
        jan.call("POST", "/models", body, "DownloadModelResponse")
        shown = jan.call("GET", "/models/org/mine", None, "GetModelResponse")
        assert (shown["name"], shown["description"], shown["author"]) == ("Mine", "About it", "Ada")
        assert (shown["settings"]["ctx_len"], shown["temperature"], shown["tags"]) == (
            "512",
            0.1,
            ["a"],
        )

    def test_an_id_that_another_model_has_is_refused(self, jan: Jan, tmp_path: Path) -> None:
        body = {"source_url": str(make_llama(tmp_path / "x.gguf")), "id": "small"}
        assert jan.fails("POST", "/models", body)[:2] == (409, "conflict")

    @pytest.mark.parametrize("given", ["..", "/x", "a/../b", "a\\b", "a\nb", "."])
    def test_an_id_that_could_be_a_path_is_refused(
        self, jan: Jan, tmp_path: Path, given: str
    ) -> None:
        body = {"source_url": str(make_llama(tmp_path / "x.gguf")), "id": given}
        assert jan.fails("POST", "/models", body) == (400, "invalid_value", "id")

    def test_what_is_no_model_is_refused(self, jan: Jan, tmp_path: Path) -> None:
        (tmp_path / "page.gguf").write_text("<html>")
        for name in ("page.gguf", "absent.gguf"):
            body = {"source_url": str(tmp_path / name)}
            assert jan.fails("POST", "/models", body) == (400, "invalid_value", "source_url")
        assert [one["id"] for one in listed(jan)] == ["small"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "source_url"),
            ({"source_url": ""}, "source_url"),
            ({"source_url": 5}, "source_url"),
            ({"source_url": "file://elsewhere/x.gguf"}, "source_url"),
            ({"source_url": "/x.gguf", "settings": []}, "settings"),
        ],
    )
    def test_a_bad_field_is_refused(self, jan: Jan, body: Any, field: str) -> None:
        assert jan.fails("POST", "/models", body)[::2] == (400, field)

    def test_beyond_loopback_only_allowed_folders_may_be_named(
        self, tmp_path: Path, folder: Path
    ) -> None:
        path = make_llama(tmp_path / "x.gguf")
        jan = Jan(
            tmp_path,
            models_dir=str(folder),
            host="0.0.0.0",
            api_key="secret",
            loaded=False,
        )
        headers = {"Authorization": "Bearer secret"}
        for source in (str(path), path.as_uri(), "/etc/passwd", str(tmp_path / "absent")):
            refused = jan.fails("POST", "/models", {"source_url": source}, headers=headers)
            assert refused == (403, "forbidden", None)

    def test_a_download_goes_on_in_the_background(self, jan: Jan, downloads: Downloads) -> None:
        body = {"source_url": "https://example.org/x.gguf", "id": "x", "name": "X"}
        made = jan.call("POST", "/models", body, "DownloadModelResponse")
        assert made == {
            "id": "x", "object": "model", "state": "downloading",
            "message": "Starting download x",
        }  # fmt: skip
        assert downloads.asked == [("https://example.org/x.gguf", {"id": "x", "name": "X"})]

    def test_a_known_model_is_downloaded_by_its_id(self, jan: Jan, downloads: Downloads) -> None:
        made = jan.call("GET", "/models/download/org/absent", None, "DownloadModelResponse")
        assert (made["state"], made["message"]) == ("downloading", "Starting download org/absent")
        assert [source.id for source, _ in downloads.asked] == ["org/absent"]
        made = jan.call("GET", "/models/download/small", None, "DownloadModelResponse")
        assert made["state"] == "downloaded"
        assert jan.fails("GET", "/models/download/nothing")[:2] == (404, "model_not_found")

    def test_nothing_in_a_query_turns_a_check_off(self, jan: Jan, downloads: Downloads) -> None:
        answer = jan.send("GET", "/models/download/org/absent?ignoreSSL=true&proxy=x")
        assert answer.headers["x-nitro-ignored"] == "ignoreSSL, proxy"
        assert downloads.asked[0][1] == {}

    def test_an_operator_may_allow_no_downloads(self, tmp_path: Path, folder: Path) -> None:
        jan = Jan(tmp_path, models_dir=str(folder), downloads=False)
        body = {"source_url": "https://example.org/x.gguf"}
        assert jan.fails("POST", "/models", body) == (403, "downloads_disabled", None)
        refused = jan.fails("GET", "/models/download/org/absent")
        assert refused == (403, "downloads_disabled", None)

    @pytest.mark.parametrize(
        ("reason", "status"), [("source", 400), ("network", 502), ("space", 507)]
    )
    def test_what_cannot_be_fetched_is_told(
        self, jan: Jan, downloads: Downloads, reason: str, status: int
    ) -> None:
        downloads.error = DownloadError("no", reason=reason)
        body = {"source_url": "https://example.org/x.gguf"}
        assert jan.fails("POST", "/models", body)[:2] == (status, "download_error")


def test_an_embedding_model_answers_no_chat(tmp_path: Path) -> None:
    jan = Jan(tmp_path)
    jan.app.extensions["nitrolib"].pool.current.extra = Profile(model_type="embedding")
    assert jan.fails("POST", "/chat/completions", jan.chat_body())[::2] == (400, "model")
