"""What every command that runs an engine does around the run: ceilings, shares of them, sentences."""

from typing import TYPE_CHECKING

from engine.core.trace import Trace
from roofline import console

if TYPE_CHECKING:
    from engine.bench.attainment import Shares
    from engine.bench.machine import Machine
    from engine.serving.llm import LLM


def machine_of(llm: "LLM") -> "Machine":
    """The machine that serves the model, its ceilings measured now."""
    from engine.bench.machine import measure_machine
    from engine.bench.meta import weight_dtype

    with console.err.status("Measuring this machine ..."):
        return measure_machine([weight_dtype(llm)], llm.model.weights.device)


def shares_of(trace: Trace, llm: "LLM", machine: "Machine") -> "Shares | None":
    """How close the trace's steps came to the ceilings; None without steps."""
    from engine.bench.attainment import shares
    from engine.bench.meta import served_model

    return shares(trace.steps, served_model(llm), machine)


def print_sentences(sentences: list[str]) -> None:
    """One a line, as they are."""
    for sentence in sentences:
        console.out.print(sentence, highlight=False, soft_wrap=True, markup=False)
