"""Makes a model ready on its device: kernels compiled, KV pool sized from the memory that is left, graphs captured."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.core.config import EngineConfig
from engine.execution.decode_graphs import graph_batches
from engine.execution.device_program import DeviceProgram
from engine.execution.device_runner import DeviceRunner
from engine.execution.device_state import DeviceState, StateLayout
from engine.execution.kv_cache import KVCache
from engine.execution.kv_pool import (
    GRAPH_BYTES,
    BlockKind,
    DeviceMemory,
    check_pool,
    out_of_memory_means,
    pool_blocks,
)
from engine.execution.model import Llama
from engine.execution.packing import pack
from engine.execution.step_arrays import Arrays

LOWER_STEP = "lower gpu_memory_utilization, max_num_batched_tokens or max_num_seqs"
_SEQUENCES = 32  # attention is compiled for up to so many, and anew for each power of two above
_SMALL_TILE = 16  # rows, query tokens times grouped heads: chunks that go beyond take larger tiles


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What a user may say about a GPU's memory and launches; `num_blocks` None fills the memory that is allowed."""

    kv_dtype: torch.dtype
    utilization: float = 0.9
    num_blocks: int | None = None
    use_graphs: bool = True


def device_program(model: Llama, config: EngineConfig, kv_dtype: torch.dtype, num_blocks: int) -> DeviceProgram:
    """A program with idle rows and an empty cache of `num_blocks`."""
    device = model.weights.device
    blocks = -(-(config.max_model_len + config.num_lookahead_tokens) // config.block_size)
    state = DeviceState(StateLayout.of(config.max_num_seqs, blocks), config.block_size, device)
    return DeviceProgram(model, state, KVCache(model.shape, num_blocks, config.block_size, kv_dtype, device))


def gpu_runner(model: Llama, config: EngineConfig, options: DeviceOptions) -> tuple[EngineConfig, DeviceRunner]:
    """A runner that is warm, and `config` with its number of KV blocks.

    Raises `CapacityError` where the memory does not do.
    """
    block = BlockKind(model.shape, config.block_size, options.kv_dtype)
    batches = graph_batches(config.max_num_seqs) if options.use_graphs else ()
    with out_of_memory_means(f"a step of {config.max_num_batched_tokens} tokens of {model.shape.name}", LOWER_STEP):
        program = device_program(model, config, options.kv_dtype, num_blocks=1)
        memory = _measure(program, config, len(batches))
    if options.num_blocks is None:
        num_blocks = pool_blocks(memory, options.utilization, block)
    else:
        num_blocks = options.num_blocks
        check_pool(num_blocks, block, torch.cuda.mem_get_info()[0] - memory.step - memory.graphs)
    config = replace(config, num_blocks=num_blocks)
    with out_of_memory_means("the KV cache and the captured graphs", LOWER_STEP):
        program.cache = KVCache(model.shape, num_blocks, config.block_size, options.kv_dtype, model.weights.device)
        warm_up(program, config)  # a large cache is addressed by other kernels than the small one of before
        return config, DeviceRunner(program, config, batches)


def _measure(program: DeviceProgram, config: EngineConfig, num_graphs: int) -> DeviceMemory:
    """Run steps of every kind and the largest ones; what those took and what is left of the device."""
    warm_up(program, config)
    step = _peak_bytes(lambda: largest_step(program, config))
    decode = _peak_bytes(lambda: program.decode(config.max_num_seqs))
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return DeviceMemory(total, total - free, step, decode + num_graphs * GRAPH_BYTES if num_graphs else 0)


def warm_up(program: DeviceProgram, config: EngineConfig) -> None:
    """Have every kernel compiled that steps may need on the program's present cache.

    A kernel compiled while requests are served would hold all of them up for seconds.
    """
    shape = program.model.shape
    for lengths in kinds_of_steps(config, shape.num_heads // shape.num_kv_heads):
        idle_step(program, lengths, num_rows=len(lengths))


def kinds_of_steps(config: EngineConfig, group: int) -> list[list[int]]:
    """Steps for which attention is compiled apart, as the tokens of their chunks; as many rows as chunks decode beside.

    group: query heads that share a KV head. Of each number of chunks: the shortest ones, one that is just longer than
    the smallest tile, and as many tokens as a step may have, the first chunks as long as they may be.
    """
    limit, context, just_longer = config.max_num_batched_tokens, config.max_model_len, _SMALL_TILE // group + 1
    kinds = []
    for least, most in _counts(config.max_num_seqs):
        filling = min(max(least, -(-limit // context)), most)  # chunks that take the whole budget where any number does
        kinds.append([1] * least)
        kinds.append(_chunks(least, min(just_longer, context), min(least + just_longer - 1, limit)))
        kinds.append(_chunks(filling, context, limit))
    return kinds


def _chunks(count: int, longest: int, budget: int) -> list[int]:
    """Tokens of `count` chunks, together as near to `budget` as they may come, the first ones the longest."""
    lengths, spare = [], budget - count
    for _ in range(count):
        lengths.append(1 + min(spare, longest - 1))
        spare -= lengths[-1] - 1
    return lengths


def _counts(most: int) -> list[tuple[int, int]]:
    """The numbers of sequences, up to `most`, for which attention is compiled alike: (least, most) of each kind."""
    ends = [_SEQUENCES]
    while ends[-1] < most:
        ends.append(2 * ends[-1])
    return [(1 if end == _SEQUENCES else end // 2 + 1, min(end, most)) for end in ends]


def _peak_bytes(work: Callable[[], None]) -> int:
    """Memory of the device that `work` takes while it runs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def largest_step(program: DeviceProgram, config: EngineConfig) -> None:
    """As many rows as there may be, all idle, and chunks that use up the rest of the token budget."""
    rows, longest = config.max_num_seqs, config.max_model_len
    tokens = min(max(1, config.max_num_batched_tokens - rows), rows * longest)
    idle_step(program, _chunks(-(-tokens // longest), longest, tokens), rows)


def idle_step(program: DeviceProgram, lengths: list[int], num_rows: int) -> None:
    """A step of `num_rows` idle rows and first chunks of so many tokens each, all in the null block."""
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    num_chunks, num_tokens = len(lengths), sum(lengths)
    arrays: Arrays = {
        "token_ids": np.zeros(num_tokens, np.int32),
        "starts": starts,
        "contexts": np.zeros(num_chunks, np.int32),
        "tables": np.zeros((num_chunks, program.state.layout.blocks), np.int32),
        "sampled_rows": np.append(np.arange(num_rows), num_rows + starts[1:] - 1).astype(np.int32),
        **{name: np.zeros(num_chunks, np.float32) for name in ("temperature", "min_p")},
        "top_p": np.ones(num_chunks, np.float32),
        "top_k": np.zeros(num_chunks, np.int32),
        "seeds": np.zeros(num_chunks, np.int64),
        "new_positions": np.ones(num_chunks, np.int32),
    }
    packed = pack(arrays)
    block = torch.zeros(packed.size, dtype=torch.int32)
    packed.write(block.numpy())
    program.mixed(num_rows, packed.read(block.to(program.state.flat.device)), max(lengths))
