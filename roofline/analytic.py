"""Step time from arithmetic alone: the better of two roofs for every operator of a pass, plus fixed costs.

For every operator, T_math = FLOPs / reachable FLOP/s and T_mem = bytes / reachable bytes/s; it takes the larger, as an
accelerator overlaps the two, and the operators follow one another. Launches, starts of work items and collectives
come on top. It needs no measurement, and it is the prior that calibration scales. All FLOPs and bytes are those of one
rank.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from roofline.breakdown import Breakdown, Term
from roofline.communication import Group, all_reduce_s, all_to_all_s, group_of, send_s, sent_by_all_reduce
from roofline.formats import activation_format
from roofline.forward_pass import USUAL, Execution, ForwardPass, forward_pass
from roofline.hardware import Efficiency, HardwareSpec
from roofline.model_shape import ModelShape
from roofline.nodes import Node
from roofline.operators import Attention, Experts, Linear, Number
from roofline.parallelism import ALONE, Parallelism
from roofline.step_time import BatchWork, FloatArray

TABLE_TOKENS = 16_384  # passes up to so many tokens are looked up; larger ones are worked out


@dataclass(frozen=True, slots=True)
class _Rates:
    """What one unit of work costs on this accelerator: the constants of the hot path."""

    s_per_byte: float
    attention_s_per_flop: float
    item_s: float
    tile_rows: int
    attention_tile_rows: int
    launch_s: float  # of all kernels of a pass
    host_s: float  # below which no pass ends, because the host launches every kernel


@dataclass(frozen=True, slots=True)
class _AttentionCosts:
    """Seconds of one unit of each amount over all layers of a kind; pairs of T_math and T_mem, and starts of items."""

    window: int | None
    pair: tuple[float, float, float]
    cached: tuple[float, float, float]
    token: tuple[float, float, float]
    chunk_s: float
    decode_pair: tuple[float, float]
    decode_kv_s: float
    decode_token_s: float
    beside_chunk_s: float  # T_math of a cached token of a sequence that decodes beside a chunk
    sequence_s: float


@dataclass(frozen=True, slots=True)
class _Groups:
    """Who communicates with whom in a replica of several accelerators."""

    tensor: Group
    expert: Group
    replica: Group


@dataclass(frozen=True, slots=True)
class AnalyticStepTime:
    """A `StepTimeModel` of one replica, from datasheet figures and efficiency priors.

    Weights stream once a pass, so a matrix product takes max(weight read, compute): a prefill hides the read. Logits
    are computed for every decoding token and for the last token of every prefill chunk.

    With pipeline stages, the work is spread evenly over as many micro-batches as stages, and the pass is over when all
    of them have passed the slowest stage; the bubble is what cannot be spread: one token, and the longest context.

    Raises `InputError` where a degree does not divide the model, or where the accelerator has no link or no rate for
    the format.

    `node` says how the accelerators stand together; None: as the catalogue says of this accelerator.
    """

    shape: ModelShape
    hardware: HardwareSpec
    efficiency: Efficiency
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    parallelism: Parallelism = ALONE
    execution: Execution = USUAL
    node: Node | None = None
    forward: ForwardPass = field(init=False, repr=False, compare=False)
    _rates: _Rates = field(init=False, repr=False, compare=False)
    _attention: tuple[_AttentionCosts, ...] = field(init=False, repr=False, compare=False)
    _groups: _Groups | None = field(init=False, repr=False, compare=False)
    _tables: dict[str, list[float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the constants once; `seconds` is called for every simulated step."""
        forward = forward_pass(self.shape, self.weight_dtype, self.kv_dtype, self.parallelism, self.execution)
        object.__setattr__(self, "forward", forward)
        object.__setattr__(self, "_rates", _rates_of(self))
        costs = tuple(_attention_costs(attention, self._rates) for attention in forward.attention)
        object.__setattr__(self, "_attention", costs)
        object.__setattr__(self, "_groups", _groups_of(self))
        object.__setattr__(self, "_tables", {"tokens": [], "rows": []})
        for operator in (*forward.token_operators, *forward.row_operators):
            self.hardware.flops_per_s(operator.dtype)

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass in seconds; `work` has at least one token."""
        stages = self.parallelism.pipeline
        if stages > 1:
            work = _micro_batch(work, stages)
        steady = self._steady_seconds(work)
        decode = self._decode_seconds(work, work.decode_kv_tokens, work.decode_kv_max) if work.num_decode_seqs else 0.0
        return stages * self._whole(steady, decode)

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` consecutive decode passes, the first being `work`: only the decode attention grows."""
        stages = self.parallelism.pipeline
        steps = np.arange(k, dtype=np.float64)
        kv_tokens = work.decode_kv_tokens + steps * work.num_decode_seqs
        kv_max = work.decode_kv_max + steps
        if stages > 1:
            work = _micro_batch(work, stages)
            kv_tokens = np.maximum(kv_tokens / stages, kv_max)
        steady = self._steady_seconds(work)
        return stages * self._whole(steady, self._decode_seconds(work, kv_tokens, kv_max))

    def breakdown(self, work: BatchWork) -> Breakdown:
        """The same time by its operators, with the FLOPs and bytes of each on one rank."""
        stages = self.parallelism.pipeline
        if stages > 1:
            work = _micro_batch(work, stages)
        rates, tokens = self._rates, work.prefill_tokens + work.decode_tokens
        rows = work.num_prefill_seqs + work.decode_tokens
        terms = [self._linear_term(op, tokens) for op in self.forward.token_operators]
        terms += self._attention_terms(work)
        terms += [self._linear_term(op, rows) for op in self.forward.row_operators]
        link_bytes, link_s = self._communication(tokens)
        device_s = sum(term.seconds for term in terms) + link_s + rates.launch_s
        waiting_s = max(0.0, rates.host_s - device_s)
        terms.append(Term("communication", link_s, bytes=link_bytes))
        terms.append(Term("overhead", rates.launch_s + waiting_s))
        return Breakdown(tuple(term.times(stages) for term in terms))

    def mfu(self, parts: Breakdown) -> float:
        """Share of the dense peak that a pass uses."""
        return parts.flops / (parts.seconds * self.hardware.flops_per_s(self.weight_dtype))

    def mbu(self, parts: Breakdown) -> float:
        """Share of the peak memory bandwidth that a pass uses."""
        return parts.memory_bytes / (parts.seconds * self.hardware.memory_bytes_per_s)

    def _whole(self, steady_s: float, decode_s: Number) -> Number:
        """A pass ends with the device, or with the host that still launches its kernels."""
        host_s = self._rates.host_s
        if not host_s:
            return steady_s + decode_s
        total = steady_s + decode_s
        return np.maximum(total, host_s) if isinstance(total, np.ndarray) else max(total, host_s)

    def _steady_seconds(self, work: BatchWork) -> float:
        """Everything but the decode attention: the part that stays the same while contexts grow."""
        chunks, prefill_tokens, decode_tokens = work[0], work[1], work[5]
        tokens, rows = prefill_tokens + decode_tokens, chunks + decode_tokens
        try:
            total = self._tables["tokens"][tokens] + self._tables["rows"][rows]
        except (IndexError, TypeError):  # not in the tables yet, or never: beyond them, or no whole number
            total = self._looked_up("tokens", tokens) + self._looked_up("rows", rows)
        if prefill_tokens:
            total += self._prefill_seconds(work)
        return total

    def _looked_up(self, kind: str, amount: int) -> float:
        """Seconds of the operators driven by tokens or by rows; fixed costs are with the tokens."""
        table = self._tables[kind]
        if type(amount) is not int or amount > TABLE_TOKENS:
            return float(self._evaluated(kind, np.array([float(amount)]))[0])
        if amount >= len(table):
            end = min(TABLE_TOKENS + 1, max(1024, 2 * amount))
            table += self._evaluated(kind, np.arange(len(table), end, dtype=np.float64)).tolist()
        return table[amount]

    def _evaluated(self, kind: str, amounts: FloatArray) -> FloatArray:
        operators = self.forward.token_operators if kind == "tokens" else self.forward.row_operators
        total = np.zeros_like(amounts)
        for operator in operators:
            math_s, memory_s = self._roofs(operator, amounts)
            total += operator.calls * np.maximum(math_s, memory_s)
        return total + self._communication(amounts)[1] + self._rates.launch_s if kind == "tokens" else total

    def _roofs(self, operator: Linear | Experts, rows: Number) -> tuple[Number, Number]:
        """T_math and T_mem of one call; a matrix product computes whole tiles of rows."""
        flops, moved = operator.work(rows)
        if isinstance(operator, Linear):
            tile = self._rates.tile_rows
            flops = np.ceil(rows / tile) * tile * operator.flops_per_row
        s_per_flop = 1 / (self.hardware.flops_per_s(operator.dtype) * self.efficiency.compute)
        return flops * s_per_flop, moved * self._rates.s_per_byte

    def _linear_term(self, operator: Linear | Experts, rows: float) -> Term:
        calls = operator.calls
        flops, moved = operator.work(rows)
        math_s, memory_s = self._roofs(operator, float(rows))
        seconds = calls * max(float(math_s), float(memory_s))
        return Term(
            operator.name, seconds, calls * float(flops), calls * float(moved), calls * float(math_s),
            calls * float(memory_s), operator.dtype,
        )  # fmt: skip

    def _prefill_seconds(self, work: BatchWork) -> float:
        total, (chunks, tokens, cached, pairs) = 0.0, work[:4]
        for costs in self._attention:
            seen, counted = cached, pairs
            if costs.window is not None:
                seen, counted = min(cached, chunks * costs.window), min(pairs, tokens * costs.window)
            math_s = counted * costs.pair[0] + seen * costs.cached[0] + tokens * costs.token[0]
            memory_s = counted * costs.pair[1] + seen * costs.cached[1] + tokens * costs.token[1]
            total += tokens * costs.token[2] + chunks * costs.chunk_s + (math_s if math_s > memory_s else memory_s)
        return total

    def _decode_seconds(self, work: BatchWork, kv_tokens: Number, kv_max: Number) -> Number:
        sequences, tokens, total = work.num_decode_seqs, work.decode_tokens, kv_tokens * 0.0
        if not sequences:
            return total
        larger: Any = np.maximum if isinstance(kv_tokens, np.ndarray) else max
        extra, beside_chunk = tokens - sequences, work.prefill_tokens > 0
        for costs in self._attention:
            kept, longest = kv_tokens, kv_max
            if costs.window is not None:
                kept, longest = np.minimum(kv_tokens, sequences * costs.window), np.minimum(kv_max, costs.window)
            pairs = kept + tokens + extra * longest if extra else kept + tokens
            math_s = pairs * costs.decode_pair[0]
            if beside_chunk:
                math_s = math_s + kept * costs.beside_chunk_s
            memory_s = pairs * costs.decode_pair[1] + kept * costs.decode_kv_s + tokens * costs.decode_token_s
            total = total + sequences * costs.sequence_s + larger(math_s, memory_s)
        return total

    def _attention_terms(self, work: BatchWork) -> list[Term]:
        rates, terms, decoding = self._rates, list[Term](), float(work.decode_kv_tokens)
        for attention in self.forward.attention:
            suffix = "" if len(self.forward.attention) == 1 else (", window" if attention.window else ", full")
            beside = attention.decode_padding(work, decoding, rates.attention_tile_rows) if work.prefill_tokens else 0.0
            decode = attention.decode(work, decoding, float(work.decode_kv_max))
            chunks = attention.prefill_items(work, rates.attention_tile_rows) if work.prefill_tokens else 0.0
            for name, amounts, padded, items in (
                (
                    "prefill attention",
                    attention.prefill(work),
                    attention.prefill_padding(work, rates.attention_tile_rows),
                    chunks,
                ),
                ("decode attention", decode, beside, attention.decode_items(work)),
            ):
                terms.append(self._attention_term(name + suffix, attention.calls, amounts, (padded, items)))
        return terms

    def _attention_term(self, name: str, calls: int, work: tuple[float, float], tiles: tuple[float, float]) -> Term:
        rates, (flops, moved), (padded, items) = self._rates, work, tiles
        math_s, memory_s = (flops + padded) * rates.attention_s_per_flop, moved * rates.s_per_byte
        dtype = activation_format(self.weight_dtype)
        return Term(
            name, calls * (items * rates.item_s + max(math_s, memory_s)), float(calls * flops), float(calls * moved),
            float(calls * math_s), float(calls * memory_s), dtype,
        )  # fmt: skip

    def _communication(self, tokens: Number) -> tuple[Number, Number]:
        """Bytes that one rank sends, and seconds of all collectives."""
        groups, forward = self._groups, self.forward
        if groups is None:
            return tokens * 0.0, tokens * 0.0
        reduced, exchanged = tokens * forward.message_bytes_per_token, tokens * forward.expert_message_bytes_per_token
        seconds = forward.all_reduces * all_reduce_s(reduced, groups.tensor)
        seconds = seconds + forward.all_to_alls * all_to_all_s(exchanged, groups.expert)
        sent = forward.all_reduces * sent_by_all_reduce(reduced, groups.tensor.ranks) + forward.all_to_alls * exchanged
        if self.parallelism.pipeline > 1:
            handed = reduced / groups.tensor.ranks
            seconds, sent = seconds + send_s(handed, groups.replica.outermost), sent + handed
        return sent, seconds


def _groups_of(model: AnalyticStepTime) -> _Groups | None:
    split = model.parallelism
    if split.accelerators == 1:
        return None
    sizes = (split.tensor, split.expert_group, split.accelerators)
    return _Groups(*(group_of(model.hardware, model.efficiency, ranks, model.node) for ranks in sizes))


def _attention_costs(attention: Attention, rates: _Rates) -> _AttentionCosts:
    """Seconds of one unit of each amount: the operator is linear in them as long as its window is open."""
    free, calls, tile_rows = replace(attention, window=None), attention.calls, rates.attention_tile_rows

    def prefill(work: BatchWork) -> tuple[float, float, float]:
        flops, moved = free.prefill(work)
        math_s = (flops + free.prefill_padding(work, tile_rows)) * rates.attention_s_per_flop
        items_s = free.prefill_items(work, tile_rows) * rates.item_s
        return calls * math_s, calls * moved * rates.s_per_byte, calls * items_s

    def decode(work: BatchWork, kv_tokens: float) -> tuple[float, float]:
        flops, moved = free.decode(work, kv_tokens, 0.0)
        return calls * flops * rates.attention_s_per_flop, calls * moved * rates.s_per_byte

    sequence, token = BatchWork(num_decode_seqs=1), BatchWork(num_decode_seqs=1, decode_tokens=1)
    score_s = calls * free.score_bytes_per_pair * rates.s_per_byte
    padding = free.decode_padding(sequence, 1.0, tile_rows)
    return _AttentionCosts(
        window=attention.window,
        pair=prefill(BatchWork(prefill_attn_pairs=1)),
        cached=prefill(BatchWork(prefill_kv_tokens=1)),
        token=prefill(BatchWork(prefill_tokens=1)),
        chunk_s=prefill(BatchWork(num_prefill_seqs=1))[2],
        decode_pair=(calls * free.decode_flops_per_pair * rates.attention_s_per_flop, score_s),
        decode_kv_s=decode(BatchWork(), 1.0)[1] - score_s,
        decode_token_s=decode(token, 0.0)[1] - score_s,
        beside_chunk_s=calls * padding * rates.attention_s_per_flop,
        sequence_s=calls * free.decode_items(sequence) * rates.item_s,
    )


def _rates_of(model: AnalyticStepTime) -> _Rates:
    hardware, efficiency, kernels = model.hardware, model.efficiency, model.forward.kernels
    graphs = model.execution.graphs or hardware.kind == "cpu"
    return _Rates(
        s_per_byte=1 / (hardware.memory_bytes_per_s * efficiency.memory),
        attention_s_per_flop=1 / (hardware.flops_per_s(activation_format(model.weight_dtype)) * efficiency.compute),
        item_s=efficiency.attention_item_s,
        tile_rows=efficiency.tile_rows,
        attention_tile_rows=efficiency.attention_tile_rows,
        launch_s=kernels * efficiency.kernel_s,
        host_s=0.0 if graphs else kernels * efficiency.host_launch_s,
    )


def _micro_batch(work: BatchWork, stages: int) -> BatchWork:
    """One of `stages` equal parts of the work; fractions stand for micro-batches that take turns in being fuller."""
    return BatchWork(
        work.num_prefill_seqs / stages,  # type: ignore[arg-type]
        work.prefill_tokens / stages,  # type: ignore[arg-type]
        work.prefill_kv_tokens / stages,  # type: ignore[arg-type]
        work.prefill_attn_pairs / stages,  # type: ignore[arg-type]
        max(work.num_decode_seqs / stages, min(work.num_decode_seqs, 1)),  # type: ignore[arg-type]
        max(work.decode_tokens / stages, min(work.decode_tokens, 1)),  # type: ignore[arg-type]
        max(work.decode_kv_tokens / stages, work.decode_kv_max),  # type: ignore[arg-type]
        work.decode_kv_max,
    )
