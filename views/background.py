"""Work off the script thread: one job a question, shared by all who ask it, with a bounded memory of answers.

A page asks, draws what it has, and comes back; several users wait side by side. A job that nobody wants any more stops
at its next report of progress.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

Report = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being done."""
Work = Callable[[Report], Any]


class _Unwanted(Exception):
    """Ends a job that nobody waits for; nobody is left to see it."""


@dataclass(slots=True, eq=False)
class Job:
    """One question under way or answered."""

    key: str
    done: float = 0.0  # 0 to 1
    doing: str = "waiting for a free worker"
    askers: set[str] = field(default_factory=set)
    future: "Future[Any]" = field(default_factory=Future)

    @property
    def is_over(self) -> bool:
        """True once there is an answer or an error."""
        return self.future.done()

    def wait(self, timeout_s: float) -> bool:
        """Wait a little; True once it is over."""
        wait([self.future], timeout_s)
        return self.is_over

    def answer(self) -> Any:
        """The answer of a job that is over; raises what the work raised."""
        return self.future.result(timeout=0)


class Background:
    """Runs work on a few threads and remembers the latest answers, errors included: the same question gives the same."""

    def __init__(self, num_workers: int = 4, max_answers: int = 64) -> None:
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="background")
        self._max_answers = max_answers
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, asker: str, key: str, work: Work) -> Job:
        """The job for `key`, started if there is none; `asker` counts as waiting for it."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = Job(key, askers={asker})
                job.future = self._pool.submit(self._run, job, work)
            job.askers.add(asker)
            self._jobs.move_to_end(key)
            self._forget_oldest()
            return job

    def keep_only(self, asker: str, keys: set[str]) -> None:
        """`asker` waits for nothing but `keys` any more."""
        with self._lock:
            for key, job in self._jobs.items():
                if key not in keys:
                    job.askers.discard(asker)

    def _run(self, job: Job, work: Work) -> Any:
        def report(done: float, doing: str) -> None:
            with self._lock:  # nobody joins a job between the look at its askers and its end
                if not job.askers:
                    self._jobs.pop(job.key, None)
                    raise _Unwanted
            job.done, job.doing = min(max(done, 0.0), 1.0), doing

        report(0.0, "starting")
        return work(report)

    def _forget_oldest(self) -> None:
        """Drop the oldest answers beyond the bound; work under way stays."""
        over = [key for key, job in self._jobs.items() if job.is_over]
        for key in over[: max(0, len(self._jobs) - self._max_answers)]:
            del self._jobs[key]
