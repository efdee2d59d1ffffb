"""Many OpenAI clients doing everything to one server at once: the test that looks for hangs.

    python tests/support/client_storm.py --seconds 60 --threads 32

Chats, streams, streams that are left early, embeddings, unloads and loads over real sockets. Ends
with status 0 when no call hung, every answer had a documented status, all slots are free at the
end, and a fixed chat is still answered as before.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from openai import APIError, APIStatusError, OpenAI
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable

# No model (409), a second load (409), a full queue or an unload meanwhile (503).
EXPECTED_STATUS = (409, 503)
RELOAD_EVERY_S = 0.5
PATIENCE_S = 60  # no single call may take that long


class Storm:
    """One server, many clients, for a while. `counts` tells what was done and how it ended."""

    def __init__(self, server: Server, model: Path, threads: int = 32, seed: int = 0) -> None:
        self.server = server
        self.model = model
        self.counts: Counter[tuple[str, str]] = Counter()
        self.errors: list[BaseException] = []
        self._next_reload = 0.0
        self._until = 0.0
        self._threads = [
            threading.Thread(target=self._blow, args=(random.Random(seed + number),), daemon=True)
            for number in range(threads)
        ]

    def run(self, seconds: float) -> Counter[tuple[str, str]]:
        fixed = self._fixed_answer()
        self._until = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()) + PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
        if self.errors:
            raise AssertionError(f"{len(self.errors)} unexpected errors") from self.errors[0]
        self._load()
        self.server.wait_until(at_rest)
        assert self._fixed_answer() == fixed
        assert self.server.process.poll() is None, self.server.log
        return self.counts

    def _client(self) -> OpenAI:
        return OpenAI(
            base_url=f"{self.server.url}/v1", api_key="-", max_retries=0, timeout=PATIENCE_S
        )

    def _blow(self, rng: random.Random) -> None:
        actions: list[tuple[str, Callable[[OpenAI, random.Random], None]]] = [
            (name[3:], getattr(self, name)) for name in dir(self) if name.startswith("do_")
        ]
        names = [name for name, _ in actions]
        with self._client() as client:
            while time.monotonic() < self._until or self._waits_for(names):
                name, action = rng.choice(actions)
                outcome = "done"
                try:
                    action(client, rng)
                except APIStatusError as error:
                    outcome = str(error.status_code)
                    if error.status_code not in EXPECTED_STATUS:
                        self.errors.append(error)
                        return
                    time.sleep(0.02)
                except APIError as error:  # an error event inside a stream that had begun
                    outcome = "ended in the stream"
                    if getattr(error, "code", None) != "cancelled":
                        self.errors.append(error)
                        return
                except Exception as error:  # noqa: BLE001 -- told at the end
                    self.errors.append(error)
                    return
                self.counts[name, outcome] += 1

    def _waits_for(self, names: list[str]) -> bool:
        """Whether something was not done yet, and there is hope: on a slow machine the time may be
        too short for it."""
        hope = time.monotonic() < self._until + PATIENCE_S / 2 and not self.errors
        return hope and not all(self.counts[name, "done"] for name in names)

    def do_chat(self, client: OpenAI, rng: random.Random) -> None:
        answer = client.chat.completions.create(
            model="-", messages=messages(rng), max_tokens=rng.randrange(1, 24)
        )
        assert answer.choices[0].finish_reason in ("stop", "length")

    def do_stream(self, client: OpenAI, rng: random.Random) -> None:
        stream = client.chat.completions.create(
            model="-", messages=messages(rng), max_tokens=rng.randrange(1, 24), stream=True
        )
        reasons = [chunk.choices[0].finish_reason for chunk in stream]
        assert reasons[-1] in ("stop", "length")

    def do_leave_early(self, client: OpenAI, rng: random.Random) -> None:
        stream = client.chat.completions.create(
            model="-", messages=messages(rng), max_tokens=400, stream=True
        )
        with closing(stream):
            for number, _ in enumerate(stream):
                if number == rng.randrange(4):
                    break

    def do_embed(self, client: OpenAI, rng: random.Random) -> None:
        inputs = ["text " * rng.randrange(1, 30) for _ in range(rng.randrange(1, 4))]
        assert len(client.embeddings.create(model="-", input=inputs).data) == len(inputs)

    def do_reload(self, _client: OpenAI, _rng: random.Random) -> None:
        if time.monotonic() < self._next_reload:  # the other actions want a model, too
            return
        self._next_reload = time.monotonic() + RELOAD_EVERY_S
        code, _ = self.server.get("/inferences/llamacpp/unloadmodel")
        assert code == 200
        self._load()

    def _load(self) -> None:
        body = {
            "llama_model_path": str(self.model),
            "n_parallel": 2,
            "cont_batching": True,
            "cpu_threads": 1,
        }
        code, answer = self.server.post("/inferences/llamacpp/loadmodel", body)
        assert code in (200, 409), answer

    def _fixed_answer(self) -> str | None:
        with self._client() as client:
            answer = client.chat.completions.create(
                model="-",
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=24,
                temperature=0,
            )
        return answer.choices[0].message.content


def messages(rng: random.Random) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * rng.randrange(1, 40)}]


def at_rest(data: dict[str, object]) -> bool:
    slots = data["slots"]
    assert isinstance(slots, list)
    idle = all(slot["state"] == "idle" for slot in slots)
    return idle and data["running"] == 0 and data["waiting"] == 0


def storm(
    folder: Path, seconds: float, threads: int, seed: int = 0, backend: str = "auto"
) -> Counter[tuple[str, str]]:
    """A server with a model of two slots under a storm of *threads* clients."""
    model = chat_model(folder)
    settings = {"n_parallel": 2, "cont_batching": 1, "max_queue": 12, "backend": backend}
    with serve(model=model, **settings) as server:
        return Storm(server, model, threads, seed).run(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = storm(Path(folder), arguments.seconds, arguments.threads, arguments.seed)
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:12} {outcome:20} {count:6}")
    print(f"{sum(counts.values())} calls, no hang, no crash, all slots free")


if __name__ == "__main__":
    main()
