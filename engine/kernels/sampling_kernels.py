"""Drawing one token a row on a device: two kernels, their launcher and their configurations.

`_chunk_kernel` reads the logits once, cut over all processors, and keeps peak and mass of each chunk. `_pick_kernel`, a
program a row, goes on from there: an unfiltered row reads one chunk more. A filtered row looks for its lowest kept
logit: a pass or two bound it from below, the tokens above the bound are listed, and the search goes on over the list
alone. Nothing is sorted. What a row draws is the reference's inversion of the distribution in the order of token ids.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.kernels.kernel_config import KernelConfig, assert_aligned, dtype_name, pointer, power_of_two, shipped_shapes
from engine.kernels.triton_language import jit, tl

# SplitMix64's constants (Steele, Lea and Flood 2014).
GAMMA_BITS, MIX_FIRST_BITS, MIX_SECOND_BITS = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
GAMMA, MIX_FIRST, MIX_SECOND = (tl.constexpr(bits) for bits in (GAMMA_BITS, MIX_FIRST_BITS, MIX_SECOND_BITS))


class Sizes(NamedTuple):
    """block: logits that a program looks at together; capacity: how many candidates a filtered row may list."""

    block: int = 2048
    capacity: int = 16384


DEFAULT = Sizes()


class Columns(NamedTuple):
    """Per row, [rows] each, contiguous: see `sampling.sample`. seeds: int64; positions: any integers."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seeds: Tensor
    positions: Tensor


def launch(logits: Tensor, columns: Columns, sizes: Sizes = DEFAULT) -> Tensor:
    """Token ids, [rows] int64. logits: contiguous [rows, vocabulary], any float type."""
    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    assert logits.is_contiguous() and all(column.is_contiguous() and len(column) == rows for column in columns)
    assert_aligned(logits, tokens)
    if not rows:
        return tokens
    chunks = -(-vocabulary // sizes.block)
    peaks, masses = (torch.empty(rows, chunks, device=logits.device) for _ in range(2))
    best = torch.empty(rows, chunks, dtype=torch.int32, device=logits.device)
    listed = torch.empty(rows, sizes.capacity, dtype=torch.int32, device=logits.device)
    case = Case(vocabulary, logits.dtype, columns.top_k.dtype, columns.positions.dtype)
    first, second = chunk_config(case, sizes), pick_config(case, sizes)
    first.kernel[rows, chunks](logits, columns.temperature, peaks, masses, best, **first.keywords)
    second.kernel[(rows,)](logits, *columns, peaks, masses, best, listed, tokens, **second.keywords)
    return tokens


@jit
def _chunk_kernel(
    logits_ptr, temperature_ptr, peaks_ptr, masses_ptr, best_ptr, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr
):
    """Of one chunk: the largest logit, its lowest id, and the sum of exp((logit - largest) / temperature)."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    ids = chunk * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * VOCABULARY + ids, mask=ids < VOCABULARY, other=float("-inf")).to(tl.float32)
    peak = tl.max(x, 0)
    temperature = tl.load(temperature_ptr + row)
    scale = tl.where(temperature > 0, temperature, 1.0)
    # Where every logit is -inf, so is the peak, and their difference would be NaN.
    mass = tl.sum(tl.exp((x - tl.where(peak > float("-inf"), peak, 0.0)) / scale), 0)
    place = row * tl.num_programs(1) + chunk
    tl.store(peaks_ptr + place, peak)
    tl.store(masses_ptr + place, mass)
    tl.store(best_ptr + place, tl.min(tl.where(x == peak, ids, VOCABULARY - 1), 0))


@jit
def _pick_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, positions_ptr, peaks_ptr, masses_ptr,
    best_ptr, listed_ptr, tokens_ptr, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr, CAPACITY: tl.constexpr,
    CHUNKS: tl.constexpr, CHUNKS_PADDED: tl.constexpr,
):  # fmt: skip
    """The token of one row."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS_PADDED)
    peaks = tl.load(peaks_ptr + row * CHUNKS + chunk, mask=chunk < CHUNKS, other=float("-inf"))
    peak = tl.max(peaks, 0)
    temperature = tl.load(temperature_ptr + row)
    if temperature > 0:
        here = (logits_ptr + row * VOCABULARY, listed_ptr + row * CAPACITY, peak, temperature, tl.load(min_p_ptr + row))
        drawn = _uniform(tl.load(seeds_ptr + row), tl.load(positions_ptr + row))
        masses = tl.load(masses_ptr + row * CHUNKS + chunk, mask=chunk < CHUNKS, other=0.0)
        masses = tl.where(peaks > float("-inf"), masses * tl.exp((peaks - peak) / temperature), 0.0)
        top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
        if (top_k > 0) | (top_p < 1) | (here[4] > 0):
            token = _draw_filtered(here, top_k, top_p, tl.sum(masses, 0), drawn, VOCABULARY, BLOCK, CAPACITY)
        else:
            running = tl.cumsum(masses, 0)
            target = drawn * tl.sum(masses, 0)
            first = tl.sum(((running <= target) & (chunk < CHUNKS)).to(tl.int32), 0)
            first = tl.minimum(first, CHUNKS - 1)
            target -= tl.sum(tl.where(chunk < first, masses, 0.0), 0)
            token = _draw(here, False, VOCABULARY, float("-inf"), target, first * BLOCK, BLOCK)
    else:
        best = tl.load(best_ptr + row * CHUNKS + chunk, mask=chunk < CHUNKS, other=VOCABULARY - 1)
        token = tl.min(tl.where(peaks == peak, best, VOCABULARY - 1), 0)
    tl.store(tokens_ptr + row, token.to(tl.int64))


@jit
def _uniform(seed, position):
    """`sampling.uniforms` of one row, float64 in [0, 1)."""
    gamma = tl.full((), GAMMA, tl.uint64)
    counted = position.to(tl.int64).to(tl.uint64, bitcast=True) * gamma
    bits = _mixed(_mixed(seed.to(tl.uint64, bitcast=True) + gamma) ^ counted)
    return (bits >> 11).to(tl.float64) * 1.1102230246251565e-16  # 2**-53


@jit
def _mixed(bits):
    """SplitMix64's finaliser."""
    bits = (bits ^ (bits >> 30)) * tl.full((), MIX_FIRST, tl.uint64)
    bits = (bits ^ (bits >> 27)) * tl.full((), MIX_SECOND, tl.uint64)
    return bits ^ (bits >> 31)


@jit
def _block(here, is_listed, size, start, BLOCK: tl.constexpr):
    """`BLOCK` tokens of the row, or of its list, from `start` on: id, logit, mass where the likeliest has 1, in or out.

    here: (logits, list, peak, temperature, min_p) of the row. A token is in if it exists, is possible and passes min_p.
    """
    logits, listed, peak, temperature, min_p = here
    places = start + tl.arange(0, BLOCK)
    inside = places < size
    ids = places
    if is_listed:
        ids = tl.load(listed + places, mask=inside, other=0)
    x = tl.load(logits + ids, mask=inside, other=float("-inf")).to(tl.float32)
    mass = tl.exp((x - peak) / temperature)
    return ids, x, mass, (x > float("-inf")) & (mass >= min_p)


@jit
def _split(here, is_listed, size, threshold, BLOCK: tl.constexpr):
    """What is in from a logit on: (mass, count, largest logit below it, smallest from it on)."""
    masses, counts = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    below, least = tl.full((BLOCK,), float("-inf"), tl.float32), tl.full((BLOCK,), float("inf"), tl.float32)
    for start in range(0, size, BLOCK):
        _, x, mass, is_in = _block(here, is_listed, size, start, BLOCK)
        reaches = is_in & (x >= threshold)
        masses += tl.where(reaches, mass, 0.0)
        counts += tl.where(reaches, 1.0, 0.0)
        below = tl.maximum(below, tl.where(is_in & (x < threshold), x, float("-inf")))
        least = tl.minimum(least, tl.where(reaches, x, float("inf")))
    return tl.sum(masses, 0), tl.sum(counts, 0), tl.max(below, 0), tl.min(least, 0)


@jit
def _search(here, is_listed, size, floor, target, by_count, BLOCK: tl.constexpr):
    """The largest logit from which on `target` tokens, or as much mass, are in; floor: a logit from which they are.

    Bisection whose ends are logits that exist: each round drops one at least, and it ends when one is left.
    """
    top = here[2]
    while floor < top:
        middle = 0.5 * floor + 0.5 * top
        middle = tl.where(middle > floor, middle, top)
        mass, count, below, least = _split(here, is_listed, size, middle, BLOCK)
        has_reached = tl.where(by_count, count, mass) >= target
        floor = tl.where(has_reached, least, floor)
        top = tl.where(has_reached, top, below)
    return floor


@jit
def _bound(here, top_k, top_p, total, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr):
    """A logit that the lowest kept one does not go below, and what is in from there: (mass, count, logit).

    Steps down from the peak, each twice as far as the last, until enough is in. With min_p one step holds all that is.
    """
    peak, temperature, min_p = here[2], here[3], here[4]
    depth = tl.where(min_p > 0, 0.001 - 1.001 * tl.log(tl.maximum(min_p, 1e-30)), 3.0)
    mass, count, _, least = _split(here, False, VOCABULARY, peak - depth * temperature, BLOCK)
    is_short = tl.where(top_k > 0, count < top_k, mass < top_p * total) & (min_p <= 0)
    while is_short:
        depth *= 2
        # Beyond exp(-90) float32 has no more mass; what is there still counts for top_k.
        low = tl.where(depth < 90, peak - depth * temperature, float("-inf"))
        mass, count, _, least = _split(here, False, VOCABULARY, low, BLOCK)
        is_short = tl.where(top_k > 0, count < top_k, mass < top_p * total) & (depth < 90)
    return mass, count, least


@jit
def _draw_filtered(
    here, top_k, top_p, total, drawn, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr, CAPACITY: tl.constexpr
):
    """A token that passes min_p, then top_k, then top_p of what these leave.

    Tokens as likely as the last one kept are kept as well: nothing tells them apart.
    """
    mass, count, floor = _bound(here, top_k, top_p, total, VOCABULARY, BLOCK)
    size = tl.full((), VOCABULARY, tl.int32)
    is_listed = count <= CAPACITY
    if is_listed:
        _list_from(here, floor, VOCABULARY, BLOCK)
        size = count.to(tl.int32)
    if top_k > 0:
        floor = _search(here, is_listed, size, floor, tl.minimum(top_k.to(tl.float32), count), True, BLOCK)
        total, _, _, _ = _split(here, is_listed, size, floor, BLOCK)
    else:
        total = tl.where(here[4] > 0, mass, total)
    if top_p < 1:
        floor = _search(here, is_listed, size, floor, tl.minimum(top_p * total, mass), False, BLOCK)
    kept, _, _, _ = _split(here, is_listed, size, floor, BLOCK)
    return _draw(here, is_listed, size, floor, drawn * kept, 0, BLOCK)


@jit
def _list_from(here, floor, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr):
    """Write the ids of the tokens from a logit on into the row's list, in their order."""
    length = 0
    for start in range(0, VOCABULARY, BLOCK):
        ids, x, _, is_in = _block(here, False, VOCABULARY, start, BLOCK)
        is_in &= x >= floor
        ones = is_in.to(tl.int32)
        tl.store(here[1] + length + tl.cumsum(ones, 0) - ones, ids, mask=is_in)
        length += tl.sum(ones, 0)
    tl.debug_barrier()  # other threads of the program read what this one wrote


@jit
def _draw(here, is_listed, size, floor, target, start, BLOCK: tl.constexpr):
    """The first token, from place `start` on, at which the kept mass exceeds `target`; the last kept one else."""
    place, found, last = tl.full((), 0, tl.int32) + start, -1, 0
    carried = target * 0
    while (place < size) & (found < 0):
        ids, x, mass, is_in = _block(here, is_listed, size, place, BLOCK)
        mass = tl.where(is_in & (x >= floor), mass, 0.0)
        whole = tl.sum(mass, 0)
        if carried + whole > target:
            running = carried + tl.cumsum(mass, 0)
            first = tl.min(tl.where((running > target) & (mass > 0), ids, 2147483647), 0)
            found = tl.where(first < 2147483647, first, found)
        last = tl.maximum(last, tl.max(tl.where(mass > 0, ids, 0), 0))
        carried += whole
        place += BLOCK
    return tl.where(found < 0, last, found)


class Case(NamedTuple):
    """What the machine code depends on: size of the vocabulary, and the tensors' types."""

    vocabulary: int
    dtype: torch.dtype
    top_k_dtype: torch.dtype = torch.int32
    position_dtype: torch.dtype = torch.int32

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} vocabulary={self.vocabulary}"


def chunk_config(case: Case, sizes: Sizes = DEFAULT) -> KernelConfig:
    """Peaks and masses of chunks: two 16-byte loads of bfloat16 a thread."""
    outputs = {"peaks_ptr": "*fp32", "masses_ptr": "*fp32", "best_ptr": "*i32"}
    return KernelConfig(
        name=f"sampling chunks {case}",
        kernel=_chunk_kernel,
        types={"logits_ptr": pointer(case.dtype), "temperature_ptr": "*fp32", **outputs},
        choices={"VOCABULARY": case.vocabulary, "BLOCK": sizes.block},
        num_warps=4,
        machine_code=(r"LDG\.E.*\.128",),
    )


def pick_config(case: Case, sizes: Sizes = DEFAULT) -> KernelConfig:
    """The choice of a row's token."""
    chunks = -(-case.vocabulary // sizes.block)
    columns = dict.fromkeys(("temperature_ptr", "top_p_ptr", "min_p_ptr", "peaks_ptr", "masses_ptr"), "*fp32")
    columns |= {"top_k_ptr": pointer(case.top_k_dtype), "positions_ptr": pointer(case.position_dtype)}
    columns |= {"seeds_ptr": "*i64", "best_ptr": "*i32", "listed_ptr": "*i32", "tokens_ptr": "*i64"}
    choices: dict[str, Any] = {"VOCABULARY": case.vocabulary, "BLOCK": sizes.block, "CAPACITY": sizes.capacity}
    return KernelConfig(
        name=f"sampling pick {case}",
        kernel=_pick_kernel,
        types={"logits_ptr": pointer(case.dtype), **columns},
        choices=choices | {"CHUNKS": chunks, "CHUNKS_PADDED": power_of_two(chunks)},
        num_warps=8,
        max_registers=128,
        machine_code=(r"LDG\.E.*\.128",),
    )


def configs() -> tuple[KernelConfig, ...]:
    """The catalogue's largest vocabulary, and float32 logits of the smallest; between them only constants differ."""
    vocabularies = {shape.vocab_size for shape in shipped_shapes()}
    cases = (Case(max(vocabularies), torch.bfloat16), Case(min(vocabularies), torch.float32))
    return tuple(make(case) for case in cases for make in (chunk_config, pick_config))
