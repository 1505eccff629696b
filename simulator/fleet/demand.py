"""The requests of a workload as jobs, made when they are needed so that memory does not grow with the run."""

from collections.abc import Iterator
from itertools import repeat

from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.workload import Workload
from simulator.fleet.job import Job


def jobs_of(workload: Workload, engine: EngineConfig) -> Iterator[Job]:
    """The workload's requests in the order of arrival."""
    table = workload.requests
    columns = [table[name].tolist() for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens")]
    names = table["request_id"] if "request_id" in table else range(len(table))
    tenants = table["tenant"] if "tenant" in table else repeat(None, len(table))
    caching = engine.enable_prefix_caching
    for index, (arrival_s, prompt, output, limit, session, priority, name, tenant) in enumerate(
        zip(*columns, table["session_id"], table["priority"].tolist(), names, tenants, strict=True)
    ):
        keys = workload.keys(index, engine.block_size) if caching else []
        request = Request(str(name), prompt, limit, arrival_s, priority, keys, unshared_rest=caching)
        yield Job(index, request, min(output, limit, engine.max_model_len - prompt), arrival_s, session, tenant)
