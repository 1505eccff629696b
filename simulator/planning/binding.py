"""What keeps a fleet from being smaller: the constraint that the next smaller one runs into, with its figures."""

from simulator.output.results import Binding, Constraint, Metric, RunResult
from simulator.output.wording import CONSTRAINT_NAMES, in_ms, replicas_in_words

OFTEN = 0.2  # of the busy time
PREEMPTED_OFTEN = 0.05  # of the requests

_RESOURCE: dict[str, Constraint] = {
    "compute": "compute", "memory_bandwidth": "memory_bandwidth", "link": "link", "overhead": "overhead",
}  # fmt: skip


def binding(failing: RunResult, alone_s: dict[Metric, float]) -> Binding:
    """What `failing`, a fleet that misses its targets, lacks; `alone_s` are the percentiles without load."""
    use = failing.occupancy
    if use.waiting_for_kv > OFTEN or use.preemptions_per_request > PREEMPTED_OFTEN:
        evidence = (
            f"requests wait for KV blocks in {use.waiting_for_kv:.0%} of the busy time, and are preempted "
            f"{use.preemptions_per_request:.2g} times each"
        )
        return Binding("kv_memory", _on(failing, evidence))
    if use.waiting_for_slot > OFTEN:
        evidence = f"requests wait in {use.waiting_for_slot:.0%} of the busy time while max_num_seqs already run"
        return Binding("sequence_limit", _on(failing, f"{evidence}; {_resource_in_words(failing)}"))
    if failing.verdict == "steady" and "ttft_s" in failing.missed:
        ttft = failing.latencies["ttft_s"].at_target
        evidence = (
            f"p{failing.percentile:g} TTFT is {in_ms(ttft.value)} in a steady state, {in_ms(alone_s['ttft_s'])} of it "
            f"without load; {_resource_in_words(failing)}"
        )
        return Binding("queueing", _on(failing, evidence))
    return Binding(_resource(failing), _on(failing, _resource_in_words(failing)))


def _resource(result: RunResult) -> Constraint:
    bound = result.occupancy.bound
    return _RESOURCE[max(bound, key=bound.__getitem__)] if bound else "queueing"


def _resource_in_words(result: RunResult) -> str:
    bound = result.occupancy.bound
    if not bound:
        return f"the replicas are busy {result.occupancy.busy:.0%} of the time"
    name = _resource(result)
    return f"{bound[name]:.0%} of the busy time goes to passes that wait mostly for {CONSTRAINT_NAMES[name]}"


def _on(result: RunResult, evidence: str) -> str:
    return f"With {replicas_in_words(result.replicas)}, {evidence}."
