"""Which replica takes a request. A router is a function; `ROUTERS` names them at the edge."""

from collections.abc import Callable, Sequence
from itertools import count
from operator import attrgetter

from simulator.fleet.job import Job
from simulator.fleet.replica import Replica

Router = Callable[[Sequence[Replica], Job], Replica]


_OUTSTANDING = attrgetter("num_outstanding")


def round_robin() -> Router:
    """Each replica in turn."""
    turn = count()
    return lambda replicas, job: replicas[next(turn) % len(replicas)]


def least_outstanding() -> Router:
    """The replica with the fewest requests waiting or running; the first of equals."""
    return lambda replicas, job: min(replicas, key=_OUTSTANDING)


ROUTERS: dict[str, Callable[[], Router]] = {"least_outstanding": least_outstanding, "round_robin": round_robin}
