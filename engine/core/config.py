"""The scheduler's settings, under vLLM's names: the engine and the simulator read the same object."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from roofline.errors import InputError

Policy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the continuous-batching policy may spend in a step and in memory.

    `num_blocks` counts the reserved null block as vLLM does: `num_blocks - 1` are usable. A
    `long_prefill_token_threshold` of 0 leaves chunks limited by the token budget alone. `watermark` is the fraction of
    all blocks kept free when a waiting request is admitted beside running ones. `num_lookahead_tokens` are KV slots
    reserved beyond each decoding sequence (draft models that write KV ahead need them).
    """

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 8192
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    async_scheduling: bool = False
    policy: Policy = "fcfs"
    watermark: float = 0.0
    num_lookahead_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.num_blocks < 2:
            raise InputError(f"num_blocks is {self.num_blocks}; it must be at least 2 (one block is reserved as null).")
        for name in ("long_prefill_token_threshold", "num_lookahead_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not 0 <= self.watermark < 1:
            raise InputError(f"watermark is {self.watermark}; it is a fraction from 0 up to, not including, 1.")
        if self.policy not in ("fcfs", "priority"):
            raise InputError(f"policy is {self.policy!r}; choose fcfs or priority.")
        self._check_budget()

    def _check_budget(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, below max_num_seqs {self.max_num_seqs}: a "
                "step could not decode every running sequence. Raise the former or lower the latter."
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise InputError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, below max_model_len {self.max_model_len}: "
                "without chunked prefill a long prompt would wait forever. Raise it, or enable chunked prefill."
            )

    @property
    def usable_blocks(self) -> int:
        """Blocks that requests can own."""
        return self.num_blocks - 1

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens of KV cache that requests can own together."""
        return self.usable_blocks * self.block_size

    def as_dict(self) -> dict[str, Any]:
        """The settings as they stand in a trace's `meta.json`."""
        return asdict(self)
