"""The llama-server dialect over a fake engine: its routes, its streams and its decision tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.llama_rest import LlamaServer, events_of
from support.rest_client import HELLO

from nitrolib.adapters.rest.llama_server.embedding import normalized
from nitrolib.engine.slot_state import SlotState
from nitrolib.engine.status import LoraStatus, SlotStatus
from nitrolib.errors import BackendError, Conflict, ContextOverflow, Overloaded, Unsupported
from nitrolib.validation import document

if TYPE_CHECKING:
    from pathlib import Path

FIM = {
    "<s>": 256, "<|fim_prefix|>": 257, "<|fim_suffix|>": 258, "<|fim_middle|>": 259,
}  # fmt: skip
PROJECT = {**FIM, "<|repo_name|>": 260, "<|file_sep|>": 261}
PRE, SUF, MID, REPO, FILE = range(257, 262)


@pytest.fixture
def rest() -> LlamaServer:
    return LlamaServer()


@pytest.fixture
def empty() -> LlamaServer:
    return LlamaServer(loaded=False)


# ---- completion --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/completion", "/completions"])
def test_the_final_object_has_everything(rest: LlamaServer, path: str) -> None:
    rest.engine.pieces = ("a\n", "b")
    answer = rest.post(path, {"prompt": "Hello", "n_predict": 2}).json
    settings, timings = answer.pop("generation_settings"), answer.pop("timings")
    assert answer == {
        "index": 0,
        "content": "a\nb",
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": "fake.gguf",
        "tokens_predicted": 13,
        "tokens_evaluated": 90,
        "prompt": "<s>P",
        "has_new_line": True,
        "truncated": False,
        "stop_type": "eos",
        "stopping_word": "",
        "tokens_cached": 0,
    }
    assert (settings["n_predict"], settings["seed"]) == (2, 2**32 - 1)
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (7, 83, 13)


def test_a_stream_ends_with_the_final_object_and_nothing_else(rest: LlamaServer) -> None:
    rest.engine.finish_reason = "length"
    answer = rest.complete(stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert b"[DONE]" not in answer.data
    *partials, last = events_of(answer)
    assert [one["content"] for one in partials] == ["Hello", " there"]
    assert [one["tokens"] for one in partials] == [[0], [1]]
    assert [one["tokens_predicted"] for one in partials] == [1, 2]
    for one in partials:
        assert (one["stop"], one["id_slot"], one["tokens_evaluated"]) == (False, -1, 90)
    assert (last["stop"], last["content"], last["tokens"]) == (True, "", [])
    assert last["stop_type"] == "limit"
    assert last["generation_settings"]["stream"] is True


def test_probabilities_come_with_the_text_of_their_step(rest: LlamaServer) -> None:
    whole = rest.complete(n_probs=2).json
    entries = whole["completion_probabilities"]
    assert [one["token"] for one in entries] == ["Hello", " there"]
    assert all(len(one["top_logprobs"]) == 2 for one in entries)
    *partials, last = events_of(rest.complete(n_probs=2, stream=True))
    assert [one["completion_probabilities"] for one in partials] == [[one] for one in entries]
    assert "completion_probabilities" not in last


def test_progress_is_told_where_it_is_asked_for(rest: LlamaServer) -> None:
    first, *_, last = events_of(rest.complete(stream=True, return_progress=True))
    assert first["prompt_progress"] == {
        "total": 90,
        "cache": 7,
        "processed": 50,
        "time_ms": 250.0,
    }
    assert (first["content"], first["tokens"], first["tokens_evaluated"]) == ("", [], 90)
    assert "prompt_progress" not in last
    plain = events_of(rest.complete(stream=True))
    assert not any("prompt_progress" in one for one in plain)


def test_timings_come_with_every_event_that_asks_for_them(rest: LlamaServer) -> None:
    fields = {"stream": True, "timings_per_token": True, "return_progress": True}
    for one in events_of(rest.complete(**fields)):
        assert one["timings"]["prompt_n"] == 83


PROMPTS: list[tuple[Any, int]] = [
    ("one", 1),
    ("", 1),
    ([1, 2], 1),
    ([1, "two", 3], 1),
    (["one", 2], 1),
    (["one"], 1),
    (["one", "two"], 2),
    ([[1, 2], "two", ["three", 4], {"prompt_string": "four"}], 4),
    ({"prompt_string": "one"}, 1),
    ({"prompt_string": "one", "multimodal_data": []}, 1),
    ([{"prompt_string": "one"}, {"prompt_string": "two", "multimodal_data": None}], 2),
]


@pytest.mark.parametrize(("prompt", "count"), PROMPTS)
@pytest.mark.parametrize("n", [1, 2])
def test_prompts_come_in_many_shapes(rest: LlamaServer, prompt: Any, count: int, n: int) -> None:
    answer = rest.complete(prompt=prompt, n_cmpl=n)
    assert len(rest.engine.requests) == count
    if count * n == 1:
        assert answer.json["index"] == 0
    else:
        assert [one["index"] for one in answer.json] == list(range(count * n))
    last = [one for one in events_of(rest.complete(prompt=prompt, n=n, stream=True)) if one["stop"]]
    assert sorted(one["index"] for one in last) == list(range(count * n))


def test_texts_and_ids_reach_the_engine(rest: LlamaServer) -> None:
    rest.complete(prompt=["one", [1, 2.0], [3, "b", "", 4]])
    text, ids, mixed = (one.prompt for one in rest.engine.requests)
    (segment,) = text.segments  # type: ignore[union-attr]
    assert (segment.text, segment.special, text.add_bos) == ("one", True, True)  # type: ignore[union-attr]
    assert (ids, mixed) == ((1, 2), (3, ord("b"), 4))


def test_media_are_refused_in_the_servers_words(rest: LlamaServer) -> None:
    prompt = {"prompt_string": "<__media__>", "multimodal_data": ["aGk="]}
    error = rest.error(prompt=prompt)
    told = "Multimodal data provided, but model does not support multimodal requests."
    assert (error["code"], error["message"]) == (400, told)


def test_response_fields_reduce_every_final_object_and_no_other(rest: LlamaServer) -> None:
    fields = ["content", "generation_settings/n_predict", "nowhere/at/all"]
    assert rest.complete(response_fields=fields, n_predict=2).json == {
        "content": "Hello there",
        "generation_settings/n_predict": 2,
    }
    *partials, last = events_of(rest.complete(response_fields=["stop_type"], stream=True))
    assert all(one["stop"] is False for one in partials)
    assert last == {"stop_type": "eos"}
    assert "content" in rest.complete(response_fields=[]).json
    both = rest.complete(prompt=["a", "b"], response_fields=["index"]).json
    assert both == [{"index": 0}, {"index": 1}]


def test_notes_stand_in_the_answer(rest: LlamaServer) -> None:
    rest.engine.notes = ("something was cut",)
    assert rest.complete().json["warnings"] == ["something was cut"]
    assert events_of(rest.complete(stream=True))[-1]["warnings"] == ["something was cut"]


def test_an_unknown_model_is_the_loaded_one_and_said(rest: LlamaServer) -> None:
    assert rest.complete(model="gpt-4").headers["x-nitro-ignored"] == "model"
    strict = LlamaServer(strict_model=True)
    assert strict.error(model="gpt-4")["type"] == "not_found_error"


def test_a_stream_gives_everything_back(rest: LlamaServer) -> None:
    rest.complete(stream=True, n_cmpl=2)
    assert all(one.cancelled for one in rest.engine.generations)
    assert not rest.app.extensions["nitrolib"].pool.current.leases


# ---- errors ------------------------------------------------------------------------------------


def test_a_prompt_that_does_not_fit_is_told_with_its_numbers(rest: LlamaServer) -> None:
    rest.engine.refuse = ContextOverflow(prompt_tokens=5000, limit=2048)
    for stream in (False, True):
        error = rest.error(stream=stream)
        assert error["type"] == "exceed_context_size_error"
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (5000, 2048)
        assert error["message"] == (
            "request (5000 tokens) exceeds the available context size (2048 tokens), "
            "try increasing it"
        )


def test_without_a_model_it_is_unavailable(empty: LlamaServer) -> None:
    error = empty.error()
    assert (error["code"], error["type"]) == (503, "unavailable_error")
    for method, path, body in (
        ("POST", "/tokenize", {"content": "x"}),
        ("POST", "/detokenize", {"tokens": []}),
        ("POST", "/apply-template", {"messages": HELLO}),
        ("POST", "/chat/completions", {"messages": HELLO}),
        ("POST", "/embedding", {"input": "x"}),
        ("POST", "/rerank", {"query": "x", "documents": ["y"]}),
        ("POST", "/infill", {"input_prefix": "", "input_suffix": ""}),
        ("GET", "/props", None),
        ("GET", "/slots", None),
        ("GET", "/lora-adapters", None),
        ("POST", "/slots/0?action=erase", {}),
    ):
        answer = empty.request(method, path, json=body)
        assert answer.status == 503, path
    assert empty.get("/health").status == 200
    assert empty.get("/metrics").status == 200


def test_errors_have_the_servers_shape(rest: LlamaServer) -> None:
    rest.engine.refuse = Overloaded(queue_size=64)
    answer = rest.complete()
    assert (answer.status, answer.json["error"]["type"]) == (503, "unavailable_error")
    assert int(answer.headers["Retry-After"]) >= 1
    rest.engine.refuse = None
    rest.engine.fail = BackendError("boom")
    assert rest.error()["type"] == "server_error"
    for body in (b"", b"{", b"[]", b"5"):
        error = rest.post("/completion", body).json["error"]
        assert (error["code"], error["type"]) == (400, "invalid_request_error")
    gone = rest.get("/nowhere").json["error"]
    assert gone == {"code": 404, "message": "File Not Found", "type": "not_found_error"}
    wrong = rest.get("/completion")
    assert (wrong.status, wrong.json["error"]["code"]) == (405, 405)


def test_a_stream_that_fails_says_so_and_ends(rest: LlamaServer) -> None:
    rest.engine.fail = BackendError("boom")
    *_, last = events_of(rest.complete(stream=True))
    assert last == {"error": {"code": 500, "message": "boom", "type": "server_error"}}


def test_a_key_may_come_in_either_header() -> None:
    rest = LlamaServer(api_key="secret")
    error = rest.error()
    assert (error["message"], error["type"]) == ("Invalid API Key", "authentication_error")
    for headers in ({"Authorization": "Bearer secret"}, {"X-Api-Key": "secret"}):
        answer = rest.post("/completion", json.dumps({"prompt": "x"}), headers=headers)
        assert answer.status == 200
    for path in ("/health", "/v1/health"):
        assert rest.get(path).status == 200
    for path in ("/props", "/slots", "/metrics", "/lora-adapters"):
        assert rest.get(path).status == 401


# ---- text --------------------------------------------------------------------------------------


def test_text_becomes_tokens(rest: LlamaServer) -> None:
    def tokens(**body: Any) -> Any:
        return rest.post("/tokenize", body).json["tokens"]

    assert tokens() == tokens(content="") == tokens(content=None) == []
    assert tokens(content="ab") == [97, 98]
    assert tokens(content="ab", add_special=True) == [256, 97, 98]
    assert tokens(content="<s>a") == [256, 97]
    assert tokens(content="<s>a", parse_special=False) == list(b"<s>a")
    assert tokens(content=["a", 5, "b"], add_special=True) == [256, 97, 5, 98]
    assert tokens(content=[5, "a"], add_special=True) == [5, 97]
    assert tokens(content="<s>é", with_pieces=True) == [
        {"id": 256, "piece": "<s>"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA9, "piece": [0xA9]},
    ]
    for wrong in ({"content": 5}, {"content": [True]}, {"add_special": 1}, {"with_pieces": "x"}):
        assert rest.post("/tokenize", wrong).status == 400
    assert rest.post("/tokenize", {"content": [300], "with_pieces": True}).status == 400


def test_tokens_become_text(rest: LlamaServer) -> None:
    answer = rest.post("/detokenize", {"tokens": [256, 0xC3, 0xA9, 98]})
    assert answer.json == {"content": "<s>éb"}
    assert rest.post("/detokenize", {}).json == {"content": ""}
    for wrong in ([257], [-1], ["a"], "a"):
        assert rest.post("/detokenize", {"tokens": wrong}).status == 400


def test_a_chat_and_its_prompt(rest: LlamaServer) -> None:
    prompt = rest.post("/apply-template", {"messages": HELLO}).json["prompt"]
    assert "Hello" in prompt
    answer = rest.post("/chat/completions", {"messages": HELLO}).json
    assert answer["id"].startswith("chatcmpl-")
    assert answer["system_fingerprint"].startswith("b")
    assert answer["model"] == "fake.gguf"
    request = rest.engine.requests[0]
    assert (request.params.max_tokens, request.params.temperature) == (None, 0.8)
    assert rest.post("/v1/chat/completions", {"messages": HELLO}).status == 200


# ---- infill ------------------------------------------------------------------------------------


def infill(rest: LlamaServer, **fields: Any) -> Any:
    body = {"input_prefix": "ab", "input_suffix": "cd", **fields}
    answer = rest.post("/infill", body)
    assert answer.status == 200, answer.data
    return answer.json, rest.engine.requests[-1].prompt


def test_an_infill_is_laid_out_as_the_model_was_trained(rest: LlamaServer) -> None:
    rest.engine.special = FIM
    _, ids = infill(rest, prompt="x")
    assert ids == (256, PRE, *b"abx", SUF, *b"cd", MID)
    files = [{"text": "one"}, {"text": "two", "filename": "b.py"}]
    _, ids = infill(rest, input_extra=files)
    snippet = "\n\n--- snippet ---\n\n"
    assert ids == (256, *f"{snippet}one{snippet}two".encode(), PRE, *b"ab", SUF, *b"cd", MID)
    rest.engine.special = PROJECT
    _, ids = infill(rest, input_extra=files)
    assert ids == (
        256, REPO, *b"myproject\n", FILE, *b"tmp\none", FILE, *b"b.py\ntwo", FILE, *b"filename\n",
        PRE, *b"ab", SUF, *b"cd", MID,
    )  # fmt: skip


def test_what_an_infill_cuts_is_reported(rest: LlamaServer) -> None:
    rest.engine.special = FIM
    long = {"input_prefix": "p" * 5000 + "P", "input_suffix": "S" + "s" * 5000}
    answer, ids = infill(rest, **long, n_predict=100)
    assert len(ids) == 2048 - 100
    assert (ids[ids.index(SUF) - 1], ids[ids.index(SUF) + 1]) == (ord("P"), ord("S"))
    behind = len(ids) - 2 - ids.index(SUF)
    assert behind == (2048 - 4 - 100) // 4
    assert [one.split()[0] for one in answer["warnings"]] == ["input_prefix", "input_suffix"]
    answer, ids = infill(rest, input_extra=[{"text": "x" * 5000}], n_predict=100)
    assert len(ids) == 2048 - 100
    assert [one.split()[0] for one in answer["warnings"]] == ["input_extra"]
    body = {"input_prefix": "", "input_suffix": "", "prompt": "x" * 5000}
    assert rest.post("/infill", body).json["error"]["type"] == "exceed_context_size_error"


def test_a_model_without_the_tokens_does_not_offer_infill(rest: LlamaServer) -> None:
    answer = rest.post("/infill", {"input_prefix": "a", "input_suffix": "b"})
    assert (answer.status, answer.json["error"]["type"]) == (501, "not_supported_error")


def test_an_infill_streams(rest: LlamaServer) -> None:
    rest.engine.special = FIM
    answer = rest.post("/infill", {"input_prefix": "a", "input_suffix": "b", "stream": True})
    assert events_of(answer)[-1]["stop"] is True


# ---- embeddings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "count", "asked"),
    [
        ("a", 1, ["a"]),
        ("", 1, [[]]),
        ([1, 2], 1, [[1, 2]]),
        ([1, "b"], 1, [[1, 98]]),
        (["a", "b"], 2, ["a", "b"]),
        (["a", [1]], 2, [[97], [1]]),
        ({"prompt_string": "a"}, 1, ["a"]),
        ([{"prompt_string": "a"}, "b"], 2, ["a", "b"]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, 1, ["ab"]),
    ],
)
@pytest.mark.parametrize("field", ["input", "content"])
def test_embeddings_of_every_shape(
    rest: LlamaServer, field: str, given: Any, count: int, asked: Any
) -> None:
    answer = rest.post("/embedding", {field: given})
    assert answer.status == 200, answer.data
    assert [one["index"] for one in answer.json] == list(range(count))
    assert all(len(one["embedding"]) == 1 for one in answer.json)
    assert rest.engine.embeds == [asked]
    assert rest.post("/embeddings", {field: given}).json == answer.json


def test_wrong_inputs_are_refused(rest: LlamaServer) -> None:
    wrong: list[dict[str, Any]] = [
        {}, {"input": []}, {"input": 5}, {"input": [[]]}, {"content": {"content": "x"}},
        {"input": {"content": [{"type": "image_url"}]}}, {"input": "x", "embd_normalize": -2},
        {"input": "x", "embd_normalize": -1}, {"input": "x", "embd_normalize": "x"},
        {"input": {"prompt_string": "x", "multimodal_data": ["aGk="]}},
    ]  # fmt: skip
    for body in wrong:
        assert rest.post("/embedding", body).status == 400, body
    assert rest.engine.embeds == []


def test_vectors_are_normalized_as_asked() -> None:
    vector = (0.6, -0.8, 0.0)
    assert normalized(vector, 2) == [0.6, -0.8, 0.0]
    assert normalized(vector, 1) == pytest.approx([0.6 / 1.4, -0.8 / 1.4, 0])
    assert normalized(vector, 0) == pytest.approx([0.75 * 32760, -32760, 0])
    assert sum(abs(one) ** 3 for one in normalized(vector, 3)) == pytest.approx(1)
    assert sum(abs(one) ** 64 for one in normalized((1e-9, 2e-9), 64)) == pytest.approx(1)
    assert normalized((0.0, 0.0), 1) == [0.0, 0.0]


# ---- reranking ---------------------------------------------------------------------------------

DOCUMENTS = ["bb", "a", "dddd", "ccc"]


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"])
def test_documents_are_told_best_first(rest: LlamaServer, path: str) -> None:
    answer = rest.post(path, {"query": "q", "documents": DOCUMENTS}).json
    assert answer == {
        "model": "fake.gguf",
        "object": "list",
        "usage": {"prompt_tokens": 16, "total_tokens": 16},
        "results": [
            {"index": index, "relevance_score": score}
            for index, score in ((2, 4.0), (3, 3.0), (0, 2.0), (1, 1.0))
        ],
    }


def test_texts_are_answered_by_an_array(rest: LlamaServer) -> None:
    body = {"query": "q", "texts": DOCUMENTS, "top_n": 2}
    assert rest.post("/rerank", body).json == [{"index": 2, "score": 4.0}, {"index": 3, "score": 3}]
    rows = rest.post("/rerank", {**body, "return_text": True}).json
    assert [row["text"] for row in rows] == ["dddd", "ccc"]


@pytest.mark.parametrize(("top_n", "count"), [(None, 4), (2, 2), (4, 4), (99, 4)])
def test_only_the_best_may_be_asked_for(rest: LlamaServer, top_n: int | None, count: int) -> None:
    body = {"query": "q", "documents": DOCUMENTS, "top_n": top_n}
    assert len(rest.post("/rerank", body).json["results"]) == count


def test_wrong_rerankings_are_refused(rest: LlamaServer) -> None:
    for fields in (
        {"documents": []}, {"documents": None}, {"documents": 123}, {"documents": [1, 2]},
        {"documents": [""]}, {"query": ""}, {"query": 5}, {"query": None}, {"top_n": 0},
    ):  # fmt: skip
        body = {"query": "q", "documents": DOCUMENTS, **fields}
        assert rest.post("/rerank", body).status == 400, fields
    assert rest.engine.embeds == []
    for field in ("documents", "texts"):
        rest.engine.refuse = ContextOverflow(prompt_tokens=9, limit=5, field="documents[1]")
        error = rest.post("/rerank", {"query": "q", field: DOCUMENTS}).json["error"]
        assert (error["type"], error["param"]) == ("exceed_context_size_error", f"{field}/1")


def test_a_model_that_does_not_score_does_not_offer_it(rest: LlamaServer) -> None:
    rest.engine.refuse = Unsupported("this model gives no scores of documents", field="query")
    answer = rest.post("/rerank", {"query": "q", "documents": DOCUMENTS})
    assert (answer.status, answer.json["error"]["type"]) == (501, "not_supported_error")


# ---- the server --------------------------------------------------------------------------------


def test_health(rest: LlamaServer) -> None:
    for path in ("/health", "/v1/health"):
        assert rest.get(path).json == {"status": "ok"}


def test_the_model_and_the_defaults_are_told(rest: LlamaServer) -> None:
    found = rest.get("/props").json
    assert found["total_slots"] == 1
    assert found["default_generation_settings"]["n_ctx"] == 2048
    assert found["default_generation_settings"]["params"]["temperature"] == 0.8
    assert ".gguf" in found["model_path"]
    assert found["media_marker"] == "<__media__>"
    assert found["bos_token"] == "<s>"
    answer = rest.post("/props", {"x": 1})
    assert (answer.status, answer.json["error"]["type"]) == (501, "not_supported_error")


def test_the_slots_are_told(rest: LlamaServer) -> None:
    assert rest.get("/slots").json == [
        {
            "id": 0,
            "n_ctx": 2048,
            "speculative": False,
            "is_processing": False,
            "n_prompt_tokens_cache": 0,
        }
    ]
    assert rest.get("/slots?fail_on_no_slot=1").status == 200
    busy = SlotStatus(slot=0, state="decode", cached_tokens=12)
    object.__setattr__(rest.engine.model, "slots", (busy,))
    (told,) = rest.get("/slots").json
    assert (told["is_processing"], told["n_prompt_tokens_cache"]) == (True, 12)
    answer = rest.get("/slots?fail_on_no_slot=1")
    assert (answer.status, answer.json["error"]["type"]) == (503, "unavailable_error")


def saving(folder: Path) -> LlamaServer:
    """A server that saves slots, and whose first slot holds something."""
    rest = LlamaServer(slots_dir=str(folder / "slots"))
    rest.engine.states[0] = SlotState((1, 2, 3), b"\x00native\n", (0.5,))
    return rest


def test_a_slot_is_saved_restored_and_erased(tmp_path: Path) -> None:
    rest = saving(tmp_path)
    saved = rest.post("/slots/0?action=save", {"filename": "a.bin"}).json
    assert saved.pop("timings")["save_ms"] >= 0
    file = tmp_path / "slots" / "a.bin"
    size = file.stat().st_size
    assert saved == {"id_slot": 0, "filename": "a.bin", "n_saved": 3, "n_written": size}
    assert [one.name for one in file.parent.iterdir()] == ["a.bin"]
    state = rest.engine.states[0]
    assert rest.post("/slots/0?action=erase").json == {"id_slot": 0, "n_erased": 3}
    restored = rest.post("/slots/0?action=restore", {"filename": "a.bin"}).json
    assert restored.pop("timings")["restore_ms"] >= 0
    assert restored == {"id_slot": 0, "filename": "a.bin", "n_restored": 3, "n_read": size}
    assert rest.engine.states[0] == state


@pytest.mark.parametrize(
    "name", ["../a", "a/b", "/etc/passwd", "..", ".", "", "a\\b", "C:a", "a\0b", "x" * 300, 5, None]
)
def test_a_slot_file_has_no_path(tmp_path: Path, name: Any) -> None:
    rest = saving(tmp_path)
    for action in ("save", "restore"):
        answer = rest.post(f"/slots/0?action={action}", {"filename": name})
        assert answer.status == 400
        assert answer.json["error"]["param"] == "filename"
    assert not (tmp_path / "slots").exists()


def test_a_damaged_or_foreign_slot_file_is_not_restored(tmp_path: Path) -> None:
    rest = saving(tmp_path)
    assert rest.post("/slots/0?action=restore", {"filename": "gone"}).status == 404
    rest.post("/slots/0?action=save", {"filename": "a"})
    file = tmp_path / "slots" / "a"
    whole = file.read_bytes()
    before = dict(rest.engine.states)

    def refused() -> str:
        answer = rest.post("/slots/0?action=restore", {"filename": "a"})
        assert (answer.status, answer.json["error"]["param"]) == (400, "filename")
        assert rest.engine.states == before
        return str(answer.json["error"]["message"])

    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        refused()
        file.write_bytes(whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :])
        refused()
    for wrong in (whole + b"x", b"[]\n", b"{}\n", b"\n", b"[" * 100_000):
        file.write_bytes(wrong)
        refused()
    file.write_bytes(whole)
    assert rest.engine.model is not None
    rest.engine.model = replace(rest.engine.model, n_ctx=4096)
    assert "another model" in refused()


def test_slots_are_not_saved_unless_the_operator_says_where(rest: LlamaServer) -> None:
    for action in ("save", "restore"):
        answer = rest.post(f"/slots/0?action={action}", {"filename": "a"})
        assert (answer.status, answer.json["error"]["type"]) == (501, "not_supported_error")
    assert rest.post("/slots/0?action=erase", {}).json == {"id_slot": 0, "n_erased": 0}


def test_what_a_backend_cannot_save_is_not_offered(tmp_path: Path) -> None:
    rest = saving(tmp_path)
    rest.engine.refuse = Unsupported("this backend does not save what slots hold")
    assert rest.post("/slots/0?action=save", {"filename": "a"}).status == 501
    rest.engine.refuse = Conflict("slot 0 is at work")
    assert rest.post("/slots/0?action=save", {"filename": "a"}).status == 409


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "slots").write_text("a file is in the way")
    rest = saving(tmp_path)
    assert rest.post("/slots/0?action=save", {"filename": "a"}).status == 500


def test_adapters_are_told_and_their_scales_set(rest: LlamaServer) -> None:
    assert rest.get("/lora-adapters").json == []
    assert rest.engine.model is not None
    loaded = tuple(LoraStatus(id=one, path=f"{one}.gguf", scale=1.0) for one in range(2))
    rest.engine.model = replace(rest.engine.model, lora=loaded)
    assert rest.get("/lora-adapters").json[1] == {
        "id": 1,
        "path": "1.gguf",
        "scale": 1.0,
        "task_name": "",
        "prompt_prefix": "",
    }
    answer = rest.post("/lora-adapters", [{"id": 1, "scale": 0.5}, {"id": 7, "scale": 2}])
    assert (answer.status, answer.json) == (200, {"success": True})
    assert answer.headers["x-nitro-ignored"] == "lora/7"
    assert [one["scale"] for one in rest.get("/lora-adapters").json] == [0.0, 0.5]
    answer = rest.complete(lora=[{"id": 0, "scale": 2}, {"id": 9, "scale": 1}])
    assert rest.engine.requests[-1].lora == ((0, 2.0),)
    assert answer.json["generation_settings"]["lora"] == [{"id": 0, "scale": 2.0}]
    assert answer.headers["x-nitro-ignored"] == "lora/9"
    for wrong in ({}, "x", [5], [{"id": 0}], [{"id": "0", "scale": 1}], [{"id": 0, "scale": "x"}]):
        assert rest.request("POST", "/lora-adapters", json=wrong).status == 400


def test_without_adapters_every_one_is_ignored_and_told(rest: LlamaServer) -> None:
    answer = rest.post("/lora-adapters", [{"id": 0, "scale": 1}])
    assert (answer.json, answer.headers["x-nitro-ignored"]) == ({"success": True}, "lora/0")
    assert rest.complete(lora=[]).status == 200


@pytest.mark.parametrize("query", ["", "?action=", "?action=burn"])
def test_a_slot_takes_known_actions_only(rest: LlamaServer, query: str) -> None:
    answer = rest.post(f"/slots/0{query}", {})
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_slot_that_does_not_exist_is_400(rest: LlamaServer) -> None:
    for number in ("1", "-1", "x", "00"):
        assert rest.post(f"/slots/{number}?action=erase", {}).status == 400


def test_metrics_are_prometheus_text_of_this_application_alone(rest: LlamaServer) -> None:
    answer = rest.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(answer.headers["Process-Start-Time-Unix"]) > 1_600_000_000
    text = answer.data.decode()
    assert "\nllamacpp:requests_processing 0.0\n" in text
    assert "# TYPE llamacpp:requests_processing gauge\n" in text
    assert "python_" not in text


def test_every_documented_route_is_served_and_the_other_way_round(rest: LlamaServer) -> None:
    paths = document("llama-server")["paths"]
    documented = {
        (path.replace("{id_slot}", "<id_slot>"), method.upper())
        for path, item in paths.items()
        for method in item
        if method not in ("options", "parameters")
    }
    served = {
        (str(rule), method)
        for rule in rest.app.url_map.iter_rules()
        if rule.endpoint.startswith("llama-server.")
        for method in (rule.methods or ()) - {"HEAD", "OPTIONS"}
    }
    assert served == documented
