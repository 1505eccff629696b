"""What the engine gives back: of a step, of a request that ended, of one whose text is streamed."""

from dataclasses import dataclass
from typing import Literal

from engine.core.batch import Batch
from engine.core.records import EAGER, StepKind
from engine.core.request import Request

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True)
class StepTimings:
    """Seconds that the phases of one step took; what else the step did is bookkeeping.

    Where the device works on by itself, scheduling and preparing (then those of the step after) pass while it computes,
    and sampling is part of its own time: `sample_s` is NaN.
    """

    schedule_s: float
    prepare_s: float
    device_s: float
    sample_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that ended. `text` is without end tokens and stop string, empty where the engine has no tokenizer."""

    request: Request
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did: its batch, the phases' times, each new token by request, who ended, and how it was run."""

    batch: Batch
    timings: StepTimings
    tokens: dict[Request, int]
    completions: tuple[Completion, ...]
    kind: StepKind = EAGER

    @property
    def finished(self) -> tuple[tuple[Request, FinishReason], ...]:
        """Who ended, and why."""
        return tuple((completion.request, completion.finish_reason) for completion in self.completions)


@dataclass(frozen=True, slots=True)
class StreamPart:
    """New text of a streamed request, after `num_tokens` tokens in all; the last part has the finish reason."""

    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None
