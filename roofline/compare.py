"""Accelerators side by side: what a million tokens costs on each where nothing queues and nothing idles.

A replica computes each prompt in one pass, alone, and its answers at the largest batch whose cache fits (and whose time
per token keeps a target, where one is given). That is the roof of a service: it is always busy, a real one costs more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from roofline.analytic import AnalyticStepTime
from roofline.errors import CapacityError, InfeasibleError, InputError
from roofline.formats import format_name
from roofline.hardware import Efficiency, HardwareSpec
from roofline.memory import MemoryLayout, memory_plan, stored_formats
from roofline.model_shape import ModelShape
from roofline.parallelism import Parallelism, degrees
from roofline.step_time import BatchWork, chunk_attn_pairs

DEGREES = (1, 2, 4, 8, 16, 32)  # tensor-parallel degrees that are tried
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Service:
    """What is served: lengths of prompt and answer in tokens, formats, and what bounds the batch."""

    prompt_tokens: int = 1024
    answer_tokens: int = 256
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    max_batch: int = 1024
    tpot_s: float | None = None  # no batch takes longer a token

    def __post_init__(self) -> None:
        """Refuse lengths and limits that mean nothing, and formats that are not known."""
        for name in ("prompt_tokens", "answer_tokens", "max_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.tpot_s is not None and not self.tpot_s > 0:
            raise InputError(f"time per output token is {self.tpot_s} s; it must be positive.")
        format_name(self.weight_dtype), format_name(self.kv_dtype)

    def decode_work(self, batch: int) -> BatchWork:
        """One step of so many answers, half of each written."""
        context = self.prompt_tokens + self.answer_tokens // 2
        return BatchWork(
            num_decode_seqs=batch, decode_tokens=batch, decode_kv_tokens=batch * context, decode_kv_max=context
        )

    @property
    def prefill_work(self) -> BatchWork:
        """A whole prompt in one pass."""
        pairs = chunk_attn_pairs(self.prompt_tokens, 0)
        return BatchWork(num_prefill_seqs=1, prefill_tokens=self.prompt_tokens, prefill_attn_pairs=pairs)


@dataclass(frozen=True, slots=True)
class RoofCost:
    """One replica of a service at its roof, and the dollars of its accelerators."""

    accelerator: str
    tensor_parallel: int
    batch: int
    prefill_s: float
    tpot_s: float
    bound: str  # of the decode step
    usd_per_accelerator_hour: float
    prompt_tokens: int
    answer_tokens: int

    @property
    def seconds_per_request(self) -> float:
        """Time of the replica that one request takes: its prompt alone, its share of the steps of its answer."""
        return self.prefill_s + self.answer_tokens * self.tpot_s / self.batch

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second and accelerator, prompts included in the time."""
        return self.answer_tokens / self.seconds_per_request / self.tensor_parallel

    @property
    def usd_per_million_input_tokens(self) -> float:
        """Prompts alone."""
        return self._usd(self.prefill_s / self.prompt_tokens) * 1e6

    @property
    def usd_per_million_output_tokens(self) -> float:
        """Answers alone."""
        return self._usd(self.tpot_s / self.batch) * 1e6

    @property
    def usd_per_million_tokens(self) -> float:
        """Both, over the tokens of both."""
        return self._usd(self.seconds_per_request / (self.prompt_tokens + self.answer_tokens)) * 1e6

    def _usd(self, replica_s: float) -> float:
        return replica_s * self.tensor_parallel * self.usd_per_accelerator_hour / SECONDS_PER_HOUR


def roof_cost(shape: ModelShape, service: Service, estimate: AnalyticStepTime, usd_per_hour: float) -> RoofCost:
    """One replica at its largest batch.

    Raises `CapacityError` where no request fits the replica's memory, `InfeasibleError` where even one answer alone
    takes longer a token than the target.
    """
    batch = min(service.max_batch, _fitting_batch(shape, service, estimate))
    if batch < 1:
        raise CapacityError(
            f"{shape.name} with one request of {service.prompt_tokens + service.answer_tokens} tokens does not fit "
            f"{estimate.parallelism.accelerators} x {estimate.hardware.name}; use more of them, or narrower formats."
        )
    batch = _within_target(service, estimate, batch)
    parts = estimate.breakdown(service.decode_work(batch))
    return RoofCost(
        estimate.hardware.name, estimate.parallelism.tensor, batch, estimate.seconds(service.prefill_work),
        parts.seconds, parts.bound, usd_per_hour, service.prompt_tokens, service.answer_tokens,
    )  # fmt: skip


def cheapest_replica(
    shape: ModelShape, service: Service, hardware: HardwareSpec, efficiency: Efficiency, usd_per_hour: float
) -> RoofCost:
    """The tensor-parallel degree with the cheapest tokens; raises as `roof_cost` does where none will do."""
    found, refused = [], []
    for degree in _degrees(shape, hardware):
        try:
            estimate = AnalyticStepTime(
                shape, hardware, efficiency, service.weight_dtype, service.kv_dtype, Parallelism(degree)
            )
            found.append(roof_cost(shape, service, estimate, usd_per_hour))
        except (CapacityError, InfeasibleError) as error:
            refused.append(error)
    if not found:
        raise refused[-1]
    return min(found, key=lambda cost: cost.usd_per_million_tokens)


def _degrees(shape: ModelShape, hardware: HardwareSpec) -> Iterable[int]:
    possible = degrees(shape)
    return [n for n in DEGREES if n in possible and (n == 1 or hardware.link_bytes_per_s)]


def _fitting_batch(shape: ModelShape, service: Service, estimate: AnalyticStepTime) -> int:
    weight_dtype, scope, kv_dtype = stored_formats(shape, service.weight_dtype, service.kv_dtype)
    layout = MemoryLayout(weight_dtype, kv_dtype, estimate.parallelism, scope=scope)
    plan = memory_plan(shape, estimate.hardware, Efficiency.prior(estimate.hardware), layout)
    return plan.max_sequences(service.prompt_tokens + service.answer_tokens)


def _within_target(service: Service, estimate: AnalyticStepTime, most: int) -> int:
    """The largest batch of at most `most` that keeps the target: time never falls with the batch, so by bisection."""
    target_s = service.tpot_s
    if target_s is None or estimate.seconds(service.decode_work(most)) <= target_s:
        return most
    alone_s = estimate.seconds(service.decode_work(1))
    if alone_s > target_s:
        raise InfeasibleError(
            f"one answer alone takes {alone_s * 1e3:.1f} ms a token on {estimate.parallelism.accelerators} x "
            f"{estimate.hardware.name}, and the target is {target_s * 1e3:g} ms; raise it, or use more accelerators."
        )
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate.seconds(service.decode_work(middle)) <= target_s else (low, middle)
    return low
