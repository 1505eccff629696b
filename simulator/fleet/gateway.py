"""Between clients and replicas: who gets a request, who has it when its client leaves, and what if nobody is there."""

from collections.abc import Callable

from simulator.fleet.job import FAILED, Job
from simulator.fleet.pool import Pool
from simulator.fleet.router import Router


class Gateway:
    """Routes each job to an open replica of the pool; holds jobs while there is none but one is on its way up."""

    def __init__(self, pool: Pool, route: Router, refuse: Callable[[Job, str], None]) -> None:
        self._pool = pool
        self._route = route
        self._refuse = refuse
        self._held: dict[Job, None] = {}
        pool.on_change = self._retry_held

    def submit(self, job: Job) -> None:
        """A request has come; one whose client has left on the way goes no further."""
        if job.finish_reason is not None:
            return
        if self._pool.open:
            self._route(self._pool.open, job).submit(job)
        elif self._pool.expected:
            self._held[job] = None
        else:
            self._refuse(job, FAILED)

    def cancel(self, job: Job) -> None:
        """The client of a job has left."""
        if job.replica >= 0:
            self._pool.replicas[job.replica].cancel(job)
        else:
            self._held.pop(job, None)

    @property
    def num_held(self) -> int:
        """Jobs that wait for a replica to come up."""
        return len(self._held)

    def _retry_held(self) -> None:
        held, self._held = self._held, {}
        for job in held:
            self.submit(job)
