"""Step time from arithmetic alone: the better of two roofs for each part of a pass, plus fixed costs.

For every part, T_math = FLOPs / reachable FLOP/s and T_mem = bytes / reachable bytes/s; the part takes the larger,
because an accelerator overlaps the two, and the parts follow one another. It needs no measurement, and it is the prior
that calibration scales. All FLOPs and bytes are those of one rank.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from roofline.errors import InputError
from roofline.formats import activation_format, bytes_per_element
from roofline.hardware import Efficiency, HardwareSpec
from roofline.model_shape import ModelShape
from roofline.parallelism import TensorSplit
from roofline.step_time import BatchWork, FloatArray

Number = TypeVar("Number", float, FloatArray)

# norm, qkv, rotary and cache write, attention, output projection, norm, gate and up, activation, down
KERNELS_PER_LAYER = 9
KERNELS_OUTSIDE_LAYERS = 4  # embedding, final norm, logits, sampling
ALL_REDUCES_PER_LAYER = 2  # after the output projection and after the down projection


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a pass on one rank."""

    name: str
    seconds: float
    flops: float = 0.0
    bytes: float = 0.0  # of memory traffic; of link traffic for communication
    math_s: float = 0.0
    memory_s: float = 0.0

    @property
    def bound(self) -> str:
        """What the part waits for: compute, memory, link or launch."""
        if self.name in _FIXED_BOUND:
            return _FIXED_BOUND[self.name]
        return "compute" if self.math_s > self.memory_s else "memory"


_FIXED_BOUND = {"communication": "link", "overhead": "launch"}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The parts of one pass, in the order they appear in a layer; their seconds sum to the whole."""

    terms: tuple[Term, ...]

    @property
    def seconds(self) -> float:
        """Time of the pass."""
        return sum(term.seconds for term in self.terms)

    @property
    def flops(self) -> float:
        """FLOPs of the pass on one rank."""
        return sum(term.flops for term in self.terms)

    @property
    def memory_bytes(self) -> float:
        """Memory traffic of the pass on one rank."""
        return sum(term.bytes for term in self.terms if term.bound != "link")

    @property
    def bound(self) -> str:
        """The roof under which most of the time is spent."""
        seconds: dict[str, float] = {}
        for term in self.terms:
            seconds[term.bound] = seconds.get(term.bound, 0.0) + term.seconds
        return max(seconds, key=seconds.__getitem__)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What one unit of work costs on one rank: the constants of the hot path."""

    linear_flops_per_token: float
    linear_bytes: float
    logit_flops_per_row: float
    logit_bytes: float
    attention_flops_per_pair: float
    kv_bytes_per_token: float
    linear_s_per_flop: float
    attention_s_per_flop: float
    s_per_byte: float
    overhead_s: float
    link_bytes_per_token: float
    link_s_per_byte: float
    collectives_s: float


@dataclass(frozen=True, slots=True)
class AnalyticStepTime:
    """A `StepTimeModel` of one tensor-parallel replica, from datasheet figures and efficiency priors.

    Weights stream once a pass, so the linear part takes max(weight read, compute): a prefill hides the read. Logits
    are computed for every decoding token and for the last token of every prefill chunk. Raises `InputError` where the
    degree does not divide the model, or where the accelerator has no link or no rate for the format.
    """

    shape: ModelShape
    hardware: HardwareSpec
    efficiency: Efficiency
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1
    _costs: _Costs = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the constants once; `seconds` is called for every simulated step."""
        object.__setattr__(self, "_costs", _costs_of(self))

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass in seconds; `work` has at least one token."""
        c = self._costs
        flops, moved = _decode_attention(c, work, work.decode_kv_tokens, work.decode_kv_max)
        return self._steady_seconds(work) + max(flops * c.attention_s_per_flop, moved * c.s_per_byte)

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` consecutive decode passes, the first being `work`: only the decode attention grows."""
        c = self._costs
        steps = np.arange(k, dtype=np.float64)
        kv_tokens = work.decode_kv_tokens + steps * work.num_decode_seqs
        flops, moved = _decode_attention(c, work, kv_tokens, work.decode_kv_max + steps)
        return self._steady_seconds(work) + np.maximum(flops * c.attention_s_per_flop, moved * c.s_per_byte)

    def breakdown(self, work: BatchWork) -> Breakdown:
        """The same time by its parts, with the FLOPs and bytes of each on one rank."""
        c = self._costs
        decode = _decode_attention(c, work, work.decode_kv_tokens, work.decode_kv_max)
        link_bytes, link_s = _communication(c, work)
        return Breakdown(
            (
                _roof("linear", _linear(c, work), c.linear_s_per_flop, c.s_per_byte),
                _roof("prefill attention", _prefill_attention(c, work), c.attention_s_per_flop, c.s_per_byte),
                _roof("decode attention", decode, c.attention_s_per_flop, c.s_per_byte),
                _roof("logits", _logits(c, work), c.linear_s_per_flop, c.s_per_byte),
                Term("communication", link_s, bytes=link_bytes),
                Term("overhead", c.overhead_s),
            )
        )

    def _steady_seconds(self, work: BatchWork) -> float:
        """Everything but the decode attention: the part that stays the same while contexts grow."""
        c = self._costs
        flops, moved = _linear(c, work)
        total = c.overhead_s + max(flops * c.linear_s_per_flop, moved * c.s_per_byte)
        flops, moved = _logits(c, work)
        total += max(flops * c.linear_s_per_flop, moved * c.s_per_byte)
        if work.prefill_tokens:
            flops, moved = _prefill_attention(c, work)
            total += max(flops * c.attention_s_per_flop, moved * c.s_per_byte)
        return total + _communication(c, work)[1]


def _costs_of(model: AnalyticStepTime) -> _Costs:
    shape, hardware, efficiency = model.shape, model.hardware, model.efficiency
    split = TensorSplit(shape, model.tensor_parallel)
    weight_bytes, activation = bytes_per_element(model.weight_dtype), activation_format(model.weight_dtype)
    link_bytes, link_s_per_byte, collectives_s = _link_costs(model, bytes_per_element(activation))
    return _Costs(
        linear_flops_per_token=2.0 * split.layer_linear_parameters,
        linear_bytes=split.layer_linear_parameters * weight_bytes,
        logit_flops_per_row=2.0 * split.head_parameters,
        logit_bytes=split.head_parameters * weight_bytes,
        attention_flops_per_pair=4.0 * shape.num_layers * split.q_size,  # q·k and p·v, a multiply and an add each
        kv_bytes_per_token=split.kv_bytes_per_token(model.kv_dtype),
        linear_s_per_flop=1 / (hardware.flops_per_s(model.weight_dtype) * efficiency.compute),
        attention_s_per_flop=1 / (hardware.flops_per_s(activation) * efficiency.compute),
        s_per_byte=1 / (hardware.memory_bytes_per_s * efficiency.memory),
        overhead_s=efficiency.kernel_s * (KERNELS_PER_LAYER * shape.num_layers + KERNELS_OUTSIDE_LAYERS),
        link_bytes_per_token=link_bytes,
        link_s_per_byte=link_s_per_byte,
        collectives_s=collectives_s,
    )


def _link_costs(model: AnalyticStepTime, activation_bytes: float) -> tuple[float, float, float]:
    """Bytes a token sends in the all-reduces of a pass, seconds a byte, and latency of all of them together."""
    degree, hardware = model.tensor_parallel, model.hardware
    if degree == 1:
        return 0.0, 0.0, 0.0
    if not hardware.link_bytes_per_s:
        raise InputError(
            f"accelerator {hardware.name!r} has no link, so tensor parallelism of {degree} has no meaning."
        )
    all_reduces = ALL_REDUCES_PER_LAYER * model.shape.num_layers
    ring = 2 * (degree - 1) / degree  # a ring all-reduce sends every byte so often
    return (
        all_reduces * ring * model.shape.hidden_size * activation_bytes,
        1 / (hardware.link_bytes_per_s * model.efficiency.link),
        all_reduces * model.efficiency.collective_s,
    )


def _linear(c: _Costs, work: BatchWork) -> tuple[float, float]:
    """FLOPs and bytes of the layers' matrices: every token is multiplied, the weights are read once."""
    return (work.prefill_tokens + work.decode_tokens) * c.linear_flops_per_token, c.linear_bytes


def _logits(c: _Costs, work: BatchWork) -> tuple[float, float]:
    """FLOPs and bytes of the output head: a row for every decoding token and for every prefill chunk."""
    return (work.num_prefill_seqs + work.decode_tokens) * c.logit_flops_per_row, c.logit_bytes


def _prefill_attention(c: _Costs, work: BatchWork) -> tuple[float, float]:
    """FLOPs by query-key pairs; bytes of the cached context read and of the chunk's own KV written."""
    moved = (work.prefill_kv_tokens + work.prefill_tokens) * c.kv_bytes_per_token
    return work.prefill_attn_pairs * c.attention_flops_per_pair, moved


def _decode_attention(c: _Costs, work: BatchWork, kv_tokens: Number, kv_max: Number) -> tuple[Number, Number]:
    """FLOPs and bytes of decoding against `kv_tokens` of cache, for one step or an array of them.

    The cache is read once a sequence. Tokens beyond one a sequence (speculation) see the longest context, which is
    exact where contexts are equal and keeps the time from falling when a sequence joins.
    """
    extra = work.decode_tokens - work.num_decode_seqs
    pairs = kv_tokens + work.decode_tokens + extra * kv_max
    return pairs * c.attention_flops_per_pair, (kv_tokens + work.decode_tokens) * c.kv_bytes_per_token


def _communication(c: _Costs, work: BatchWork) -> tuple[float, float]:
    """Bytes that one rank sends, and the seconds of the all-reduces."""
    sent = (work.prefill_tokens + work.decode_tokens) * c.link_bytes_per_token
    return sent, sent * c.link_s_per_byte + c.collectives_s


def _roof(name: str, work: tuple[float, float], s_per_flop: float, s_per_byte: float) -> Term:
    flops, moved = work
    math_s, memory_s = flops * s_per_flop, moved * s_per_byte
    return Term(name, max(math_s, memory_s), flops, moved, math_s, memory_s)
