"""The parts of one forward pass: what each computes, moves and takes, and which roof it stands under."""

from dataclasses import dataclass

_FIXED_BOUND = {"communication": "link", "overhead": "launch"}


@dataclass(frozen=True, slots=True)
class Term:
    """One operator of a pass on one rank, over all layers that have it.

    `seconds` is the larger roof, plus the starts of its work items where it is an attention.
    """

    name: str
    seconds: float
    flops: float = 0.0
    bytes: float = 0.0  # of memory traffic; of link traffic for communication
    math_s: float = 0.0
    memory_s: float = 0.0
    dtype: str = ""  # of its operands

    @property
    def bound(self) -> str:
        """What the part waits for: compute, memory, link or launch."""
        if self.name in _FIXED_BOUND:
            return _FIXED_BOUND[self.name]
        return "compute" if self.math_s > self.memory_s else "memory"

    @property
    def flop_per_byte(self) -> float | None:
        """Arithmetic intensity; None for what computes or moves nothing."""
        return self.flops / self.bytes if self.flops and self.bytes else None

    def times(self, count: int) -> "Term":
        """The same term `count` times over, as the micro-batches of a pipeline need it."""
        if count == 1:
            return self
        return Term(
            self.name, count * self.seconds, count * self.flops, count * self.bytes, count * self.math_s,
            count * self.memory_s, self.dtype,
        )  # fmt: skip


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
    def bound_seconds(self) -> dict[str, float]:
        """Time by what the parts wait for."""
        seconds: dict[str, float] = {}
        for term in self.terms:
            seconds[term.bound] = seconds.get(term.bound, 0.0) + term.seconds
        return seconds

    @property
    def bound(self) -> str:
        """The roof under which most of the time is spent."""
        seconds = self.bound_seconds
        return max(seconds, key=seconds.__getitem__)
