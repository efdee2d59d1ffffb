"""The thread budget: native threads of all runtimes never outnumber the cores."""

from __future__ import annotations

import threading
import time

import pytest

from nitrolib.backends.cgroup import cpu_quota, memory_left
from nitrolib.backends.threads import (
    ThreadBudget,
    Workers,
    available_cores,
    choose_threads,
    process_budget,
)
from nitrolib.errors import InvalidRequest


def test_available_cores_is_at_least_one_and_at_most_the_affinity():
    import os

    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_a_quota_lowers_the_cores(monkeypatch):
    monkeypatch.setattr("nitrolib.backends.threads.cpu_quota", lambda: 1.9)
    assert available_cores() == 1


def test_a_tiny_quota_leaves_one_core(monkeypatch):
    monkeypatch.setattr("nitrolib.backends.threads.cpu_quota", lambda: 0.25)
    assert available_cores() == 1


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_the_default_leaves_a_core_to_the_rest_of_the_program(cores, threads):
    assert choose_threads(None, cores) == threads


def test_more_threads_than_cores_are_refused_naming_the_cores():
    with pytest.raises(InvalidRequest, match="4 cores") as caught:
        choose_threads(5, 4)
    assert caught.value.field == "threads"
    assert caught.value.value == 5
    assert caught.value.allowed == "1 to 4"


def test_all_cores_may_be_asked_for():
    assert choose_threads(4, 4) == 4


def test_the_process_has_one_budget():
    assert process_budget() is process_budget()


def test_the_budget_is_never_exceeded():
    budget = ThreadBudget(3)
    lock, running, most = threading.Lock(), 0, 0

    def work(threads: int) -> None:
        nonlocal running, most
        for _ in range(50):
            budget.acquire(threads)
            with lock:
                running += threads
                most = max(most, running)
            time.sleep(0)
            with lock:
                running -= threads
            budget.release(threads)

    workers = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    assert most <= 3
    assert running == 0
    budget.acquire(3)  # everything was given back


def test_a_large_wish_is_not_starved_by_small_ones():
    budget = ThreadBudget(2)
    budget.acquire(1)
    order: list[str] = []

    def take(name: str, threads: int) -> threading.Thread:
        def work() -> None:
            budget.acquire(threads)
            order.append(name)
            budget.release(threads)

        thread = threading.Thread(target=work)
        thread.start()
        while len(budget._waiting) == len(order) and thread.is_alive():
            time.sleep(0.001)
        return thread

    large = take("large", 2)
    small = take("small", 1)  # a permit is free, but the large wish came first
    time.sleep(0.02)
    assert order == []
    budget.release(1)
    large.join(60)
    small.join(60)
    assert order == ["large", "small"]


def test_an_interrupted_wait_leaves_no_ticket_behind(monkeypatch):
    budget = ThreadBudget(1)
    budget.acquire(1)

    class Interrupted:
        def __init__(self) -> None:
            self.calls = 0

        def acquire(self) -> None:
            self.calls += 1
            if self.calls == 2:  # the wait itself
                raise KeyboardInterrupt

        def release(self) -> None: ...

    real = threading.Lock
    with monkeypatch.context() as patch:
        patch.setattr("nitrolib.backends.threads.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            budget.acquire(1)
    assert threading.Lock is real
    budget.release(1)
    budget.acquire(1)  # would wait for ever behind the forgotten ticket


def test_reset_makes_all_permits_free_again():
    budget = ThreadBudget(2)
    budget.acquire(2)
    budget.reset()
    budget.acquire(2)


def test_workers_run_the_task_in_the_caller_and_in_others():
    workers, seen, barrier = Workers("test"), set(), threading.Barrier(3, timeout=60)

    def task() -> None:
        barrier.wait()
        seen.add(threading.current_thread())

    workers.run(task, 3)
    workers.run(task, 3)
    assert threading.current_thread() in seen
    assert len(seen) == 3
    workers.close()
    assert not any(thread.is_alive() for thread in seen - {threading.current_thread()})


def test_an_interrupt_in_the_caller_is_raised_only_after_the_others_are_done():
    workers, done = Workers("test"), []
    caller = threading.current_thread()

    def task() -> None:
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        workers.run(task, 2)
    assert done == [True]
    workers.close()


def test_workers_may_be_closed_twice_and_used_again():
    workers = Workers("test")
    workers.run(lambda: None, 2)
    workers.close()
    workers.close()
    workers.run(lambda: None, 2)
    workers.close()


# Containers ---------------------------------------------------------------------------------------


def _files(root, contents):
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_v2_quota_is_the_least_of_the_groups_above(tmp_path):
    root = _files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/cpu.max": "400000 100000\n",
        },
    )
    assert cpu_quota(root) == 1.5


def test_a_v1_quota_counts_and_minus_one_is_none(tmp_path):
    root = _files(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/x\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(root) == 2.0


def test_no_control_groups_means_no_limit(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert memory_left(tmp_path) is None


def test_memory_left_counts_the_page_cache_as_free(tmp_path):
    root = _files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000\n",
            "sys/fs/cgroup/memory.current": "900\n",
            "sys/fs/cgroup/memory.stat": "anon 200\nactive_file 300\ninactive_file 400\n",
        },
    )
    assert memory_left(root) == 800


def test_memory_left_of_a_v1_group(tmp_path):
    root = _files(
        tmp_path,
        {
            "proc/self/cgroup": "3:memory:/x\n",
            "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "5000\n",
            "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{1 << 62}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        },
    )
    assert memory_left(root) == 4000
