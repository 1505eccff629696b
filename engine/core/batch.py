"""What the scheduler decided for one step: a value that can be printed, compared and tested."""

from typing import NamedTuple

from engine.core.decode_cohort import DecodeCohort
from engine.core.request import Request
from roofline.step_time import BatchWork, chunk_attn_pairs


class Chunk(NamedTuple):
    """Tokens of one request to compute in this step, apart from plain decodes.

    A prefill chunk covers `num_tokens` from position `start`; it `samples` when it reaches the end of the known
    sequence, and then yields one token. A decode with drafts (`num_drafts` > 0) covers the last token and its drafts.
    """

    request: Request
    start: int
    num_tokens: int
    samples: bool
    num_drafts: int = 0
    is_decode: bool = False


def chunk_of(request: Request, share: int, decodes: bool) -> Chunk:
    """The next `share` tokens of a request outside the cohort; `decodes` says that those beyond one are drafts."""
    start = request.num_computed_settled
    samples = decodes or start + share == request.num_tokens_settled
    return Chunk(request, start, share, samples, share - 1 if decodes else 0, decodes)


def batch_work(chunks: tuple[Chunk, ...], cohort: DecodeCohort) -> BatchWork:
    """The numbers of a step that computes `chunks` and has just advanced `cohort`."""
    plain = len(cohort.members)
    prefills = prefill_tokens = prefill_kv = pairs = drafting = 0
    decode_kv, kv_max = cohort.context_tokens - plain, cohort.longest_context - 1 if plain else 0
    drafted_tokens = 0
    for chunk in chunks:
        if chunk.is_decode:
            drafting += 1
            drafted_tokens += chunk.num_tokens
            decode_kv += chunk.start
            kv_max = max(kv_max, chunk.start)
        else:
            prefills += 1
            prefill_tokens += chunk.num_tokens
            prefill_kv += chunk.start
            pairs += chunk_attn_pairs(chunk.num_tokens, chunk.start)
    return BatchWork(
        prefills, prefill_tokens, prefill_kv, pairs, plain + drafting, plain + drafted_tokens, decode_kv, kv_max
    )


class Batch(NamedTuple):
    """One step's decision.

    Plain decodes are a standing set, told by its changes: `joined` decode from this step on, `left` no longer do
    (finished, preempted, aborted, drafting, or starved of budget), each against the batch before; `left` comes first,
    so a request in both is still in the set. `grown` are the requests whose `block_ids` became longer in this step.
    """

    step: int
    work: BatchWork
    chunks: tuple[Chunk, ...] = ()
    joined: tuple[Request, ...] = ()
    left: tuple[Request, ...] = ()
    grown: tuple[Request, ...] = ()
    admitted: tuple[Request, ...] = ()
    preempted: tuple[Request, ...] = ()
    cached_tokens: int = 0  # prefix hits of the requests admitted in this step
    kv_blocks_used: int = 0
    num_running: int = 0
    num_waiting: int = 0

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to compute."""
        return not (self.chunks or self.work.num_decode_seqs)

    def later(self, steps: int, kv_blocks_used: int) -> "Batch":
        """The batch `steps` plain decode steps after this one."""
        return Batch(
            self.step + steps, self.work.after_decode_steps(steps), kv_blocks_used=kv_blocks_used,
            num_running=self.num_running, num_waiting=self.num_waiting,
        )  # fmt: skip
