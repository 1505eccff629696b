"""A forward pass as a user writes it: `64x1024` sequences that decode, `512@2048` tokens of a prompt."""

import re
from collections.abc import Sequence

from roofline.errors import InputError
from roofline.step_time import BatchWork, chunk_attn_pairs

_DECODE = re.compile(r"(\d+)x(\d+)")
_PREFILL = re.compile(r"(\d+)(?:@(\d+))?")


def parse_batch(decode: Sequence[str], prefill: Sequence[str], longest: int) -> BatchWork:
    """The work of one pass: each `decode` is COUNTxCONTEXT, each `prefill` TOKENS or TOKENS@CACHED.

    Raises `InputError` for any other text, for counts of zero, for a sequence beyond the `longest` that the model
    reads, and for a pass of no work at all.
    """
    groups = [_numbers(_DECODE, text, "--decode", "COUNTxCONTEXT, as 64x1024") for text in decode]
    chunks = [_numbers(_PREFILL, text, "--prefill", "TOKENS or TOKENS@CACHED, as 512@2048") for text in prefill]
    if not groups and not chunks:
        raise InputError("the pass has no work; give --decode COUNTxCONTEXT, --prefill TOKENS, or both.")
    for tokens in (*(context for _, context in groups), *(new + cached for new, cached in chunks)):
        if tokens > longest:
            raise InputError(
                f"the pass has a sequence of {tokens:,} tokens, and the model reads at most {longest:,}; "
                "ask for shorter ones."
            )
    num_decode = sum(count for count, _ in groups)
    return BatchWork(
        num_prefill_seqs=len(chunks),
        prefill_tokens=sum(tokens for tokens, _ in chunks),
        prefill_kv_tokens=sum(cached for _, cached in chunks),
        prefill_attn_pairs=sum(chunk_attn_pairs(tokens, cached) for tokens, cached in chunks),
        num_decode_seqs=num_decode,
        decode_tokens=num_decode,
        decode_kv_tokens=sum(count * context for count, context in groups),
        decode_kv_max=max((context for _, context in groups), default=0),
    )


def _numbers(pattern: re.Pattern[str], text: str, option: str, form: str) -> tuple[int, int]:
    match = pattern.fullmatch(text.strip())
    if match is None or int(match[1]) < 1:
        raise InputError(f"{option} {text!r} is not {form}, with at least one of what it counts.")
    return int(match[1]), int(match[2] or 0)
