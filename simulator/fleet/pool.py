"""The replicas of one kind: which take requests, which are on their way up, and how long each has been paid for."""

from bisect import insort
from collections.abc import Callable

from simulator.fleet.clock import VirtualClock
from simulator.fleet.replica import Replica


class Pool:
    """Replicas by number. `open` ones take requests; a closed one goes on with what it has until it is stopped."""

    def __init__(self, clock: VirtualClock, build: Callable[[int], Replica], first_number: int = 0) -> None:
        self.replicas: dict[int, Replica] = {}
        self.open: list[Replica] = []
        self.expected = 0  # on their way up
        self.is_elastic = False  # true where more come if they are needed
        self.on_change: Callable[[], None] = lambda: None  # a replica has opened, or none is left to wait for
        self._clock, self._build, self._first_number = clock, build, first_number
        self._loading: set[int] = set()
        self._leaving: set[int] = set()
        self._up_since_s: dict[int, float] = {}

    def fill(self, count: int) -> None:
        """Let `count` new replicas be up."""
        for _ in range(count):
            self._admit(self._new())

    def begin(self, replica: Replica | None = None) -> Replica:
        """Start a stopped replica, or a new one: it is paid for, and takes requests once it is `ready`."""
        if replica is None:
            replica = self._new()
        else:
            self._up_since_s[replica.number] = self._clock.now
        self.expected += 1
        self._loading.add(replica.number)
        return replica

    def restart(self, replica: Replica) -> None:
        """Stop a replica and begin it again; those who wait know at once that it is coming."""
        self.expected += 1  # before the stop tells those who wait that nobody is left
        self.stop(replica)
        self.expected -= 1
        self.begin(replica)

    def ready(self, replica: Replica) -> None:
        """A replica on its way up has come up."""
        self.expected -= 1
        self._loading.remove(replica.number)
        self._admit(replica)
        self.on_change()

    def close(self, replica: Replica) -> None:
        """Let a replica take no more requests."""
        if replica in self.open:
            self.open.remove(replica)

    def retire(self, replica: Replica) -> None:
        """Let a replica take no more requests: it is not wanted any more, and leaves once it has none."""
        self.close(replica)
        self._leaving.add(replica.number)

    def reopen(self, replica: Replica) -> None:
        """Let a replica that is leaving stay."""
        self._leaving.remove(replica.number)
        self._admit(replica)
        self.on_change()

    def leaving(self) -> list[Replica]:
        """Replicas that are leaving."""
        return [self.replicas[number] for number in sorted(self._leaving)]

    def is_leaving(self, replica: Replica) -> bool:
        """True from `retire` to `reopen` or `stop`."""
        return replica.number in self._leaving

    def stopped(self) -> list[Replica]:
        """Replicas that nobody pays for."""
        return [replica for number, replica in self.replicas.items() if number not in self._up_since_s]

    def stop(self, replica: Replica) -> None:
        """End a replica; what it still has is lost."""
        self.close(replica)
        self._leaving.discard(replica.number)
        if replica.number in self._up_since_s:
            self._pay(replica)
            replica.kill()
        self.on_change()

    def settle(self, until_s: float) -> None:
        """Count the time up to `until_s` of replicas that are still paid for."""
        for number, since_s in self._up_since_s.items():
            self.replicas[number].up_s += max(0.0, until_s - since_s)
            self._up_since_s[number] = until_s

    def is_serving(self, replica: Replica) -> bool:
        """True while it has come up and is not stopped, whether or not it takes new requests."""
        return replica.number in self._up_since_s and replica.number not in self._loading

    def _new(self) -> Replica:
        number = self._first_number + len(self.replicas)
        self.replicas[number] = replica = self._build(number)
        self._up_since_s[number] = self._clock.now
        return replica

    def _admit(self, replica: Replica) -> None:
        insort(self.open, replica, key=lambda one: one.number)  # the first of equals does not depend on history

    def _pay(self, replica: Replica) -> None:
        replica.up_s += self._clock.now - self._up_since_s.pop(replica.number)
