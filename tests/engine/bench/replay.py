"""The shortest replay of a recorded trace: the shared scheduler, the recorded step times, and the rule of time.

It reads only what the trace says, and knows nothing of the serving loop: what it reproduces, a simulator can.
"""

from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from engine.core.trace import Trace


def replayed_token_times(trace: Trace) -> dict[str, list[float]]:
    """Times of every request's tokens, by request id."""
    config = EngineConfig(**trace.meta["engine_config"])
    scheduler, walls = Scheduler(config), iter(trace.steps["wall_s"])
    rows = list(trace.requests.itertuples())
    visible_s = [row.arrival_s if row.send_s != row.send_s else row.send_s for row in rows]
    coming = sorted(range(len(rows)), key=lambda i: (visible_s[i], i))
    times: dict[str, list[float]] = {row.request_id: [] for row in rows}
    known: dict[Request, int] = {}
    decoding: dict[Request, None] = {}
    output = {row.request_id: row.output_tokens for row in rows}
    ahead, end = None, 0.0
    while coming or scheduler.has_work or ahead:
        start = end if scheduler.has_work or ahead else max(end, visible_s[coming[0]])
        while coming and visible_s[coming[0]] <= start:
            row = rows[coming.pop(0)]
            request = Request(row.request_id, row.prompt_tokens, row.max_tokens, row.arrival_s)
            known[request] = row.prompt_tokens
            _name_blocks(request, known, config)
            scheduler.add(request)
        batch = ahead or scheduler.schedule()
        ahead = scheduler.schedule() if config.async_scheduling else None
        ahead = None if ahead is None or ahead.is_empty else ahead
        end = start + next(walls)
        for request in batch.left:
            decoding.pop(request)
        decoding |= dict.fromkeys(batch.joined)
        sampled = [*decoding, *(chunk.request for chunk in batch.chunks if chunk.samples)]
        void = scheduler.voided(batch)
        ended = []
        for request in sampled:
            if request not in void:
                times[request.request_id].append(end)
                known[request] += 1
                _name_blocks(request, known, config)
                if len(times[request.request_id]) == output[request.request_id]:
                    ended.append(request)
        scheduler.complete(batch, ended)
    return times


def _name_blocks(request: Request, known: dict[Request, int], config: EngineConfig) -> None:
    """Every full block of known tokens has a key of its own: prompts share nothing."""
    while config.enable_prefix_caching and (len(request.block_keys) + 1) * config.block_size <= known[request]:
        request.block_keys.append((request.request_id, len(request.block_keys)))
