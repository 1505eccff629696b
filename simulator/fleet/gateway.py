"""Between clients and replicas: who is let in, who gets a request, who has it when its client leaves."""

from simulator.fleet.admission import Admission
from simulator.fleet.clients import Client
from simulator.fleet.clock import VirtualClock
from simulator.fleet.job import FAILED, REJECTED, Job
from simulator.fleet.pool import Pool
from simulator.fleet.replica import Replica
from simulator.fleet.router import Router


class Gateway:
    """Routes each job to an open replica of the pool; holds jobs while there is none but one may come."""

    def __init__(
        self, clock: VirtualClock, pool: Pool, route: Router, client: Client, admission: Admission | None = None
    ) -> None:
        self._clock, self._pool, self._route = clock, pool, route
        self._client, self._admission = client, admission
        self._held: dict[Job, None] = {}
        pool.on_change = self._retry_held
        client.submit, client.cancel = self.submit, self.cancel

    def submit(self, job: Job) -> None:
        """A request has come; one whose client has left on the way goes no further."""
        if job.finish_reason is not None:
            return
        if self._admission is not None and not self._admission.admits(job, self._load(), self._clock.now):
            self._client.refuse(job, REJECTED)
            return
        self._place(job)

    def cancel(self, job: Job) -> None:
        """The client of a job has left."""
        if job.replica >= 0:
            self._pool.replicas[job.replica].cancel(job)
        else:
            self._drop_held(job)

    def done(self, job: Job) -> None:
        """A replica has ended a job."""
        if self._admission is not None:
            self._settle(job)
        self._client.take(job)

    def lost(self, job: Job) -> None:
        """A replica has died with a job."""
        self._settle(job)
        self._client.lose(job)

    @property
    def num_held(self) -> int:
        """Jobs that wait for a replica to come up."""
        return len(self._held)

    def _place(self, job: Job) -> None:
        if self._pool.open:
            self._route(self._pool.open, job).submit(job)
        elif self._pool.expected or self._pool.is_elastic:
            self._held[job] = None
        else:
            self._settle(job)
            self._client.refuse(job, FAILED)

    def _drop_held(self, job: Job) -> None:
        if job in self._held:
            del self._held[job]
            self._settle(job)

    def _load(self) -> float:
        """Requests outstanding a replica that takes requests."""
        replicas = self._replicas()
        outstanding = len(self._held) + sum(replica.num_outstanding for replica in replicas)
        return outstanding / max(1, len(replicas))

    def _replicas(self) -> list[Replica]:
        return self._pool.open

    def _settle(self, job: Job) -> None:
        if self._admission is not None:
            self._admission.settle(job, self._clock.now)

    def _retry_held(self) -> None:
        held, self._held = self._held, {}
        for job in held:
            self._place(job)
