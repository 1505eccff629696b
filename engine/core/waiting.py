"""The requests not yet admitted, in the order the policy serves them. Every operation is O(1) or O(log n)."""

from collections import OrderedDict
from heapq import heappop, heappush
from typing import Protocol

from engine.core.config import Policy
from engine.core.request import Request


class WaitingQueue(Protocol):
    """An ordered set of requests."""

    def __len__(self) -> int: ...

    def push(self, request: Request) -> None:
        """Add a new request."""

    def push_front(self, request: Request) -> None:
        """Give back a preempted request, which comes before those of equal rank."""

    def peek(self) -> Request:
        """The request served next; the queue is not empty."""
        ...

    def remove(self, request: Request) -> None:
        """Take a request out."""


class FirstComeFirstServed:
    """Arrival order; preempted requests go to the head."""

    def __init__(self) -> None:
        self._order: OrderedDict[Request, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def push(self, request: Request) -> None:
        """Add at the tail."""
        self._order[request] = None

    def push_front(self, request: Request) -> None:
        """Add at the head."""
        self._order[request] = None
        self._order.move_to_end(request, last=False)

    def peek(self) -> Request:
        """The head."""
        return next(iter(self._order))

    def remove(self, request: Request) -> None:
        """Take a request out."""
        del self._order[request]


class ByPriority:
    """Lowest priority value first, then earliest arrival, then first added."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Request]] = []
        self._entry_of: dict[Request, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._entry_of)

    def push(self, request: Request) -> None:
        """Add behind those of equal rank."""
        self._count += 1
        self._insert(request, self._count)

    def push_front(self, request: Request) -> None:
        """Add before those of equal rank."""
        self._count += 1
        self._insert(request, -self._count)

    def _insert(self, request: Request, tie: int) -> None:
        self._entry_of[request] = tie
        heappush(self._heap, (request.priority, request.arrival_s, tie, request))

    def peek(self) -> Request:
        """The request of the best rank."""
        while self._entry_of.get(self._heap[0][3]) != self._heap[0][2]:
            heappop(self._heap)
        return self._heap[0][3]

    def remove(self, request: Request) -> None:
        """Take a request out; its heap entry goes stale."""
        del self._entry_of[request]


def waiting_queue(policy: Policy) -> WaitingQueue:
    """The queue of a scheduling policy."""
    return ByPriority() if policy == "priority" else FirstComeFirstServed()
