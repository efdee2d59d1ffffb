"""Loading, closing, forking and sharing the process: nothing native is used after its end, nothing
is left behind, and nothing that goes wrong ends the process."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.gguf_maker import Shape, llama_draft, make_llama

from nitrolib.backends import Feed, LoadOptions, opening
from nitrolib.backends import ctransformers as backend
from nitrolib.backends.ctransformers import load
from nitrolib.backends.library import cpu_variant, installed_variants, open_library
from nitrolib.backends.threads import ThreadBudget, available_cores
from nitrolib.errors import (
    BackendError,
    ModelFileError,
    ModelLoadError,
    ModelNotLoaded,
    NotEnoughMemory,
)
from nitrolib.gguf import FileIdentity

IDS = [1, *range(260, 300)]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def options(**changes) -> LoadOptions:
    return LoadOptions(**{"ctx_len": 128, "threads": 1, "ngl": 0, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("life") / "tiny.gguf", quant="Q8_0")


@pytest.fixture
def budget():
    return open_library(cpu_variant(installed_variants())).budget


def answer(runtime, seq=0) -> np.ndarray:
    runtime.keep(seq, 0)
    runtime.decode([Feed(seq, IDS[:20])])
    runtime.decode([Feed(seq, IDS[20:])])
    return runtime.logits(seq).copy()


# Closing ------------------------------------------------------------------------------------------


def test_closing_twice_is_harmless_and_every_call_after_it_is_refused(tiny):
    runtime = load(tiny, options(n_parallel=2))
    answer(runtime)
    runtime.close()
    runtime.close()
    for call in (
        lambda: runtime.decode([Feed(0, [5])]),
        lambda: runtime.decode([Feed(0, [5]), Feed(1, [5])]),
        lambda: runtime.tokenize("hello"),
        lambda: runtime.logits(0),
        lambda: runtime.embed(0),
        lambda: runtime.keep(0, 0),
        lambda: runtime.length(0),
    ):
        with pytest.raises(ModelNotLoaded, match="closed"):
            call()
    assert runtime.n_ctx == 64  # plain facts stay


def test_closing_gives_every_native_place_back(tiny, budget):
    before = budget.free
    runtime = load(tiny, options(ctx_len=640, n_parallel=5))
    assert budget.free == before - 7  # the model, five contexts, one evaluation at a time
    answer(runtime)
    runtime.close()
    assert budget.free == before


def test_an_error_that_is_kept_keeps_no_native_memory(tiny, budget):
    before = budget.free
    runtime = load(tiny, options())
    runtime._native = type("Failing", (), {"llama_eval": staticmethod(lambda *_: 1)})()
    with pytest.raises(BackendError) as caught:
        runtime.decode([Feed(0, [5])])
    runtime.close()
    assert budget.free == before
    assert caught.value.failed == (0,)


def test_dropping_a_runtime_without_closing_frees_it(tiny, budget):
    before = budget.free
    runtime = load(tiny, options())
    answer(runtime)
    del runtime
    gc.collect()
    assert budget.free == before


def test_a_view_that_outlives_its_runtime_stays_readable(tiny, budget):
    before = budget.free
    runtime = load(tiny, options())
    answer(runtime)
    view = runtime.logits(0)
    copy = view.copy()
    runtime.close()
    del runtime
    others = [load(tiny, options()) for _ in range(3)]  # they would take freed memory
    for other in others:
        other.decode([Feed(0, [9, 8, 7])])
    assert np.array_equal(view, copy)
    for other in others:
        other.close()
    del view
    assert budget.free == before


def test_closing_waits_for_the_evaluation_under_way(tmp_path):
    shape = Shape(
        n_embd=512, n_layer=6, n_head=8, n_head_kv=8, n_ff=1024, n_vocab=512, n_ctx_train=512
    )
    runtime = load(make_llama(tmp_path / "slow.gguf", shape=shape), options(ctx_len=512))
    started, outcome = threading.Event(), []

    def work() -> None:
        started.set()
        try:
            while True:
                runtime.keep(0, 0)
                runtime.decode([Feed(0, [5] * 64)])
        except ModelNotLoaded as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(60)
    time.sleep(0.05)
    runtime.close()
    thread.join(60)
    assert len(outcome) == 1


@LINUX
def test_a_hundred_cycles_leave_nothing_behind(tiny):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def count(what: str) -> int:
        if what == "fd":
            return len(os.listdir("/proc/self/fd"))
        return len(Path("/proc/self/maps").read_text().splitlines())

    def cycle(number: int) -> None:
        runtime = load(tiny, options(n_parallel=2, mmap=number % 2 == 0))
        answer(runtime)
        runtime.decode([Feed(0, [5]), Feed(1, [6, 7])])
        runtime.close()

    for number in range(10):
        cycle(number)
    gc.collect()
    memory, files, maps = resident(), count("fd"), count("maps")
    threads = threading.active_count()
    for number in range(100):
        cycle(number)
    gc.collect()
    assert resident() - memory < 4 << 20
    assert count("fd") <= files
    assert count("maps") - maps < 10
    assert threading.active_count() <= threads


# Several runtimes, threads, processes -------------------------------------------------------------


def test_two_runtimes_in_two_threads_compute_as_one_alone(tiny):
    alone = load(tiny, options())
    expected = answer(alone)
    alone.close()
    runtimes = [load(tiny, options()) for _ in range(2)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(30):
            wrong.extend([number] * (not np.array_equal(answer(runtimes[number]), expected)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for runtime in runtimes:
        runtime.close()
    assert wrong == []


def test_loading_in_many_threads_at_once_works(tiny, budget):
    before, outcome = budget.free, []

    def work() -> None:
        for _ in range(5):
            runtime = load(tiny, options())
            outcome.append(float(answer(runtime).sum()))
            runtime.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcome) == 20
    assert len(set(outcome)) == 1
    assert budget.free == before


def test_evaluations_never_hold_more_permits_than_there_are_cores(tiny, monkeypatch):
    class Watched(ThreadBudget):
        least = 99

        def acquire(self, threads: int) -> None:
            super().acquire(threads)
            Watched.least = min(Watched.least, self._free)

    watched = Watched(1)
    monkeypatch.setattr(backend, "process_budget", lambda: watched)
    runtimes = [load(tiny, options(n_parallel=2)) for _ in range(2)]
    threads = [threading.Thread(target=answer, args=(runtime,)) for runtime in runtimes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for runtime in runtimes:
        runtime.close()
    assert Watched.least == 0
    assert watched._free == 1


def test_as_many_slots_as_the_native_table_holds_really_run(tiny):
    """One more would end the process natively; here it is refused. In a process of its own, since
    the table belongs to all runtimes."""
    code = """
import sys
from nitrolib.backends import Feed, LoadOptions
from nitrolib.backends.ctransformers import load
from nitrolib.errors import ModelLoadError
from nitrolib.backends.threads import available_cores
threads = min(2, available_cores())
most = 61 - 1 - threads
try:
    load(sys.argv[1], LoadOptions(ctx_len=999, n_parallel=most + 1, threads=threads, ngl=0))
except ModelLoadError as error:
    print("refused", error.needed, error.left)
runtime = load(sys.argv[1], LoadOptions(ctx_len=10 * most, n_parallel=most, threads=threads, ngl=0))
for token in (5, 6, 7):
    runtime.decode([Feed(seq, [token]) for seq in range(most)])
print("ran", {runtime.length(seq) for seq in range(most)})
runtime.close()
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["refused 62 61", "ran {3}"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_goes_on_with_the_loaded_model(tiny):
    code = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
from nitrolib.backends import Feed, LoadOptions
from nitrolib.backends.ctransformers import load
from nitrolib.backends.threads import available_cores
threads = min(2, available_cores())
runtime = load(sys.argv[1], LoadOptions(ctx_len=256, n_parallel=4, threads=threads, ngl=0))
feeds = [Feed(seq, [5, 6, 7 + seq]) for seq in range(4)]
runtime.decode(feeds)
before = [runtime.logits(seq).copy() for seq in range(4)]
def again():
    for seq in range(4):
        runtime.keep(seq, 0)
    runtime.decode(feeds)
    assert runtime.tokenize("hello")
    return all(np.array_equal(runtime.logits(seq), before[seq]) for seq in range(4))
child = os.fork()
if child == 0:
    good = again()
    other = load(sys.argv[1], LoadOptions(ctx_len=32, threads=1, ngl=0))
    other.close()
    runtime.close()
    os._exit(0 if good else 3)
good = again()
print(good, os.waitpid(child, 0)[1])
runtime.close()
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tiny)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert run.stdout.split() == ["True", "0"]


def test_after_a_fork_a_gpu_model_is_left_alone(tiny, budget):
    """Nothing of CUDA may be touched in the child; the test looks at the decision only."""
    runtime = load(tiny, options())
    runtime._on_gpu = True
    loaded = runtime._loaded
    runtime._after_fork()
    with pytest.raises(ModelNotLoaded, match="GPU before this process was forked"):
        runtime.decode([Feed(0, [5])])
    runtime.close()
    for handle in (*loaded.contexts, loaded.model):
        assert not handle._finalizer.alive
        budget.give(1)
    budget.give(1)  # the place of its evaluation


def test_the_process_may_end_without_closing(tiny):
    code = """
import sys
from nitrolib.backends import Feed, LoadOptions
from nitrolib.backends.ctransformers import load
runtime = load(sys.argv[1], LoadOptions(ctx_len=64, n_parallel=2, threads=1, ngl=0))
runtime.decode([Feed(0, [5, 6]), Feed(1, [7])])
kept = runtime.logits(0)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


# Files --------------------------------------------------------------------------------------------


def test_nothing_is_printed(tiny, capfd):
    runtime = load(tiny, options(n_parallel=2))
    answer(runtime)
    runtime.tokenize("hello " * 1000)
    runtime.close()
    with pytest.raises(ModelLoadError):
        load(tiny, options(ctx_len=1000, n_parallel=1000))
    assert capfd.readouterr() == ("", "")


def test_a_failed_load_tells_the_native_reason_and_leaves_nothing(tmp_path, monkeypatch, budget):
    draft = llama_draft()
    draft.remove_tensor("blk.1.attn_q.weight")
    path = draft.write(tmp_path / "m.gguf")
    with pytest.raises(ModelFileError):
        load(path, options())
    before = budget.free
    monkeypatch.setattr(  # let it through to the library
        backend, "verify_file", lambda file, _rule: backend_info(file)
    )
    with pytest.raises(ModelLoadError, match=r"blk\.1\.attn_q\.weight") as caught:
        backend.load(path, options())
    assert "blk.1.attn_q.weight" in caught.value.reason
    assert caught.value.path == str(path)
    assert budget.free == before


def backend_info(file):
    from nitrolib.gguf import ModelInfo

    return ModelInfo.from_gguf(file)


def test_a_file_that_changes_after_it_was_verified_is_not_loaded(
    tmp_path, tiny, monkeypatch, budget
):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny, path)
    real, before = backend.verify_file, budget.free

    def replace_after(file, rule):
        info = real(file, rule)
        path.write_bytes(b"GGUF" + bytes(100))  # native code would read beyond it
        return info

    monkeypatch.setattr(backend, "verify_file", replace_after)
    with pytest.raises(ModelLoadError, match="changed while it was loaded"):
        load(path, options())
    assert budget.free == before


def test_a_file_that_changes_while_it_is_read_is_given_up(tiny, monkeypatch, budget):
    real, before, calls = FileIdentity.of, budget.free, []

    def changing(path):
        calls.append(path)
        identity = real(path)
        if len(calls) < 2:
            return identity
        return FileIdentity(identity.device, identity.inode, identity.size, identity.mtime_ns + 1)

    runtime = load(tiny, options())
    runtime.close()
    monkeypatch.setattr(opening, "FileIdentity", type("Changing", (), {"of": changing}))
    with pytest.raises(ModelLoadError, match="changed while it was loaded"):
        load(tiny, options())
    assert len(calls) == 2
    assert budget.free == before


@pytest.mark.parametrize("change", ["cut", "overwrite"])
def test_a_mapped_file_that_is_written_to_fails_the_next_prompt_not_the_process(
    tmp_path, tiny, change
):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny, path)
    runtime = load(path, options(ctx_len=256, n_parallel=2))
    answer(runtime)
    if change == "cut":
        os.truncate(path, 4096)  # reading the rest is SIGBUS
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(bytes(64))
    runtime.keep(0, 0)
    with pytest.raises(BackendError, match="written to") as caught:
        runtime.decode([Feed(0, IDS), Feed(1, IDS)])
    assert caught.value.failed == (0, 1)
    with pytest.raises(BackendError, match="written to"):
        runtime.decode([Feed(0, IDS)])
    assert runtime.length(0) == 0
    runtime.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files")
@pytest.mark.parametrize("change", ["remove", "replace"])
def test_a_file_that_is_removed_or_replaced_by_rename_goes_on(tmp_path, tiny, change):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny, path)
    runtime = load(path, options())
    expected = answer(runtime)
    if change == "remove":
        path.unlink()
    else:
        make_llama(tmp_path / "new.gguf", seed=3).rename(path)
    assert np.array_equal(answer(runtime), expected)
    runtime.close()


def test_without_mapping_the_file_may_change(tmp_path, tiny):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny, path)
    runtime = load(path, options(mmap=False))
    expected = answer(runtime)
    path.write_bytes(b"")
    assert np.array_equal(answer(runtime), expected)
    runtime.close()


def test_unusual_paths_work(tmp_path, tiny, monkeypatch):
    folder = tmp_path / "пример 你好 🙂" / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    shutil.copy(tiny, folder / "m o d e l.bin")
    monkeypatch.chdir(folder)
    (folder / "link.gguf").symlink_to("m o d e l.bin")
    for path in ("m o d e l.bin", Path("link.gguf"), str(folder / "link.gguf")):
        load(path, options()).close()


def test_a_context_that_cannot_fit_is_refused_with_numbers(tmp_path):
    path = make_llama(tmp_path / "m.gguf", n_ctx_train=(1 << 31) - 1)
    with pytest.raises(NotEnoughMemory) as caught:
        load(path, options(ctx_len=1 << 28))
    assert caught.value.needed_bytes > caught.value.available_bytes > 0
    with pytest.raises(ModelLoadError, match="more than the library can count"):
        load(path, options(ctx_len=(1 << 31) - 1))


def test_all_cores_may_be_used(tiny):
    cores = available_cores()
    runtime = load(tiny, options(threads=cores))
    assert runtime.report.threads == cores
    runtime.close()
    runtime = load(tiny, options(threads=None))
    assert runtime.report.threads == max(1, cores - 1)
    runtime.close()
