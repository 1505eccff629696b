"""What keeps a fleet from being smaller: the constraint that the next smaller one runs into, with its figures."""

from simulator.output.results import Binding, Constraint, Metric, RunResult
from simulator.output.wording import CONSTRAINT_NAMES, in_ms, replicas_in_words

OFTEN = 0.2  # of the busy time
PREEMPTED_OFTEN = 0.05  # of the requests

_RESOURCE: dict[str, Constraint] = {
    "compute": "compute", "memory_bandwidth": "memory_bandwidth", "link": "link", "overhead": "overhead",
}  # fmt: skip


def binding(failing: RunResult, alone_s: dict[Metric, float]) -> Binding:
    """What `failing`, a fleet that misses its targets, lacks; `alone_s` are the percentiles without load.

    Where compute is used up, full batches and a full cache are its symptoms; elsewhere they are the cause, as a larger
    batch would cost little.
    """
    use = failing.occupancy
    held = (
        f"requests wait for KV blocks in {use.waiting_for_kv:.0%} and for one of the max_num_seqs places in "
        f"{use.waiting_for_slot:.0%} of the busy time, preemptions a request {use.preemptions_per_request:.2g}"
    )
    evidence = f"{_resource_in_words(failing)}; {held}"
    constraint = _resource(failing)
    if use.preemptions_per_request > PREEMPTED_OFTEN:
        constraint = "kv_memory"
    elif failing.is_steady and "ttft_s" in failing.missed and max(use.waiting_for_kv, use.waiting_for_slot) < OFTEN:
        constraint = "queueing"
        ttft_s = failing.latencies["ttft_s"].at_target.value
        evidence = f"TTFT is {in_ms(ttft_s)} in a steady state, {in_ms(alone_s['ttft_s'])} without load; {evidence}"
    elif constraint != "compute" and use.waiting_for_kv > OFTEN:
        constraint = "kv_memory"
    elif constraint != "compute" and use.waiting_for_slot > OFTEN:
        constraint = "sequence_limit"
    return Binding(constraint, f"With {replicas_in_words(failing.replicas)}, {evidence}.")


def _resource(result: RunResult) -> Constraint:
    bound = result.occupancy.bound
    return _RESOURCE[max(bound, key=bound.__getitem__)] if bound else "queueing"


def _resource_in_words(result: RunResult) -> str:
    bound = result.occupancy.bound
    if not bound:
        return f"the replicas are busy {result.occupancy.busy:.0%} of the time"
    name = _resource(result)
    return f"{bound[name]:.0%} of the busy time goes to passes that wait mostly for {CONSTRAINT_NAMES[name]}"
