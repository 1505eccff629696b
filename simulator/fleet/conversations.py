"""Users who wait for an answer before they ask on: sessions of several turns, and closed loops of a fixed crowd.

When a request comes depends on when the one before was answered, so a slow fleet is asked less. Within a session each
prompt holds everything said so far: with prefix caching only what is new is computed, where the rest is still cached.
"""

from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat

import numpy as np
from simpy.events import Event

from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.workload import Workload
from roofline.step_time import FloatArray
from simulator.fleet.clients import Client
from simulator.fleet.clock import VirtualClock
from simulator.fleet.job import FINISHED, Job


@dataclass(frozen=True, slots=True, eq=False)
class Conversations:
    """Sessions of turns: a row of `workload` is a turn, those of a session follow one another in order.

    `pause_s` is what its user waits before each turn. Without `users` a session begins at its first turn's arrival_s;
    with them each user takes the next session after the last, and pauses before its first turn too. Prompts of a
    session begin with the session's own content so far (`grows`), and all with `common_tokens` that every session has.
    """

    workload: Workload
    pause_s: FloatArray
    users: int | None = None
    grows: bool = True
    common_tokens: int = 0

    def __len__(self) -> int:
        return len(self.workload)

    def sessions(self) -> list[range]:
        """The rows of each session."""
        names = self.workload.requests["session_id"].to_numpy()
        begins = np.flatnonzero(names[1:] != names[:-1]) + 1
        return [range(first, end) for first, end in pairwise([0, *begins.tolist(), len(names)])]


class Talk:
    """Conversations under way."""

    def __init__(
        self, load: Conversations, engine: EngineConfig, client: Client, clock: VirtualClock,
        on_arrival: Callable[[Job], None] | None,
    ) -> None:  # fmt: skip
        self._load, self._client, self._clock = load, client, clock
        self._block_size = engine.block_size if engine.enable_prefix_caching else 0
        self._unshared = engine.enable_prefix_caching and not load.grows
        self._longest = engine.max_model_len
        self._on_arrival = on_arrival
        self._waiting: dict[int, Event] = {}  # index of a request -> what happens when it ends
        self._sent = 0
        table = load.workload.requests
        names = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "session_id", "priority")
        tenants = table["tenant"] if "tenant" in table else repeat(None, len(table))
        self._rows = list(zip(*(table[name].tolist() for name in names), tenants, strict=True))

    def start(self) -> None:
        """Let the users begin."""
        sessions = iter(enumerate(self._load.sessions()))
        if self._load.users is None:
            self._clock.process(self._let_in(sessions))
        else:
            for _ in range(self._load.users):
                self._clock.process(self._talk_on(sessions))

    def note_end(self, job: Job) -> None:
        """A request has ended for its user."""
        self._waiting.pop(job.index).succeed(job)

    def _let_in(self, sessions: Iterator[tuple[int, range]]) -> Generator[Event, None, None]:
        self._client.open_source()
        for number, rows in sessions:
            yield self._clock.at(self._rows[rows[0]][0])
            self._clock.process(self._converse(number, rows))
        self._client.close_source()

    def _talk_on(self, sessions: Iterator[tuple[int, range]]) -> Generator[Event, None, None]:
        """One user's sessions, one after the other."""
        self._client.open_source()
        for number, rows in sessions:
            yield self._clock.at(self._clock.now + self._load.pause_s[rows[0]])
            yield from self._converse(number, rows)
        self._client.close_source()

    def _converse(self, number: int, rows: range) -> Generator[Event, None, None]:
        """One session, which its user leaves when a request does not get its answer."""
        self._client.open_source()
        for row in rows:
            if row != rows[0]:
                yield self._clock.at(self._clock.now + self._load.pause_s[row])
            job = self._job(number, row)
            ended = self._waiting[job.index] = self._clock.event()
            if self._on_arrival is not None:
                self._on_arrival(job)
            self._client.offer(job)
            yield ended
            last = ended.value
            assert isinstance(last, Job)
            if last.finish_reason != FINISHED:
                break
        self._client.close_source()

    def _job(self, number: int, row: int) -> Job:
        _, prompt, output, limit, session, priority, tenant = self._rows[row]
        index, self._sent, now_s = self._sent, self._sent + 1, self._clock.now
        keys = self._keys(number, prompt + output if self._load.grows else prompt)
        request = Request(str(index), prompt, limit, now_s, priority, keys, self._unshared)
        return Job(index, request, min(output, limit, self._longest - prompt), now_s, session, tenant)

    def _keys(self, number: int, tokens: int) -> list[Hashable]:
        """Names of the full blocks of a session's first `tokens` tokens; the next turn begins with the same."""
        if not self._block_size:
            return []
        count, common = tokens // self._block_size, self._load.common_tokens // self._block_size
        shared: list[Hashable] = list(range(min(count, common)))
        if not self._load.grows:
            return shared
        base = (number + 1) << 32
        return [*shared, *range(base, base + count - len(shared))]
