"""Work off the script thread: one job a question, shared by all who ask it, with a bounded memory of answers.

A page asks, draws what it has, and comes back; several users wait side by side. A job that nobody wants any more stops
the next time it says how far it is.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

PATIENCE_S = 90.0  # a tab in the background looks once a minute; one that is closed never again


class _UnwantedError(Exception):
    """Ends a job that nobody waits for; nobody is left to see it."""


@dataclass(slots=True, eq=False)
class Job:
    """One question under way or answered."""

    key: str
    stop_if_unwanted: Callable[["Job"], None]
    asked_at_s: float = field(default_factory=time.monotonic)
    said: list[str] = field(default_factory=list)
    num_requests: int = 0  # simulated so far
    found: Any = None  # the answer as far as it goes
    seen_s: dict[str, float] = field(default_factory=dict)  # when each of those who wait last looked
    future: "Future[Any]" = field(default_factory=Future)

    @property
    def is_over(self) -> bool:
        """True once there is an answer or an error."""
        return self.future.done()

    @property
    def age_s(self) -> float:
        """Seconds since it was asked first."""
        return time.monotonic() - self.asked_at_s

    def wait(self, timeout_s: float) -> bool:
        """Wait a little; True once it is over."""
        wait([self.future], timeout_s)
        return self.is_over

    def answer(self) -> Any:
        """The answer of a job that is over; raises what the work raised."""
        return self.future.result(timeout=0)

    @property
    def is_wanted(self) -> bool:
        """True while somebody waits who has looked lately."""
        return any(time.monotonic() - seen_s < PATIENCE_S for seen_s in list(self.seen_s.values()))

    def look(self, asker: str) -> None:
        """`asker` still waits."""
        self.seen_s[asker] = time.monotonic()

    def say(self, sentence: str) -> None:
        """Called by the work with what it has found; it ends here where nobody waits."""
        self.stop_if_unwanted(self)
        self.said.append(sentence)

    def count(self, num_requests: int) -> None:
        """Called by the work with how many requests more it has simulated; it ends here where nobody waits."""
        self.stop_if_unwanted(self)
        self.num_requests += num_requests

    def show(self, found: Any) -> None:
        """Called by the work with its answer as far as it goes; it ends here where nobody waits."""
        self.stop_if_unwanted(self)
        self.found = found


Work = Callable[[Job], Any]


class Background:
    """Runs work on a few threads and remembers the latest answers, errors included: the same question gives the same.

    The threads are daemons: a simulation under way does not keep a server from stopping.
    """

    def __init__(self, num_workers: int = 4, max_answers: int = 64) -> None:
        self._max_answers = max_answers
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._queue: SimpleQueue[tuple[Job, Work]] = SimpleQueue()
        for _ in range(num_workers):
            threading.Thread(target=self._serve, daemon=True, name="background").start()

    def ask(self, asker: str, key: str, work: Work) -> Job:
        """The job for `key`, started if there is none; `asker` counts as waiting for it."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = Job(key, self._stop_if_unwanted)
                self._queue.put((job, work))
            job.look(asker)
            self._jobs.move_to_end(key)
            self._forget_oldest()
            return job

    def keep_only(self, asker: str, keys: set[str]) -> None:
        """`asker` waits for nothing but `keys` any more."""
        with self._lock:
            for key, job in self._jobs.items():
                if key not in keys:
                    job.seen_s.pop(asker, None)

    def _serve(self) -> None:
        while True:
            job, work = self._queue.get()
            try:
                self._stop_if_unwanted(job)
                job.future.set_result(work(job))
            except BaseException as error:  # whoever asks for the answer meets it there, as with any future
                job.future.set_exception(error)

    def _stop_if_unwanted(self, job: Job) -> None:
        with self._lock:  # nobody joins a job between this look at it and its end
            if not job.is_wanted:
                self._jobs.pop(job.key, None)
                raise _UnwantedError

    def _forget_oldest(self) -> None:
        """Drop the oldest answers beyond the bound; work under way stays."""
        over = [key for key, job in self._jobs.items() if job.is_over]
        for key in over[: max(0, len(self._jobs) - self._max_answers)]:
            del self._jobs[key]
