"""Which replica takes a request. A router is a function; `ROUTERS` names what makes one, given a stream of chance.

What a router may know is what one knows outside an engine: what it has sent where and what has ended, and a replica's
gauges. It never knows how long an answer will be.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import count
from math import ceil
from operator import attrgetter

from numpy.random import Generator

from simulator.fleet.job import Job
from simulator.fleet.replica import Replica

Router = Callable[[Sequence[Replica], Job], Replica]

_OUTSTANDING = attrgetter("num_outstanding")
_TOKENS = attrgetter("outstanding_tokens")
REMEMBERED = 200_000  # sessions or prefixes that an affinity keeps; the least recent are forgotten
AFFINITY_TOKENS = 256  # a prefix is remembered at every so many tokens: no more exact, and cheaper
AFFINITY_BOUND = 1.25  # of the mean outstanding: a replica above is passed over, however much it has cached


def round_robin(rng: Generator) -> Router:
    """Each replica in turn."""
    turn = count()
    return lambda replicas, job: replicas[next(turn) % len(replicas)]


def random(rng: Generator) -> Router:
    """Any replica, all as likely."""
    return lambda replicas, job: replicas[int(rng.random() * len(replicas))]


def least_outstanding(rng: Generator) -> Router:
    """The replica with the fewest requests waiting or running; the first of equals."""
    return lambda replicas, job: min(replicas, key=_OUTSTANDING)


def least_tokens(rng: Generator) -> Router:
    """The replica with the fewest prompt tokens among its requests waiting or running; the first of equals."""
    return lambda replicas, job: min(replicas, key=_TOKENS)


def least_kv(rng: Generator) -> Router:
    """The replica with the smallest share of its KV blocks in use, then with the fewest requests."""
    return lambda replicas, job: min(replicas, key=lambda replica: (replica.kv_use, replica.num_outstanding))


def power_of_two(rng: Generator) -> Router:
    """Of two replicas drawn by chance, the one with fewer requests (Mitzenmacher 2001)."""

    def route(replicas: Sequence[Replica], job: Job) -> Replica:
        if len(replicas) == 1:
            return replicas[0]
        first = int(rng.random() * len(replicas))
        second = (first + 1 + int(rng.random() * (len(replicas) - 1))) % len(replicas)
        return min(replicas[first], replicas[second], key=_OUTSTANDING)

    return route


def session_affinity(rng: Generator) -> Router:
    """The replica that had the session's last request; new sessions and single requests to the least outstanding."""
    home: dict[Hashable, Replica] = {}

    def route(replicas: Sequence[Replica], job: Job) -> Replica:
        if job.session_id is None:
            return min(replicas, key=_OUTSTANDING)
        replica = home.pop(job.session_id, None)
        if replica is None or replica not in replicas:
            replica = min(replicas, key=_OUTSTANDING)
        _remember(home, job.session_id, replica)
        return replica

    return route


def prefix_affinity(rng: Generator) -> Router:
    """The replica that was last sent the longest part of the prompt, unless it has too much to do already.

    It is passed over when it has more than `AFFINITY_BOUND` times the mean number of requests (Mirrokni 2018); then,
    and for a prompt that nobody has seen, the least outstanding takes it.
    """
    home: dict[Hashable, Replica] = {}

    def route(replicas: Sequence[Replica], job: Job) -> Replica:
        marks = _marks(job, replicas[0].scheduler.config.block_size)
        replica = next((home[mark] for mark in reversed(marks) if mark in home), None)
        limit = ceil(AFFINITY_BOUND * (1 + sum(map(_OUTSTANDING, replicas))) / len(replicas))
        if replica is None or replica not in replicas or replica.num_outstanding >= limit:
            replica = min(replicas, key=_OUTSTANDING)
        for mark in marks:
            home.pop(mark, None)
            _remember(home, mark, replica)
        return replica

    return route


def _marks(job: Job, block_size: int) -> list[Hashable]:
    """Keys at the ends of the prompt's stretches of `AFFINITY_TOKENS`; a key names all that is before it too."""
    stride = max(1, AFFINITY_TOKENS // block_size)
    in_prompt = job.request.num_prompt_tokens // block_size
    return job.request.block_keys[stride - 1 : in_prompt : stride]


def _remember(home: dict[Hashable, Replica], key: Hashable, replica: Replica) -> None:
    home[key] = replica
    if len(home) > REMEMBERED:
        del home[next(iter(home))]


ROUTERS: dict[str, Callable[[Generator], Router]] = {
    make.__name__: make
    for make in (
        least_outstanding, round_robin, random, least_tokens, least_kv, power_of_two, session_affinity, prefix_affinity,
    )
}  # fmt: skip
