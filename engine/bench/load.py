"""The load of `engine bench serve`: what the user asks for becomes one checked workload."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.core.arrivals import ArrivalProcess
from engine.core.lengths import parse_lengths
from engine.core.workload import SyntheticWorkload, Workload, check_extent, finite_or_inf
from engine.core.workload_files import read_workload
from roofline.errors import InputError

DEFAULT_RATE_PER_S = 1.0
DEFAULT_DURATION_S = 120.0
DEFAULT_INPUT = "lognormal:128:0.6:1024"
DEFAULT_OUTPUT = "lognormal:48:0.6:512"


@dataclass(frozen=True, slots=True)
class Load:
    """Either a recorded request stream or synthetic lengths; None where the user gave no value.

    A request rate gives a recorded stream new arrivals; without one it keeps its own.
    """

    trace: Path | None = None
    input_len: str | None = None
    output_len: str | None = None
    request_rate: float | None = None
    burstiness: float = 1.0
    num_requests: int | None = None
    duration_s: float | None = None

    def workload(self, seed: int) -> Workload:
        """The requests to send, in order; InputError or TraceError says what is wrong with the wish."""
        if self.trace is None:
            return self._synthetic(seed)
        if self.input_len or self.output_len:
            raise InputError("--trace brings its own lengths; leave out --input-len and --output-len.")
        return self._recorded(self.trace, seed)

    def _synthetic(self, seed: int) -> Workload:
        bounded = self.num_requests is not None or self.duration_s is not None
        return SyntheticWorkload(
            ArrivalProcess(DEFAULT_RATE_PER_S if self.request_rate is None else self.request_rate, self.burstiness),
            parse_lengths(self.input_len or DEFAULT_INPUT),
            parse_lengths(self.output_len or DEFAULT_OUTPUT),
            self.num_requests,
            self.duration_s if bounded else DEFAULT_DURATION_S,
        ).generate(seed)

    def _recorded(self, path: Path, seed: int) -> Workload:
        workload = read_workload(path)
        if self.num_requests is not None or self.duration_s is not None:
            check_extent(self.num_requests, self.duration_s)
        description = {**workload.description, "request_rate": None, "burstiness": None}
        if self.request_rate is not None:
            arrivals = ArrivalProcess(self.request_rate, self.burstiness)
            workload = workload.with_arrivals(arrivals.first(np.random.default_rng(seed), len(workload)))
            description |= {
                "request_rate": finite_or_inf(self.request_rate),
                "burstiness": finite_or_inf(self.burstiness),
            }
        if self.duration_s is not None:
            workload = workload.before(self.duration_s)
        workload = workload.head(len(workload) if self.num_requests is None else self.num_requests)
        if not len(workload):
            raise InputError(f"no request of {path} arrives within {self.duration_s} s; raise the duration.")
        return replace(workload, description=description)
