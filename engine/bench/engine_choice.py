"""Which engine a bench measures, loaded once: model, device, number format, real or random weights, settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline import console

if TYPE_CHECKING:
    from engine.serving.llm import LLM

_OWN = ("model", "threads")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What `LLM.load` is told besides the scheduler's settings; None: what suits the device."""

    model: str
    device: str | None = None
    dtype: str | None = None
    load_format: str | None = None
    threads: int | None = None

    def load(self, settings: Mapping[str, Any]) -> "LLM":
        """The engine, ready to step; settings that are None are left to it."""
        from engine.serving.llm import LLM

        told = asdict(self) | {"num_threads": self.threads}
        given = {name: value for name, value in {**told, **settings}.items() if name not in _OWN and value is not None}
        with console.err.status(f"Loading {Path(self.model).name} ..."):
            return LLM.load(self.model, **given)

    def as_dict(self) -> dict[str, Any]:
        """For a result's settings."""
        return asdict(self)
