"""Independent pieces of work on several processes: joblib's by default, a Ray cluster's where one is asked for.

Work goes out one piece a task, and results come back as they are done, so that whoever waits can store and show each.
With one worker everything runs in this process: nothing is started, and a debugger or Ctrl-C sees it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import joblib

from roofline.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Backend = Literal["processes", "ray"]

ROUND = 8  # tasks a process between two reports, where results come by the list


@dataclass(frozen=True, slots=True)
class Workers:
    """So many processes; `count` 0 stands for every core of this machine (of the cluster, with Ray)."""

    count: int = 1
    backend: Backend = "processes"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError(f"jobs is {self.count}; give 1 or more, or 0 for every core.")

    @property
    def joblib_count(self) -> int:
        """The same in joblib's numbers, where -1 stands for every core."""
        return self.count or -1


ALONE = Workers()


def unordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: Workers = ALONE
) -> Iterator[tuple[int, Result]]:
    """`(index, function(item))` for every item, in the order in which they are done.

    `function` and the items have to be importable and picklable beyond one worker. An exception ends it all.
    """
    if workers.backend == "processes" and workers.count == 1:
        for index, item in enumerate(items):
            yield index, function(item)
        return
    tasks = [joblib.delayed(_numbered)(function, index, item) for index, item in enumerate(items)]
    with _backend(workers):
        if workers.backend == "processes":
            yield from joblib.Parallel(workers.joblib_count, return_as="generator_unordered", batch_size=1)(tasks)
            return
        crowd = ROUND * joblib.effective_n_jobs(workers.joblib_count)
        for first in range(0, len(tasks), crowd):  # Ray's backend hands results over by the list only
            yield from joblib.Parallel(workers.joblib_count, batch_size=1)(tasks[first : first + crowd])


def ordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: Workers = ALONE,
    done: Callable[[int], None] = lambda count: None,
) -> list[Result]:
    """`function(item)` for every item, in the items' order; `done(1)` is called after each."""
    results = {}
    for index, result in unordered(function, items, workers):
        results[index] = result
        done(1)
    return [results[index] for index in range(len(items))]


def _numbered(function: Callable[[Any], Result], index: int, item: Any) -> tuple[int, Result]:
    return index, function(item)


def _backend(workers: Workers) -> AbstractContextManager[Any]:
    """Where joblib sends its tasks; each process computes on one thread, as there are as many as cores."""
    if workers.backend == "processes":
        context: AbstractContextManager[Any] = joblib.parallel_config(backend="loky", inner_max_num_threads=1)
        return context
    try:
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise InputError(
            "Ray is not installed; install the extra (pip install 'llm-headroom[ray]'), or leave --ray out."
        ) from error
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns where this is unset
    register_ray()
    on_ray: AbstractContextManager[Any] = joblib.parallel_config(backend="ray")
    return on_ray
