"""The post: everything arrives, in order, and the loop wakes one thread a step."""

from __future__ import annotations

import threading

from nitrolib.engine.post import Post


def test_nothing_arrives_before_it_is_sent():
    post, box = Post(), []
    post.add(box.append, 1)
    assert box == []
    post.send()
    assert box == [1]
    post.close()


def test_a_single_letter_needs_no_thread_and_several_do():
    post, box = Post(), []
    for number in range(3):
        post.add(lambda _: box.append(threading.get_ident()), number)
        post.send()
    assert box == [threading.get_ident()] * 3
    for number in range(2):
        post.add(lambda _: box.append(threading.get_ident()), number)
    post.send()
    post.close()
    assert len(set(box[3:])) == 1
    assert box[3] != threading.get_ident()


def test_letters_arrive_in_order_whoever_brings_them():
    """A single letter does not overtake the bag that the thread still carries."""
    post, box, gate = Post(), [], threading.Event()
    post.add(lambda _: gate.wait(60), None)
    post.add(box.append, 1)
    post.send()
    post.add(box.append, 2)
    post.send()
    assert box == []
    gate.set()
    post.add(box.append, 3)
    post.add(box.append, 4)
    post.close()
    assert box == [1, 2, 3, 4]


def test_closing_twice_is_safe_and_ends_the_thread():
    post = Post()
    for _ in range(2):
        post.add(lambda _: None, None)
    post.send()
    thread = post._thread
    post.close()
    post.close()
    assert not thread.is_alive()
