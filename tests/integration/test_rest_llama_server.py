"""The llama-server dialect over gunicorn with real models: the relations that llama.cpp's own tests
of its server hold, and the paths that it shares with other dialects."""

from __future__ import annotations

import http.client
import json
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.gguf_families import make_lora, make_model
from support.gguf_maker import make_llama
from support.models import chat_model, exact_chat_model, exact_options, slow_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_llama = pytest.mark.skipif(
    find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
GREEDY = {"temperature": 0, "n_predict": 12}
PROMPT = "Once upon a time"
CONTEXT = 256


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model on the shared port."""
    model = chat_model(tmp_path_factory.mktemp("model"))
    with serve(model=model, n_parallel=2, ctx_len=2 * CONTEXT) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A slow model at the dialect's own port, one slot."""
    model = slow_model(tmp_path_factory.mktemp("slow"))
    with serve(dialects="llama-server,nitro", model=model, ctx_len=4096) as running:
        yield running


def complete(server: Server, **fields: Any) -> Any:
    code, answer = server.post("/completion", {"prompt": PROMPT, **fields})
    assert code == 200, answer
    return answer


def events(server: Server, path: str = "/completion", **fields: Any) -> list[Any]:
    body = {"prompt": PROMPT, "stream": True, **fields}
    with server.send(path, body) as connection:
        raw = server.read_to_end(connection)
    _, _, text = raw.decode().partition("\n\n")
    found = [one for one in text.split("\n\n") if one and one != ":"]
    return [json.loads(one.removeprefix("data: ")) for one in found]


def test_counts_add_up_with_and_without_the_cache(server: Server) -> None:
    for fields in ({"cache_prompt": False}, {}, {}):
        answer = complete(server, id_slot=1, **GREEDY, **fields)
        timings = answer["timings"]
        assert timings["cache_n"] + timings["prompt_n"] == answer["tokens_evaluated"]
        assert timings["predicted_n"] == answer["tokens_predicted"] <= 12
        assert answer["tokens_cached"] == answer["tokens_evaluated"] + timings["predicted_n"] - 1
        assert all(value >= 0 for value in timings.values())
    assert timings["prompt_n"] == 1  # one token is always evaluated anew
    assert answer["id_slot"] == 1
    assert answer["prompt"].startswith("<s>")


def test_one_token_has_no_rate(server: Server) -> None:
    timings = complete(server, n_predict=1)["timings"]
    assert timings["predicted_n"] == 1
    assert timings["predicted_per_second"] == timings["predicted_per_token_ms"] == 0


def test_a_stream_joins_to_the_whole_answer(server: Server) -> None:
    for fields in ({}, {"n_probs": 3}, {"stop": [" is", "Paris."]}, {"n_predict": 3}):
        asked = {**GREEDY, **fields}
        whole = complete(server, return_tokens=True, **asked)
        *partials, last = events(server, **asked)
        assert "".join(one["content"] for one in partials) == whole["content"]
        assert all(isinstance(token, int) for one in partials for token in one["tokens"])
        assert len(whole["tokens"]) == whole["tokens_predicted"]
        for name in ("stop_type", "stopping_word", "tokens_predicted", "tokens_cached", "prompt"):
            assert last[name] == whole[name]
        assert {one["tokens_evaluated"] for one in partials} == {whole["tokens_evaluated"]}


def test_stops_and_limits_are_told_apart(server: Server) -> None:
    whole = complete(server, **GREEDY)["content"]
    assert len(whole) > 8
    cut = complete(server, **GREEDY, stop=[whole[3:6]])
    assert (cut["content"], cut["stop_type"]) == (whole[:3], "word")
    assert cut["stopping_word"] == whole[3:6]
    limited = complete(server, temperature=0, n_predict=2)
    assert (limited["stop_type"], limited["tokens_predicted"]) == ("limit", 2)
    nothing = complete(server, n_predict=0)
    assert (nothing["content"], nothing["stop_type"]) == ("", "limit")
    assert nothing["tokens_predicted"] == 0


def test_text_that_a_stop_held_back_is_sent_at_the_end(server: Server) -> None:
    whole = complete(server, **GREEDY)["content"]
    held = whole[-2:] + "never"
    *partials, _ = events(server, **GREEDY, stop=[held])
    assert "".join(one["content"] for one in partials) == whole


def test_a_full_context_ends_the_answer(server: Server) -> None:
    answer = complete(server, n_predict=-1, ignore_eos=True, temperature=0)
    assert (answer["truncated"], answer["stop_type"]) == (True, "limit")
    assert answer["tokens_predicted"] == CONTEXT - answer["tokens_evaluated"]
    assert answer["tokens_cached"] == CONTEXT - 1
    code, told = server.post("/completion", {"prompt": "word " * 400, "stream": True})
    assert code == 400
    assert told["error"]["type"] == "exceed_context_size_error"
    assert told["error"]["n_ctx"] == CONTEXT


def test_a_shift_goes_on_and_says_so(server: Server) -> None:
    answer = complete(
        server, n_predict=300, ignore_eos=True, temperature=0, context_policy="shift", n_keep=5
    )
    assert (answer["truncated"], answer["tokens_predicted"]) == (True, 300)
    assert answer["tokens_cached"] < CONTEXT
    assert any("dropped" in one for one in answer["warnings"])


def test_the_prompt_may_be_written_in_many_ways(server: Server) -> None:
    (bos, *ids) = server.post("/tokenize", {"content": PROMPT, "add_special": True})[1]["tokens"]
    text = complete(server, **GREEDY)["content"]
    same = [PROMPT, [bos, *ids], {"prompt_string": PROMPT}, [PROMPT]]
    for prompt in same:
        assert complete(server, prompt=prompt, **GREEDY)["content"] == text
    several = complete(server, prompt=[PROMPT, [bos, *ids], {"prompt_string": PROMPT}], **GREEDY)
    assert [one["content"] for one in several] == [text] * 3
    assert [one["index"] for one in several] == [0, 1, 2]
    mixed = complete(server, prompt=[bos, *ids[:2], " a time"], return_tokens=True, **GREEDY)
    assert mixed["tokens_evaluated"] >= 4


def test_choices_have_the_seeds_after_the_first(tmp_path: Path, backend: str) -> None:
    """With a model whose answers do not depend on the rounding of their company."""
    asked = {"temperature": 1.0, "n_predict": 8, "cache_prompt": False}
    model, exact = exact_chat_model(tmp_path, backend), exact_options(backend)
    with serve(model=model, backend=backend, n_parallel=2, ctx_len=2 * CONTEXT, **exact) as server:
        choices = complete(server, n_cmpl=3, seed=40, **asked)
        alone = [complete(server, seed=40 + index, **asked) for index in range(3)]
    assert [one["content"] for one in choices] == [one["content"] for one in alone]
    assert [one["generation_settings"]["seed"] for one in choices] == [40, 41, 42]
    assert choices == sorted(choices, key=lambda one: one["index"])


def test_probabilities_are_complete(server: Server) -> None:
    answer = complete(server, n_probs=10, **GREEDY)
    entries = answer["completion_probabilities"]
    assert "".join(one["token"] for one in entries) == answer["content"]
    for one in entries:
        assert one["logprob"] <= 0
        assert len(one["top_logprobs"]) == 10
        assert one["top_logprobs"][0]["id"] == one["id"]
    after = complete(server, n_probs=10, post_sampling_probs=True, n_predict=4, temperature=1.0)
    for one in after["completion_probabilities"]:
        assert 0 < one["prob"] <= 1
        assert all(top["prob"] > 0 for top in one["top_probs"])
    *partials, _ = events(server, n_probs=2, **GREEDY)
    assert all(len(one["completion_probabilities"]) == 1 for one in partials)


def test_progress_rises_to_the_whole_prompt(server: Server) -> None:
    complete(server, id_slot=0, **GREEDY)
    found = events(server, id_slot=0, return_progress=True, **GREEDY)
    told = [one["prompt_progress"] for one in found if "prompt_progress" in one]
    first, last = told[0], told[-1]
    assert first["cache"] == first["processed"] > 0
    assert last["processed"] == last["total"] == found[-1]["tokens_evaluated"]
    assert len({(one["total"], one["cache"]) for one in told}) == 1


def test_grammars_and_schemas_hold(server: Server) -> None:
    assert complete(server, grammar='root ::= "yes" | "no"')["content"] in ("yes", "no")
    answer = complete(server, json_schema={"enum": ["red", "blue"]})
    assert json.loads(answer["content"]) in ("red", "blue")
    code, told = server.post("/completion", {"prompt": "x", "grammar": "root ::= ("})
    assert (code, told["error"]["type"]) == (400, "invalid_request_error")


def test_text_and_tokens_round_trip(server: Server) -> None:
    text = "What will the day be like today? 你好 🦙"
    tokens = server.post("/tokenize", {"content": text})[1]["tokens"]
    assert server.post("/detokenize", {"tokens": tokens})[1]["content"].strip() == text
    pieces = server.post("/tokenize", {"content": text, "with_pieces": True})[1]["tokens"]
    assert [one["id"] for one in pieces] == tokens
    joined = b"".join(
        piece.encode() if isinstance(piece, str) else bytes(piece)
        for piece in (one["piece"] for one in pieces)
    )
    assert joined.decode().strip() == text
    (bos,) = server.post("/tokenize", {"content": "<s>"})[1]["tokens"]
    assert server.post("/detokenize", {"tokens": [bos]})[1]["content"] == "<s>"
    plain = server.post("/tokenize", {"content": "<s>", "parse_special": False})[1]["tokens"]
    assert bos not in plain


def test_the_server_tells_of_itself(server: Server) -> None:
    assert server.get("/health") == server.get("/v1/health") == (200, {"status": "ok"})
    props = server.get("/props")[1]
    assert (props["total_slots"], props["bos_token"]) == (2, "<s>")
    assert props["default_generation_settings"]["n_ctx"] == CONTEXT
    slots = server.get("/slots")[1]
    assert [one["id"] for one in slots] == [0, 1]
    assert {one["n_ctx"] for one in slots} == {CONTEXT}
    assert not any(one["is_processing"] for one in slots)


def test_vectors_have_the_length_asked_for(server: Server) -> None:
    rows = server.post("/embedding", {"content": ["one", "two"]})[1]
    for row in rows:
        assert sum(one * one for one in row["embedding"][0]) == pytest.approx(1, abs=1e-3)
    one = server.post("/embeddings", {"input": "one", "embd_normalize": 1})[1][0]["embedding"][0]
    assert sum(map(abs, one)) == pytest.approx(1, abs=1e-3)


def test_where_others_have_a_path_they_answer(server: Server) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    code, theirs = server.post("/v1/chat/completions", {"messages": hello, "max_tokens": 2})
    assert (code, theirs["system_fingerprint"]) == (200, "_")
    code, own = server.post("/chat/completions", {"messages": hello, "max_tokens": 2})
    assert code == 200
    assert own["system_fingerprint"].startswith("b")
    assert server.post("/v1/chat/completions", {})[1]["message"]
    assert server.post("/completion", {})[1]["error"]["code"] == 400


def test_an_infill_fills_by_the_models_own_marks(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "fim.gguf", user_defined=FIM, n_ctx_train=512)
    with serve(dialects="llama-server", model=model, ctx_len=512) as running:
        body = {"input_prefix": "def add(a, b):\n", "input_suffix": "\n", "n_predict": 4}
        code, answer = running.post("/infill", body)
        assert code == 200
        assert answer["tokens_predicted"] == 4
        marks = [answer["prompt"].index(mark) for mark in FIM]
        assert marks == sorted(marks)
        long = {**body, "input_prefix": "word " * 2000}
        code, answer = running.post("/infill", long)
        assert code == 200
        assert answer["tokens_evaluated"] + 4 <= 512
        assert "input_prefix was cut" in answer["warnings"][0]


@needs_llama
def test_documents_are_ranked_by_a_model_that_was_made_for_it(
    tmp_path: Path, server: Server
) -> None:
    body = {"query": "which animal", "documents": ["a panda", "hello", "it is a bear", "no"]}
    code, told = server.post("/rerank", body)
    assert (code, told["error"]["type"]) == (501, "not_supported_error")
    model = make_model(tmp_path / "rank.gguf", "bert-reranker")
    with serve(dialects="llama-server", model=model) as running:
        code, whole = running.post("/rerank", body)
        assert code == 200
        scores = [one["relevance_score"] for one in whole["results"]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(one["index"] for one in whole["results"]) == [0, 1, 2, 3]
        best = running.post("/v1/rerank", {**body, "top_n": 1})[1]["results"]
        assert best == whole["results"][:1]
        texts = {"query": body["query"], "texts": body["documents"]}
        rows = running.post("/rerank", texts)[1]
        assert [one["index"] for one in rows] == [one["index"] for one in whole["results"]]
        assert scraped(running)["prompt_tokens_total"] > 0


@needs_llama
def test_adapters_change_the_answer_as_strongly_as_they_are_told(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "tiny.gguf")
    adapter = make_lora(tmp_path / "lora.gguf")
    asked = {"prompt": "Far away", "n_probs": 5, "n_predict": 4, "temperature": 0}

    def probs(**fields: Any) -> Any:
        return complete(running, **{**asked, **fields})["completion_probabilities"]

    with serve(
        dialects="llama-server", model=model, backend="llama-cpp-python", loras=f"{adapter}=0.0"
    ) as running:
        plain = probs()
        full = probs(lora=[{"id": 0, "scale": 1.0}])
        assert full != plain
        assert probs(lora=[{"id": 0, "scale": 0.5}]) not in (plain, full)
        assert running.post("/lora-adapters", [{"id": 0, "scale": 1.0}]) == (200, {"success": True})
        assert running.get("/lora-adapters")[1][0]["scale"] == 1.0
        assert probs() == full
        assert probs(lora=[]) == plain


@needs_llama
def test_slots_are_saved_restored_and_erased_across_a_restart(tmp_path: Path) -> None:
    model = chat_model(tmp_path)
    settings = {
        "dialects": "llama-server", "model": model, "backend": "llama-cpp-python",
        "slots_dir": tmp_path / "slots", "n_parallel": 2,
    }  # fmt: skip
    asked = {"prompt": "Once upon a time there was a small dog who", **GREEDY}

    def evaluated(slot: int) -> int:
        answer = complete(running, id_slot=slot, **asked)
        assert answer["content"] == text
        found: int = answer["timings"]["prompt_n"]
        return found

    with serve(**settings) as running:
        first = complete(running, id_slot=1, **asked)
        text, whole = first["content"], first["timings"]["prompt_n"]
        assert whole == first["tokens_evaluated"]
        code, saved = running.post("/slots/1?action=save", {"filename": "dog.bin"})
        assert (code, saved["n_saved"]) == (200, first["tokens_cached"])
        assert saved["n_written"] == (tmp_path / "slots" / "dog.bin").stat().st_size
    with serve(**settings) as running:
        code, restored = running.post("/slots/0?action=restore", {"filename": "dog.bin"})
        assert (code, restored["n_restored"]) == (200, saved["n_saved"])
        assert evaluated(0) == 1
        code, erased = running.post("/slots/0?action=erase", {})
        assert (code, erased["n_erased"]) == (200, first["tokens_cached"])
        assert evaluated(0) == whole


def test_a_client_that_goes_frees_its_slot(slow: Server) -> None:
    body = {"prompt": "Far away", "n_predict": -1, "ignore_eos": True, "stream": True}
    for stream in (True, False):
        with slow.send("/completion", {**body, "stream": stream}):
            slow.wait_until(lambda data: data["running"] == 1)
            assert slow.get("/slots?fail_on_no_slot=1")[0] == 503
        slow.wait_until(lambda data: data["running"] == 0)


def test_a_silent_stream_is_kept_open(slow: Server) -> None:
    """The second request waits for the only slot, and says nothing but comments."""
    body = {"prompt": "Far away", "n_predict": -1, "ignore_eos": True, "stream": True}
    short = {"prompt": "x", "n_predict": 1, "stream": True, "sse_ping_interval": 1}
    with slow.send("/completion", body) as first:
        slow.wait_until(lambda data: data["running"] == 1)
        with slow.send("/completion", short) as second:
            slow.wait_until(lambda data: data["waiting"] == 1)
            second.settimeout(30)
            seen = b""
            while b"\n:\n\n" not in seen.replace(b"\r", b""):
                seen += second.recv(4096)
            assert b"200 OK" in seen
            first.close()
            while b'"stop":true' not in seen:
                seen += second.recv(4096)


def scraped(server: Server) -> dict[str, float]:
    """The metrics by name, without their prefix."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert int(answer.headers["Process-Start-Time-Unix"]) <= time.time()
    families = [*text_string_to_metric_families(answer.read().decode())]
    connection.close()
    return {
        sample.name.removeprefix("llamacpp:"): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_grow_by_what_answers_tell(server: Server) -> None:
    before = scraped(server)
    timings = [complete(server, n_predict=count)["timings"] for count in (1, 4, 16)]
    assert server.post("/embedding", {"content": "one two three"})[0] == 200
    after = scraped(server)
    grown = {name: after[name] - before[name] for name in after}
    assert grown["tokens_predicted_total"] == sum(one["predicted_n"] for one in timings)
    assert grown["prompt_tokens_cached_total"] == sum(one["cache_n"] for one in timings)
    assert grown["prompt_tokens_total"] > sum(one["prompt_n"] for one in timings)  # the embedding
    assert grown["n_decode_total"] > 0
    assert after["predicted_tokens_seconds"] > 0
    assert after["requests_processing"] == after["requests_deferred"] == 0
    assert scraped(server)["predicted_tokens_seconds"] == 0
