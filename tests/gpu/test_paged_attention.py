"""The paged attention kernels on a GPU: every head dimension, group, block size and number format; captured graphs."""

import pytest
import torch

from tests.engine.kernels.attention_cases import (
    AttentionCase,
    assert_near,
    check_decode,
    check_prefill,
    decode_case,
    decode_inputs,
    decoded,
    written_out,
)

RAGGED = (1, 17, 1000, 0, 4097, 333, 64, 2050)
CHUNKS = ((0, 1), (0, 130), (511, 64), (1000, 333), (0, 0), (2047, 1))
FORMATS = [(torch.float32, False), (torch.float16, False), (torch.bfloat16, False), (torch.bfloat16, True)]
FORMATS += [(torch.float16, True), (torch.float32, True)]


@pytest.mark.parametrize(("dtype", "is_fp8"), FORMATS)
@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 3, 4, 7, 8])
def test_heads_and_formats(device, head_dim, group, dtype, is_fp8):
    settings = {"head_dim": head_dim, "group": group, "dtype": dtype, "is_fp8": is_fp8}
    check_decode(device, decode_case(RAGGED, **settings))
    check_prefill(device, AttentionCase(CHUNKS, **settings))


@pytest.mark.parametrize("window", [0, 1, 500, 4096])
@pytest.mark.parametrize("block_size", [16, 24, 32, 64, 128, 256])
def test_block_sizes_and_windows(device, block_size, window):
    settings = {"head_dim": 128, "group": 4, "dtype": torch.bfloat16, "block_size": block_size, "window": window}
    check_decode(device, decode_case(RAGGED, **settings))
    check_prefill(device, AttentionCase(CHUNKS, **settings))


@pytest.mark.parametrize("slots", [1, 64, 10_000, None])
@pytest.mark.parametrize("context", [1, 1024, 60_000])
def test_one_long_sequence(device, context, slots):
    check_decode(device, decode_case((context,), kv_heads=8, group=4, head_dim=128, dtype=torch.bfloat16, slots=slots))


def test_a_full_batch(device):
    contexts = torch.randint(1, 900, (256,), generator=torch.Generator().manual_seed(0)).tolist()
    check_decode(device, decode_case(contexts, kv_heads=8, group=4, head_dim=128, dtype=torch.bfloat16))


@pytest.mark.parametrize("tokens", [7, 16, 100, 3000])
def test_one_prompt(device, tokens):
    case = AttentionCase(((300, tokens),), kv_heads=8, group=4, head_dim=128, dtype=torch.bfloat16)
    check_prefill(device, case)


def test_a_cache_beyond_31_bits(device):
    """2.2 billion elements each of keys and values; the blocks in use are the last ones."""
    case = decode_case((700, 33), kv_heads=8, group=4, head_dim=128, dtype=torch.bfloat16)
    given = decode_inputs(case, device)
    total = (1 << 31) // given.k_cache[0].numel() + 1000
    far = total - len(given.k_cache)
    caches = []
    for cache in (given.k_cache, given.v_cache):
        large = torch.empty((total, *cache.shape[1:]), dtype=cache.dtype, device=device)
        large[far:] = cache
        caches.append(large)
    moved = given._replace(k_cache=caches[0], v_cache=caches[1], tables=given.tables + far)
    assert_near(decoded(case, moved), written_out(case, given), case.dtype)


def test_a_captured_graph_holds_for_other_contexts(device):
    """Contexts, tables and queries are read when the graph runs; the padding rows of a batch are zero."""
    kind = {"kv_heads": 8, "group": 4, "head_dim": 128, "dtype": torch.bfloat16}
    longest = decode_case((3000, 2000, 1500, 1, 700), **kind)
    static = decode_inputs(longest, device)
    decoded(longest, static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decoded(longest, static)
    for contexts in ((3000, 2000, 1500, 1, 700), (1, 0, 0, 0, 0), (17, 1500, 64, 0, 699)):
        static.ends.copy_(torch.tensor(contexts, dtype=torch.int32))
        graph.replay()
        before = torch.tensor([max(context - 1, 0) for context in contexts])
        queries = torch.tensor([min(context, 1) for context in contexts])
        case = longest._replace(chunks=tuple(zip(before.tolist(), queries.tolist(), strict=True)))
        has_context = static.ends > 0
        assert_near(out[has_context], written_out(case, static), case.dtype)
        assert not out[~has_context].any()


def test_many_launches_in_a_row(device):
    """The merging program sees what the others stored: no launch differs from the first."""
    case = decode_case((5000, 3000, 100), kv_heads=8, group=4, head_dim=128, dtype=torch.bfloat16)
    given = decode_inputs(case, device)
    first = decoded(case, given)
    assert all(torch.equal(decoded(case, given), first) for _ in range(200))
