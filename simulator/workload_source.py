"""The requests of a scenario's workload: drawn from a seed, resampled from a recording, or the recording repeated."""

from dataclasses import replace

import numpy as np
import pandas as pd

from engine.core.arrivals import ArrivalProcess
from engine.core.workload import SyntheticWorkload, Workload, resample
from engine.core.workload_files import read_workload
from roofline.errors import InputError
from simulator import scenario as settings
from simulator.arrival_source import arrivals_s
from simulator.conversation_source import Draw, conversations
from simulator.fleet.conversations import Conversations

ANSWER_S = 1.0


def recorded_requests(workload: settings.Workload) -> Workload | None:
    """The recording that a scenario names; None where it names none. TraceError for a file that cannot be used."""
    return None if workload.trace is None else read_workload(workload.trace.file)


def offered_rate_per_s(workload: settings.Workload, recorded: Workload | None) -> float:
    """Requests per second that reach the fleet on average; of users, what to expect if an answer takes a second."""
    if workload.users is not None:
        return workload.users.count / (workload.users.think_time_s + ANSWER_S)
    if workload.request_rate is not None:
        return workload.request_rate
    assert workload.trace is not None and recorded is not None
    return len(recorded) / _period_s(recorded) * workload.trace.rate_scale


def at_rate(workload: settings.Workload, recorded: Workload | None, rate_per_s: float) -> settings.Workload:
    """The same workload at another rate: a recording that is replayed as it stands is played faster or slower."""
    if workload.users is not None:
        raise InputError(
            "the load is set by workload.users, who wait for their answers, so no rate can be offered; give "
            "workload.request_rate in place of users, or change users.count."
        )
    if workload.trace is None or workload.request_rate is not None:
        return workload.model_copy(update={"request_rate": rate_per_s})
    scale = workload.trace.rate_scale * rate_per_s / offered_rate_per_s(workload, recorded)
    return workload.model_copy(update={"trace": workload.trace.model_copy(update={"rate_scale": scale})})


def load_of(
    workload: settings.Workload, recorded: Workload | None, count: int, seed: int, longest: int
) -> Workload | Conversations:
    """`count` requests, in conversations where the scenario has users or sessions; `longest` tokens end one."""
    if workload.users is None and workload.sessions is None:
        return requests(workload, recorded, count, seed)
    load = conversations(workload, recorded, Draw(count, seed, longest))
    return replace(load, workload=with_tenants(load.workload, workload.tenants, seed))


def requests(workload: settings.Workload, recorded: Workload | None, count: int, seed: int) -> Workload:
    """The first `count` requests; a higher rate squeezes the same draws together."""
    return with_tenants(_requests(workload, recorded, count, seed), workload.tenants, seed)


def with_tenants(load: Workload, tenants: tuple[settings.Tenant, ...], seed: int) -> Workload:
    """The same requests, each of a tenant by its share (a session is all of one), with its priority and lengths."""
    if not tenants:
        return load
    table, rng = load.requests.copy(), np.random.default_rng([seed, len(tenants)])
    weights = np.array([tenant.share for tenant in tenants])
    draws = rng.choice(len(tenants), size=len(table), p=weights / weights.sum())
    if load.description.get("kind") == "conversations":
        draws = draws[pd.factorize(table["session_id"])[0]]
    table["tenant"] = np.array([tenant.name for tenant in tenants], dtype=object)[draws]
    table["priority"] = np.array([tenant.priority for tenant in tenants])[draws]
    for number, (tenant, own) in enumerate(zip(tenants, rng.spawn(len(tenants)), strict=True)):
        rows = draws == number
        if tenant.prompt_tokens is not None:
            table.loc[rows, "prompt_tokens"] = tenant.prompt_tokens.build().draw(own, int(rows.sum()))
        if tenant.output_tokens is not None:
            lengths = tenant.output_tokens.build().draw(own, int(rows.sum()))
            table.loc[rows, ["output_tokens", "max_tokens"]] = np.column_stack([lengths, lengths])
    return replace(load, requests=table)


def _requests(workload: settings.Workload, recorded: Workload | None, count: int, seed: int) -> Workload:
    if recorded is None:
        assert workload.request_rate and workload.prompt_tokens and workload.output_tokens
        process = ArrivalProcess(workload.request_rate, workload.burstiness, workload.gaps)
        drawn = SyntheticWorkload(
            process, workload.prompt_tokens.build(), workload.output_tokens.build(), num_requests=count
        ).generate(seed)
        arrival_rng = np.random.default_rng(seed).spawn(3)[0]  # the stream that the arrivals above come from
        return drawn.with_arrivals(arrivals_s(workload, workload.request_rate, arrival_rng, count))
    if workload.request_rate is not None:
        arrival_rng, row_rng = np.random.default_rng(seed).spawn(2)
        arrival_s = arrivals_s(workload, workload.request_rate, arrival_rng, count)
        description = {**recorded.description, "request_rate": workload.request_rate, "resampled": True}
        return Workload(resample(recorded.requests, arrival_s, row_rng), description=description)
    assert workload.trace is not None
    return _repeated(recorded, count, workload.trace.rate_scale)


def _period_s(recorded: Workload) -> float:
    """How long the recording lasts: to its last arrival, and a mean gap more."""
    arrival_s = recorded.requests["arrival_s"].to_numpy()
    if len(arrival_s) < 2 or not arrival_s[-1] > arrival_s[0]:
        raise InputError(
            f"the trace of {len(arrival_s)} requests spans no time; give workload.request_rate for its requests."
        )
    return float((arrival_s[-1] - arrival_s[0]) * len(arrival_s) / (len(arrival_s) - 1))


def _repeated(recorded: Workload, count: int, rate_scale: float) -> Workload:
    """The recording over and over; prefixes are shared within one round, never with the round before."""
    rounds = -(-count // len(recorded))
    period_s, first_s = _period_s(recorded), float(recorded.requests["arrival_s"].iloc[0])
    table = pd.concat([recorded.requests] * rounds, ignore_index=True)
    round_of = np.repeat(np.arange(rounds), len(recorded))
    arrival_s = (table["arrival_s"].to_numpy() - first_s + round_of * period_s) / rate_scale
    keys = recorded.block_keys
    if keys is not None and rounds > 1:
        stride = 1 + max((int(of_one.max()) for of_one in keys if of_one.size), default=0)
        keys = tuple(of_one + number * stride for number in range(rounds) for of_one in keys)
    description = {**recorded.description, "rate_scale": rate_scale, "rounds": rounds}
    whole = replace(recorded, requests=table.assign(arrival_s=arrival_s), block_keys=keys, description=description)
    return whole.head(count)
