"""The conversations of a scenario's users: how many turns, how long, with what pauses; all drawn from a seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.core.workload import Workload, requests_of
from roofline.step_time import FloatArray
from simulator import scenario as settings
from simulator.arrival_source import arrivals_s
from simulator.fleet.conversations import Conversations

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Draw:
    """How many requests at least, from which seed, within how many tokens of context."""

    count: int
    seed: int
    longest: int


def conversations(workload: settings.Workload, recorded: Workload | None, draw: Draw) -> Conversations:
    """Sessions with `draw.count` turns together; each ends early where its context would leave no room."""
    streams = np.random.default_rng(draw.seed).spawn(6)
    arrival_rng, prompt_rng, output_rng, turns_rng, pause_rng, row_rng = streams
    sessions = workload.sessions or settings.Sessions(turns=1)
    turns = _turns(sessions.turns, turns_rng, draw.count)
    session = np.repeat(np.arange(len(turns)), turns)[: draw.count]
    if recorded is None:
        assert workload.prompt_tokens and workload.output_tokens
        new = workload.prompt_tokens.build().draw(prompt_rng, draw.count)
        output = workload.output_tokens.build().draw(output_rng, draw.count)
    else:
        rows = row_rng.integers(0, len(recorded), size=draw.count)
        new, output = (recorded.requests[name].to_numpy()[rows] for name in ("prompt_tokens", "output_tokens"))
    is_first = np.append(True, session[1:] != session[:-1])
    grows = sessions.context == "grows"
    prompt = (_with_context(new, output, is_first) if grows else new) + sessions.common_tokens
    # A context only grows: from the first turn that does not fit, none does. The first itself is the user's to mend.
    fits = is_first | (prompt + output <= draw.longest) | (not grows)
    table = requests_of(np.zeros(draw.count), prompt, output).assign(session_id=session.astype(str))
    pause_s = np.where(is_first, _user_pause_s(workload, pause_rng, draw.count), 0.0)
    pause_s += np.where(is_first, 0.0, pause_rng.exponential(sessions.pause_s, draw.count))
    table, pause_s = table[fits].reset_index(drop=True), pause_s[fits]
    if workload.users is None:
        assert workload.request_rate
        table["arrival_s"] = _begins_s(workload, table["session_id"], arrival_rng)
    users = None if workload.users is None else workload.users.count
    description = {"kind": "conversations", "turns": repr(sessions.turns.build()), "users": users}
    whole = Workload(table, description=description)
    return Conversations(whole, pause_s, users, grows, sessions.common_tokens)


def _turns(length: settings.Length, rng: np.random.Generator, count: int) -> IntArray:
    """Turns of as many sessions as `count` turns need."""
    turns = length.build().draw(rng, count)
    return turns[: 1 + int(np.searchsorted(np.cumsum(turns), count))]


def _with_context(new: IntArray, output: IntArray, is_first: NDArray[np.bool_]) -> IntArray:
    """Tokens of each prompt: what is new, and everything said before in its session."""
    said = np.cumsum(new + output)
    before = np.append(0, said[:-1])
    at_begin = np.maximum.accumulate(np.where(is_first, before, 0))
    return before - at_begin + new


def _user_pause_s(workload: settings.Workload, rng: np.random.Generator, count: int) -> FloatArray:
    if workload.users is None:
        return np.zeros(count)
    return rng.exponential(workload.users.think_time_s, count)


def _begins_s(workload: settings.Workload, session: pd.Series, rng: np.random.Generator) -> FloatArray:
    """When each row's session begins: at a rate that makes the turns of all come at the scenario's."""
    assert workload.request_rate
    number = session.astype(int).to_numpy()
    count = int(number[-1]) + 1
    return arrivals_s(workload, workload.request_rate * count / len(number), rng, count)[number]
