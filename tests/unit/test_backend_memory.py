"""Memory is reckoned before loading, and what does not fit is refused with both numbers."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import pytest
from support.gguf_maker import Shape, make_llama

from nitrolib.backends import LoadOptions, load, memory
from nitrolib.backends.library import cpu_variant, installed_variants, open_library
from nitrolib.errors import ModelLoadError, NotEnoughMemory

TINYLLAMA = SimpleNamespace(
    n_layer=22, n_embd=2048, n_head=32, n_head_kv=4, head_size=64, n_ff=5632, n_vocab=32000,
    file_bytes=600 << 20,
)  # fmt: skip


def _logged_megabytes(what: str) -> float:
    log = open_library(cpu_variant(installed_variants())).log
    line = [line for line in log.lines if what in line][-1]
    return float(line.split("=")[1].split()[0])


@pytest.mark.parametrize("ctx_len", [64, 512, 1100])
@pytest.mark.parametrize(("heads", "vocab"), [(2, 300), (16, 600), (4, 4000)])
def test_the_plan_is_what_the_library_takes_or_a_little_more(tmp_path, ctx_len, heads, vocab):
    shape = Shape(
        n_embd=128, n_layer=2, n_head=heads, n_head_kv=2, n_ff=300, n_vocab=vocab, n_ctx_train=2048
    )
    path = make_llama(tmp_path / "m.gguf", shape=shape)
    runtime = load(path, LoadOptions(ctx_len=ctx_len, threads=1, ngl=0), "ctransformers")
    kv_cache, scratch = _logged_megabytes("kv self size"), _logged_megabytes("compute buffer")
    plan = memory.reckon(runtime.info, n_ctx=ctx_len, n_seq=1, n_batch=min(512, ctx_len), mmap=True)
    runtime.close()
    assert plan.kv_cache / (1 << 20) == pytest.approx(kv_cache, abs=0.01)
    assert scratch <= plan.scratch / (1 << 20) <= 1.6 * scratch + 1


def test_every_context_has_its_own_cache_and_scratch():
    one = memory.reckon(TINYLLAMA, n_ctx=2048, n_seq=1, n_batch=512, mmap=True)
    four = memory.reckon(TINYLLAMA, n_ctx=2048, n_seq=4, n_batch=512, mmap=True)
    assert four.kv_cache == 4 * one.kv_cache
    assert four.scratch == 4 * one.scratch
    assert four.weights == one.weights


def test_mapped_weights_need_no_free_memory():
    mapped = memory.reckon(TINYLLAMA, n_ctx=512, n_seq=1, n_batch=512, mmap=True)
    copied = memory.reckon(TINYLLAMA, n_ctx=512, n_seq=1, n_batch=512, mmap=False)
    assert copied.anonymous - mapped.anonymous == TINYLLAMA.file_bytes
    assert copied.total == mapped.total


def test_what_does_not_fit_is_refused_with_both_numbers():
    plan = memory.reckon(TINYLLAMA, n_ctx=2048, n_seq=1, n_batch=512, mmap=True)
    with pytest.raises(NotEnoughMemory) as caught:
        memory.check(plan, "/m.gguf", plan.anonymous)
    assert caught.value.needed_bytes > caught.value.available_bytes == plan.anonymous
    assert "ctx_len" in str(caught.value)


def test_unknown_memory_refuses_nothing():
    plan = memory.reckon(TINYLLAMA, n_ctx=2048, n_seq=1, n_batch=512, mmap=False)
    assert memory.check(plan, "/m.gguf", None) is None


def test_a_mapped_file_larger_than_memory_is_loaded_with_a_note():
    plan = memory.reckon(TINYLLAMA, n_ctx=512, n_seq=1, n_batch=512, mmap=True)
    note = memory.check(plan, "/m.gguf", plan.anonymous + (100 << 20))
    assert note is not None
    assert "600 MiB" in note
    assert memory.check(plan, "/m.gguf", 100 << 30) is None


def test_layers_times_context_beyond_31_bits_is_refused():
    huge = SimpleNamespace(**{**vars(TINYLLAMA), "n_layer": 100})
    with pytest.raises(ModelLoadError, match="at most 21474836 tokens"):
        memory.reckon(huge, n_ctx=(1 << 31) // 100 + 1, n_seq=1, n_batch=512, mmap=True)


def test_loading_asks_before_the_native_code_does(tmp_path, monkeypatch):
    path = make_llama(tmp_path / "m.gguf", n_ctx_train=1 << 20)
    monkeypatch.setattr(memory, "available_bytes", lambda: 200 << 20)
    with pytest.raises(NotEnoughMemory):
        load(path, LoadOptions(ctx_len=1 << 20, threads=1, ngl=0))


def test_this_machine_knows_its_memory():
    available = memory.available_bytes()
    assert available is None or available > 1 << 20
    if sys.platform == "linux":
        assert available is not None


def test_an_unreadable_meminfo_is_unknown(tmp_path):
    assert memory._linux_available(tmp_path / "none") is None
    bad = tmp_path / "meminfo"
    bad.write_text("MemAvailable: lots\n")
    assert memory._linux_available(bad) is None
    bad.write_text("MemTotal: 1 kB\nMemAvailable:   2048 kB\n")
    assert memory._linux_available(bad) == 2048 * 1024


def test_a_container_lowers_what_is_available(monkeypatch):
    monkeypatch.setattr(memory, "_linux_available", lambda: 1000)
    monkeypatch.setattr(memory.cgroup, "memory_left", lambda: 300)
    if sys.platform == "linux":
        assert memory.available_bytes() == 300


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit on Windows")
def test_locking_is_asked_of_the_limit_first(monkeypatch):
    import resource

    monkeypatch.setattr(memory, "_has_ipc_lock", lambda: False)
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (1 << 20, 1 << 20))
    assert memory.may_lock(1 << 20)
    assert not memory.may_lock((1 << 20) + 1)
    monkeypatch.setattr(memory, "_has_ipc_lock", lambda: True)
    assert memory.may_lock(1 << 40)


def test_the_lock_capability_is_bit_14(tmp_path):
    status = tmp_path / "status"
    status.write_text("CapEff:\t0000000000004000\n")
    assert memory._has_ipc_lock(status)
    status.write_text("CapEff:\t0000000000003fff\n")
    assert not memory._has_ipc_lock(status)


def test_refused_locking_is_a_note_not_a_line_on_stderr(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(memory, "may_lock", lambda _count: False)
    path = make_llama(tmp_path / "m.gguf")
    runtime = load(path, LoadOptions(ctx_len=32, threads=1, ngl=0, mlock=True))
    runtime.close()
    assert any(note.startswith("mlock was not done") for note in runtime.report.notes)
    assert capfd.readouterr() == ("", "")


def test_a_plan_is_plain_data():
    plan = memory.reckon(TINYLLAMA, n_ctx=512, n_seq=1, n_batch=512, mmap=True)
    assert dataclasses.asdict(plan)["mapped"] is True
