"""The physical form of a step's time, and its features as arrays.

    seconds = fixed + join(memory, compute) + sequences
    memory  = weight_read [+ context that decode and prefill read + longest context]
    compute = tokens      [+ query-key pairs of prefill attention]

each amount times its own cost. `join` is how the two sides share the time: their sum, the root of their squares or
fourth powers, or their maximum. What stands in brackets joins only in the scope "whole"; in the scope "linear" it is
added outside. A prefill hides the read of the weights ("linear"), and on some accelerators that of the decoding
sequences' context as well ("whole"); a small engine on a CPU tends to the sum. The data choose. Every cost is at least
zero, so time never decreases with work.

The form is homogeneous in its costs (double them all and the time doubles), which makes the fit a short sequence of
linear problems: see `solve.py`.
"""

from dataclasses import dataclass, fields
from math import sqrt
from typing import Literal, get_args

import numpy as np

from roofline.step_time import BatchWork, FloatArray

Join = Literal["sum", "root2", "root4", "max"]
Scope = Literal["linear", "whole"]
JOINS: tuple[Join, ...] = get_args(Join)
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class StepTimeForm:
    """Costs in seconds per unit, all finite and >= 0; the fields before `join` are the columns of `features`."""

    fixed_s: float
    weight_read_s: float = 0.0
    s_per_token: float = 0.0
    s_per_attn_pair: float = 0.0
    s_per_prefill_kv_token: float = 0.0
    s_per_decode_kv_token: float = 0.0
    s_per_decode_kv_max_token: float = 0.0
    s_per_prefill_seq: float = 0.0
    s_per_decode_seq: float = 0.0
    join: Join = "max"
    scope: Scope = "linear"

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass in seconds."""
        compute = self.s_per_token * (work.prefill_tokens + work.decode_tokens)
        pairs = work.prefill_attn_pairs * self.s_per_attn_pair
        context = (
            work.prefill_kv_tokens * self.s_per_prefill_kv_token
            + work.decode_kv_tokens * self.s_per_decode_kv_token
            + work.decode_kv_max * self.s_per_decode_kv_max_token
        )
        if self.scope == "whole":
            return self._outside(work) + joined(self.weight_read_s + context, compute + pairs, self.join)
        return self._outside(work) + joined(self.weight_read_s, compute, self.join) + pairs + context

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` consecutive decode passes: the operations of `seconds` in their order, so the same floats."""
        step = np.arange(k, dtype=np.float64)
        compute = self.s_per_token * (work.prefill_tokens + work.decode_tokens)
        pairs = work.prefill_attn_pairs * self.s_per_attn_pair
        context = (
            work.prefill_kv_tokens * self.s_per_prefill_kv_token
            + (work.decode_kv_tokens + step * work.num_decode_seqs) * self.s_per_decode_kv_token
            + (work.decode_kv_max + step) * self.s_per_decode_kv_max_token
        )
        if self.scope == "whole":
            return self._outside(work) + _joined_arrays(self.weight_read_s + context, compute + pairs, self.join)
        return self._outside(work) + joined(self.weight_read_s, compute, self.join) + pairs + context

    def _outside(self, work: BatchWork) -> float:
        return (
            self.fixed_s
            + work.num_prefill_seqs * self.s_per_prefill_seq
            + work.num_decode_seqs * self.s_per_decode_seq
        )  # fmt: skip

    @property
    def costs(self) -> dict[str, float]:
        """The costs by name, in the order of `TERMS`."""
        return {name: getattr(self, name) for name in TERMS}


TERMS: tuple[str, ...] = tuple(field.name for field in fields(StepTimeForm))[:-2]
_MEMORY = {
    "linear": np.array([name == "weight_read_s" for name in TERMS]),
    "whole": np.array([name == "weight_read_s" or "_kv_" in name for name in TERMS]),
}
_COMPUTE = {
    "linear": np.array([name == "s_per_token" for name in TERMS]),
    "whole": np.array([name in ("s_per_token", "s_per_attn_pair") for name in TERMS]),
}


def form_of(costs: FloatArray, join: Join, scope: Scope) -> StepTimeForm:
    """The form with these costs, shape (terms,)."""
    by_name: dict[str, float] = dict(zip(TERMS, map(float, costs), strict=True))
    return StepTimeForm(join=join, scope=scope, **by_name)


def joined(memory_s: float, compute_s: float, join: Join) -> float:
    """Time of two resources used in one pass, in seconds.

    Built of products, sums and square roots only: these round correctly, so scalars and arrays agree to the last bit
    and the result never decreases.
    """
    if join == "max":
        return memory_s if memory_s > compute_s else compute_s
    if join == "sum":
        return memory_s + compute_s
    memory, compute = memory_s * memory_s, compute_s * compute_s
    if join == "root2":
        return sqrt(memory + compute)
    return sqrt(sqrt(memory * memory + compute * compute))


def _joined_arrays(memory_s: FloatArray, compute_s: float, join: Join) -> FloatArray:
    if join == "max":
        return np.maximum(memory_s, compute_s)
    if join == "sum":
        return memory_s + compute_s
    memory, compute = memory_s * memory_s, compute_s * compute_s
    if join == "root2":
        return np.sqrt(memory + compute)
    return np.sqrt(np.sqrt(memory * memory + compute * compute))


def features(columns: dict[str, FloatArray]) -> FloatArray:
    """The amounts that the costs multiply: shape (rows, len(TERMS)), from columns named as `BatchWork`'s fields."""
    one = np.ones_like(columns["prefill_tokens"])
    tokens = columns["prefill_tokens"] + columns["decode_tokens"]
    direct = ("prefill_attn_pairs", "prefill_kv_tokens", "decode_kv_tokens", "decode_kv_max", "num_prefill_seqs",
              "num_decode_seqs")  # fmt: skip
    return np.column_stack([one, one, tokens, *(columns[name] for name in direct)])


def predict(amounts: FloatArray, costs: FloatArray, join: Join, scope: Scope) -> FloatArray:
    """Seconds of every row of `features`, shape (rows,)."""
    return slopes(amounts, costs, join, scope) @ costs


def slopes(amounts: FloatArray, costs: FloatArray, join: Join, scope: Scope) -> FloatArray:
    """Derivative of every row's seconds by every cost, shape (rows, terms).

    `slopes(...) @ costs` is the time itself, because the form is homogeneous of degree one (Euler's theorem).
    """
    result = amounts.copy()
    if join == "sum":
        return result
    in_memory, in_compute = _MEMORY[scope], _COMPUTE[scope]
    memory, compute = amounts[:, in_memory] @ costs[in_memory], amounts[:, in_compute] @ costs[in_compute]
    larger = np.maximum(np.maximum(memory, compute), 1e-300)
    memory, compute = memory / larger, compute / larger
    if join == "max":
        of_memory = np.where(memory >= compute, 1.0, 0.0)
        of_compute = 1.0 - of_memory
    else:
        power = 2.0 if join == "root2" else 4.0
        norm = np.maximum((memory**power + compute**power) ** (1.0 / power), 1e-300)
        of_memory, of_compute = (memory / norm) ** (power - 1.0), (compute / norm) ** (power - 1.0)
    result[:, in_memory] *= of_memory[:, None]
    result[:, in_compute] *= of_compute[:, None]
    return result
