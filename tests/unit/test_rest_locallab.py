"""The LocalLab dialect over a fake engine: its routes, its streams and its decision tables."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_engine import FakeEngine
from support.gguf_maker import make_llama
from support.locallab_rest import ANYTHING, BATCH, CHAT, GENERATE, LocalLab, register

from nitrolib.adapters.rest.limits import Limiter
from nitrolib.adapters.rest.locallab import state as locallab_state
from nitrolib.engine.request import Completion, Timings, Usage
from nitrolib.errors import BackendError, ContextOverflow, DeadlineExceeded, Overloaded
from nitrolib.prompt import PromptTemplate

if TYPE_CHECKING:
    from pathlib import Path

USAGE = {"prompt_tokens": 90, "completion_tokens": 13, "total_tokens": 103}
NO_MODEL = "No model is currently loaded"
CLIENT = {"User-Agent": "Python/3.11 aiohttp/3.9.1", "Accept": "*/*"}
PARTIAL = Completion(
    text="Hel",
    prompt_token_ids=(1, 2),
    token_ids=(3,),
    finish_reason=None,
    stop=None,
    usage=Usage(prompt_tokens=2, completion_tokens=1, cached_tokens=0),
    timings=Timings(queue_s=0, prefill_s=0, decode_s=0),
    slot=0,
)


@pytest.fixture
def rest() -> LocalLab:
    return LocalLab()


@pytest.fixture
def empty() -> LocalLab:
    return LocalLab(loaded=False)


@pytest.fixture
def shelf(tmp_path: Path) -> LocalLab:
    """Nothing loaded, and three models in the registry: two to load, one whose file is missing."""
    made = make_llama(tmp_path / "tiny.gguf")
    register(tmp_path / "models", "org/tiny", made, name="Tiny", description="A small one.")
    register(tmp_path / "models", "other", made)
    register(tmp_path / "models", "lost", tmp_path / "lost.gguf")
    return LocalLab(loaded=False, data_dir=str(tmp_path))


# ---- answers -----------------------------------------------------------------------------------


def test_generate_answers_with_the_text_and_the_usage(rest: LocalLab) -> None:
    answer = rest.ask(GENERATE)
    assert (answer.status, answer.json) == (200, {"response": "Hello there", "usage": USAGE})


def test_chat_answers_with_one_choice(rest: LocalLab) -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello there"},
        "finish_reason": "stop",
    }
    assert rest.ask(CHAT).json == {"choices": [choice], "usage": USAGE}
    rest.engine.finish_reason = "length"
    assert rest.ask(CHAT).json["choices"][0]["finish_reason"] == "length"


def test_a_batch_answers_in_order_and_sums_the_usage(rest: LocalLab) -> None:
    answer = rest.ask(BATCH, prompts=["a", "b", "c"])
    assert answer.json["responses"] == ["Hello there"] * 3
    assert answer.json["usage"] == {name: 3 * count for name, count in USAGE.items()}
    asked = ["".join(map(chr, one.prompt)) for one in rest.engine.requests]  # type: ignore[arg-type]
    assert asked == ["a", "b", "c"]


def test_a_batch_is_queued_whole_before_any_of_it_is_waited_for(rest: LocalLab) -> None:
    def refuse(request: Any, n: int) -> Any:
        if len(rest.engine.requests) == 2:
            raise Overloaded(queue_size=2)
        return FakeEngine.submit_choices(rest.engine, request, n)

    rest.engine.submit_choices = refuse  # type: ignore[method-assign]
    answer = rest.ask(BATCH, prompts=["a", "b", "c"])
    assert answer.status == 503
    assert len(rest.engine.generations) == 2
    assert all(one.cancelled for one in rest.engine.generations)


def test_a_batch_that_could_never_wait_is_400(rest: LocalLab) -> None:
    status, detail = rest.detail(BATCH, prompts=["x"] * 66)
    assert status == 400
    assert "66 answers" in detail
    assert rest.engine.requests == []


# ---- prompts -----------------------------------------------------------------------------------


def test_a_prompt_is_continued_where_the_model_has_no_template(rest: LocalLab) -> None:
    rest.ask(GENERATE, system_prompt="Be brief")
    assert rest.engine.requests[0].prompt.text == "Hello"  # type: ignore[union-attr]


def test_a_prompt_is_a_message_where_there_is_a_template() -> None:
    rest = LocalLab(user_prompt="U: ", ai_prompt="A: ", system_prompt="S: ", pre_prompt="")
    rest.ask(GENERATE, system_prompt="Be brief")
    assert rest.engine.requests[0].prompt.text == "S: Be briefU: HelloA: "  # type: ignore[union-attr]


@pytest.mark.parametrize(("form", "templated"), [("chat", True), ("text", False)])
def test_the_operator_says_what_prompts_are(form: str, templated: bool) -> None:
    for settings in ({}, {"user_prompt": "USER: "}):
        rest = LocalLab(locallab_prompt=form, **settings)
        rest.ask(GENERATE)
        rest.ask(BATCH, prompts=["Hello"])
        text = rest.engine.requests[0].prompt.text  # type: ignore[union-attr]
        assert ("USER" in text) == templated
        ids = rest.engine.requests[1].prompt
        assert "".join(map(chr, ids)) == text  # type: ignore[arg-type]


def test_chats_use_the_template(rest: LocalLab) -> None:
    turns = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ]
    rest.ask(CHAT, messages=turns)
    text = rest.engine.requests[0].prompt.text  # type: ignore[union-attr]
    assert [text.index(one["content"]) for one in turns] == sorted(
        text.index(one["content"]) for one in turns
    )
    assert rest.engine.requests[0].params.stop == PromptTemplate().stops


# ---- streams -----------------------------------------------------------------------------------


def test_a_stream_is_events_of_plain_text(rest: LocalLab) -> None:
    rest.engine.pieces = ("Hel", "lo ", "there", "\n\n", "  ")
    answer = rest.ask(GENERATE, stream=True)
    assert answer.status == 200
    assert (
        answer.data == b"data: Hel\n\ndata: lo\n\ndata:  there\n\ndata: \\n\\n\n\ndata: [DONE]\n\n"
    )
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"


def test_an_empty_answer_is_the_end_mark_alone(rest: LocalLab) -> None:
    rest.engine.pieces = ()
    assert rest.ask(GENERATE, stream=True).data == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("setting", "headers", "path", "second_line"),
    [
        ("auto", CLIENT, CHAT, True),
        ("auto", CLIENT, GENERATE, False),
        ("auto", {}, CHAT, False),
        ("auto", {"User-Agent": "curl/8.0", "Accept": "*/*"}, CHAT, False),
        ("auto", {**CLIENT, "Accept": "text/event-stream"}, CHAT, False),
        ("sse", CLIENT, CHAT, False),
        ("dual", {}, CHAT, True),
        ("dual", {}, GENERATE, False),
        ("lines", CLIENT, CHAT, False),
    ],
)
def test_chats_have_a_second_line_for_the_client_that_needs_it(
    setting: str, headers: dict[str, str], path: str, second_line: bool
) -> None:
    rest = LocalLab(locallab_stream=setting)
    rest.engine.pieces = ("a\n", "b")
    body = json.dumps({**ANYTHING[path], "stream": True})
    answer = rest.post(path, body, headers=headers)
    lines = answer.data.decode().split("\n")
    if setting == "lines":
        assert lines[:3] == ["data: a", "data: ", ""]
    else:
        assert lines[0] == r"data: a\n"
    if second_line:
        assert json.loads(lines[1])["content"] == "a\n"
        assert lines[-3:] == ['"[DONE]"', "", ""]
    else:
        assert all(line.startswith("data: ") for line in lines if line)


def test_standard_events_are_for_both_routes() -> None:
    rest = LocalLab(locallab_stream="lines")
    rest.engine.pieces = ("a\nb",)
    assert rest.ask(GENERATE, stream=True).data == b"data: a\ndata: b\n\ndata: [DONE]\n\n"


def test_an_error_in_a_stream_is_told_in_it_and_never_with_the_word_that_repeats(
    rest: LocalLab,
) -> None:
    rest.engine.fail = BackendError("a TIMEOUT of the\nGPU")
    answer = rest.ask(GENERATE, stream=True)
    assert answer.status == 200
    assert answer.data.endswith(
        b"data:  there\n\ndata: Error: a time limit of the GPU\n\ndata: [DONE]\n\n"
    )
    body = json.dumps({**ANYTHING[CHAT], "stream": True})
    data = rest.post(CHAT, body, headers=CLIENT).data
    assert b'\n{"error":"a time limit of the GPU"}\n' in data


def test_an_error_before_the_first_piece_has_a_status_of_its_own(rest: LocalLab) -> None:
    rest.engine.pieces = ()
    rest.engine.fail = BackendError("boom")
    assert rest.detail(GENERATE, stream=True) == (500, "boom")
    assert rest.detail(CHAT, stream=True) == (500, "boom")


def test_a_stream_gives_everything_back(rest: LocalLab) -> None:
    rest.ask(GENERATE, stream=True)
    assert rest.engine.generations[0].cancelled
    assert not rest.app.extensions["nitrolib"].pool.current.leases


# ---- errors ------------------------------------------------------------------------------------


def test_without_a_model_generating_is_400(empty: LocalLab) -> None:
    how = "Please load a model first using POST /models/load."
    assert empty.detail(GENERATE) == (400, f"{NO_MODEL}. {how}")
    assert empty.detail(CHAT) == empty.detail(BATCH) == (400, NO_MODEL)
    assert empty.detail(GENERATE, stream=True)[0] == 400


@pytest.mark.parametrize("path", ANYTHING)
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_is_413(rest: LocalLab, path: str, stream: bool) -> None:
    if path == BATCH:
        rest.engine.room = 3
        fields: dict[str, Any] = {"prompts": ["a", "long"]}
    else:
        rest.engine.refuse = ContextOverflow(prompt_tokens=5000, limit=2048)
        fields = {"stream": stream}
    status, detail = rest.detail(path, **fields)
    assert status == 413
    assert "tokens" in detail
    assert rest.engine.requests == []


def test_a_body_over_the_limit_is_413() -> None:
    rest = LocalLab(max_body_bytes=1024)
    assert rest.detail(GENERATE, prompt="x" * 2000)[0] == 413


def test_a_full_queue_is_503_and_says_when_to_come_back(rest: LocalLab) -> None:
    rest.engine.refuse = Overloaded(queue_size=64)
    answer = rest.ask(GENERATE, stream=True)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1


def test_what_fails_is_500_with_its_text(rest: LocalLab) -> None:
    rest.engine.fail = BackendError("the evaluation failed")
    for path in ANYTHING:
        assert rest.detail(path) == (500, "the evaluation failed")
    rest.engine.fail = RuntimeError("a secret")
    assert rest.detail(GENERATE) == (500, "internal error")


def test_an_answer_that_ran_out_of_time_ends_with_what_there_is(rest: LocalLab) -> None:
    rest.engine.pieces = ("Hel",)
    rest.engine.fail = DeadlineExceeded("late", partial=PARTIAL)
    assert rest.ask(GENERATE, max_time=1).json == {
        "response": "Hel",
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    }
    assert rest.ask(CHAT).json["choices"][0]["finish_reason"] == "length"
    assert rest.ask(BATCH).json["responses"] == ["Hel", "Hel"]
    assert rest.ask(GENERATE, stream=True).data == b"data: Hel\n\ndata: [DONE]\n\n"


def test_a_request_that_never_ran_is_504(rest: LocalLab) -> None:
    rest.engine.pieces = ()
    rest.engine.fail = DeadlineExceeded("the time passed in the queue")
    for path in ANYTHING:
        assert rest.detail(path) == (504, "the time passed in the queue")
    assert rest.detail(GENERATE, stream=True)[0] == 504


def test_unknown_paths_and_wrong_methods_are_told_as_json(rest: LocalLab) -> None:
    for path in ("/nowhere", "/status", "/network", "/v1/chat/completions", "/models"):
        answer = rest.get(path)
        assert (answer.status, answer.json) == (404, {"detail": "Not Found"})
    for method, path in (("GET", GENERATE), ("POST", "/models/current"), ("DELETE", "/health")):
        answer = rest.request(method, path)
        assert (answer.status, answer.json) == (405, {"detail": "Method Not Allowed"})


# ---- models ------------------------------------------------------------------------------------


def loaded(rest: LocalLab) -> list[str]:
    return [one["id"] for one in rest.get("/models/available").json["models"] if one["is_loaded"]]


def test_the_registry_is_listed(shelf: LocalLab) -> None:
    answer = shelf.get("/models/available").json
    assert answer["current_model"] is None
    rows = {one["id"]: one for one in answer["models"]}
    assert [*rows] == ["lost", "org/tiny", "other"]
    assert rows["org/tiny"] == {
        "id": "org/tiny",
        "name": "Tiny",
        "can_load": True,
        "description": "A small one.",
        "is_loaded": False,
    }
    assert rows["lost"]["can_load"] is False
    assert shelf.get("/models/list").json == answer


def test_a_model_is_loaded_told_and_unloaded(shelf: LocalLab) -> None:
    first = shelf.post("/models/load", {"model_id": "org/tiny"})
    done = {"status": "success", "message": "Model org/tiny loaded successfully"}
    assert (first.status, first.json) == (200, done)
    again = shelf.post("/models/load", {"model_id": "org/tiny"}).json
    assert again == {"status": "success", "message": "Model org/tiny is already loaded"}
    state = {
        "id": "org/tiny",
        "model_id": "org/tiny",
        "name": "Tiny",
        "is_loaded": True,
        "loading_progress": 1.0,
    }
    assert shelf.get("/models/current").json == state
    assert shelf.get("/models/status/org/tiny").json == state
    other = shelf.get("/models/status/other").json
    assert (other["is_loaded"], other["loading_progress"]) == (False, 0.0)
    assert loaded(shelf) == ["org/tiny"]
    kind = {"Content-Type": "application/json", "Content-Length": "0"}
    gone = shelf.request("POST", "/models/unload", headers=kind).json
    assert gone == {
        "status": "Model unloaded successfully",
        "message": "Model org/tiny unloaded successfully",
    }
    assert shelf.get("/models/current").json == {"detail": "No model currently loaded"}
    nothing = {"status": "success", "message": "No model is currently loaded"}
    assert shelf.post("/models/unload").json == nothing


def test_loading_another_replaces_the_first(shelf: LocalLab) -> None:
    for name in ("org/tiny", "other"):
        assert shelf.post("/models/load", {"model_id": name}).status == 200
    assert loaded(shelf) == ["other"]


def test_a_wrong_id_does_not_cost_the_loaded_model(shelf: LocalLab) -> None:
    shelf.post("/models/load", {"model_id": "other"})
    for name in ("nope", "lost", "../other"):
        answer = shelf.post("/models/load", {"model_id": name})
        assert answer.status == 404
        assert shelf.post(f"/models/load/{name}").status == 404 or name == "lost"
    assert shelf.get("/models/status/nope").status == 404
    assert loaded(shelf) == ["other"]


def test_a_broken_file_is_500(shelf: LocalLab, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    answer = shelf.post("/models/load", {"model_id": "other"})
    assert answer.status == 500
    assert loaded(shelf) == []


def test_a_model_is_loaded_in_the_background(shelf: LocalLab) -> None:
    answer = shelf.post("/models/load/org/tiny").json
    assert answer == {"status": "loading", "message": "Model org/tiny is being loaded"}
    deadline = time.monotonic() + 60
    while shelf.get("/models/current").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    answer = shelf.post("/models/load/org/tiny").json
    assert answer == {"status": "success", "message": "Model org/tiny is already loaded"}


def test_a_request_loads_the_model_it_names(shelf: LocalLab) -> None:
    assert shelf.ask(GENERATE, model_id="other").status == 200
    assert loaded(shelf) == ["other"]
    assert shelf.ask(CHAT, model_id="org/tiny").status == 200
    assert shelf.ask(CHAT).status == 200
    assert loaded(shelf) == ["org/tiny"]
    assert shelf.detail(GENERATE, model_id="nope")[0] == 404


def test_the_operator_may_rule_that_out(tmp_path: Path) -> None:
    register(tmp_path / "models", "other", make_llama(tmp_path / "tiny.gguf"))
    rest = LocalLab(loaded=False, data_dir=str(tmp_path), locallab_autoload=False)
    status, _ = rest.detail(CHAT, model_id="other")
    assert status == 400
    assert loaded(rest) == []


def test_a_model_that_was_loaded_by_its_path_is_listed_too(rest: LocalLab) -> None:
    answer = rest.get("/models/available").json
    assert answer["current_model"] == answer["models"][0]["id"] == "fake.gguf"
    assert rest.get("/models/status/fake.gguf").json["is_loaded"] is True


# ---- system ------------------------------------------------------------------------------------


def test_health_depends_on_nothing(rest: LocalLab, empty: LocalLab) -> None:
    for each in (rest, empty):
        assert each.get("/health").json == {"status": "healthy"}
    locked = LocalLab(api_key="secret")
    assert locked.get("/health").status == 200
    assert locked.get("/models/available").status == 401


def test_the_system_is_told(rest: LocalLab) -> None:
    found = rest.get("/system/info").json
    assert found["active_model"] == "fake.gguf"
    assert found["cpu_usage"] == found["cpu"]["usage"]
    assert found["memory_usage"] == found["memory"]["percent"]
    assert found["gpu_info"] == (found["gpu"] or None)
    assert found["uptime"] >= 0


def test_requests_are_counted_but_for_those_that_ask_whether_it_is_up(rest: LocalLab) -> None:
    for path in ("/health", "/startup-status", "/health", "/models/current", GENERATE):
        rest.get(path)
    rest.ask(GENERATE)
    assert rest.get("/system/info").json["request_count"] == 3
    assert rest.get("/resources").json["api_requests"] == 4


def test_two_applications_share_nothing(rest: LocalLab, empty: LocalLab) -> None:
    rest.post("/system/instructions", {"instructions": "x"})
    assert empty.get("/system/instructions").json["instructions"] == ""
    assert empty.get("/system/info").json["request_count"] == 2


def test_the_server_and_its_resources_are_told(rest: LocalLab, empty: LocalLab) -> None:
    root = rest.get("/").json
    assert (root["name"], root["status"], root["model"]) == ("nitrolib", "running", "fake.gguf")
    assert root["resources"]["ram_available_gb"] <= root["resources"]["ram_gb"]
    assert empty.get("/").json["model"] is None
    assert rest.get("/resources").json["disk"]["total"] > 0
    assert empty.get("/startup-status").json["current_model"] is None
    assert rest.get("/startup-status").json["model_loading"] is False


def test_instructions_are_the_system_message_of_prompts_without_one(shelf: LocalLab) -> None:
    def system() -> str:
        shelf.ask(GENERATE)
        text: str = shelf.engine.requests[-1].prompt.text  # type: ignore[union-attr]
        return text

    shelf = replace_settings(shelf, locallab_prompt="chat")
    shelf.post("/models/load", {"model_id": "other"})
    before = system()
    assert shelf.post("/system/instructions", {"instructions": "Be brief"}).status == 200
    assert "Be brief" in system()
    own = {"instructions": "Be long", "model_id": "other"}
    assert shelf.post("/system/instructions", own).status == 200
    assert "Be long" in system()
    assert "Be brief" not in system()
    shelf.ask(GENERATE, system_prompt="Be kind")
    assert "Be kind" in shelf.engine.requests[-1].prompt.text  # type: ignore[union-attr]
    assert "Be long" not in shelf.engine.requests[-1].prompt.text  # type: ignore[union-attr]
    told = shelf.get("/system/instructions?model_id=other").json
    assert told == {"instructions": "Be long", "model_id": "other"}
    assert shelf.get("/system/instructions").json == {
        "instructions": "Be brief",
        "model_id": "global",
    }
    shelf.post("/system/instructions/reset?model_id=other")
    assert "Be brief" in system()
    shelf.post("/system/instructions/reset")
    assert system() == before


def test_instructions_are_for_models_that_are_known(rest: LocalLab) -> None:
    assert rest.get("/system/instructions?model_id=nope").status == 404
    body = {"instructions": "x", "model_id": "nope"}
    assert rest.post("/system/instructions", body).status == 404
    assert rest.post("/system/instructions/reset?model_id=nope").status == 404
    for wrong in ({}, {"instructions": 5}, {"instructions": "x", "model_id": 5}):
        assert rest.post("/system/instructions", wrong).status == 400


def replace_settings(rest: LocalLab, **settings: Any) -> LocalLab:
    """The same models under other settings."""
    folder = rest.app.extensions["nitrolib"].settings.data_dir
    return LocalLab(loaded=False, data_dir=folder, **settings)


# ---- the limit of requests ---------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(
        locallab_state, "Limiter", lambda rate, burst: Limiter(rate, burst, clock=made)
    )
    return made


def test_the_eleventh_at_once_is_429(clock: Clock) -> None:
    rest = LocalLab(locallab_rate=60)
    assert [rest.ask(GENERATE).status for _ in range(10)] == [200] * 10
    answer = rest.ask(CHAT, stream=True)
    assert answer.status == 429
    assert answer.json == {"detail": "Rate limit exceeded. Try again in 1 seconds."}
    assert answer.headers["Retry-After"] == "1"
    assert rest.get("/health").status == 200
    assert rest.request("OPTIONS", GENERATE).status == 200
    assert len(rest.engine.requests) == 10
    clock.now += 1
    assert rest.get("/models/current").status == 200
    assert rest.get("/models/current").status == 429


def test_sixty_pass_in_any_minute(clock: Clock) -> None:
    rest = LocalLab(locallab_rate=60)
    passed = 0
    for _ in range(120):
        passed += rest.get("/startup-status").status == 200
        clock.now += 0.5
    assert passed == 60
    assert rest.get("/startup-status").status == 200


def test_clients_have_budgets_of_their_own(clock: Clock) -> None:
    rest = LocalLab(locallab_rate=60, locallab_burst=1)
    for address in ("10.0.0.1", "10.0.0.2"):
        base = {"REMOTE_ADDR": address}
        assert rest.get("/models/list", environ_base=base).status == 200
        assert rest.get("/models/list", environ_base=base).status == 429


def test_0_is_no_limit(rest: LocalLab) -> None:
    assert {rest.get("/models/list").status for _ in range(100)} == {200}


def test_a_busy_model_does_not_give_way(shelf: LocalLab) -> None:
    shelf.post("/models/load", {"model_id": "other"})
    with shelf.app.extensions["nitrolib"].use():
        answer = shelf.post("/models/load", {"model_id": "org/tiny"})
    assert answer.status == 409
    assert loaded(shelf) == ["other"]
