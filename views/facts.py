"""What is known before anything is simulated: what fits on a GPU, and how long a pass takes at the roof."""

from dataclasses import dataclass

import streamlit as st

from roofline.analytic import AnalyticStepTime
from roofline.fitting import fitting_plan
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.memory import MemoryPlan
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape
from roofline.parallelism import Parallelism
from roofline.step_time import BatchWork, chunk_attn_pairs
from simulator.deployment import memory_layout
from simulator.scenario import Scenario
from views import words
from views.cards import Card, draw_cards


@dataclass(frozen=True, slots=True)
class Facts:
    """Arithmetic on datasheet figures alone; nothing queues here."""

    shape: ModelShape
    hardware: HardwareSpec
    memory: MemoryPlan  # of each GPU
    step_time: AnalyticStepTime

    def prefill_s(self, prompt_tokens: int) -> float:
        """Computing a prompt of that length alone, in one pass: a first token comes no sooner."""
        pairs = chunk_attn_pairs(prompt_tokens, 0)
        return self.step_time.seconds(
            BatchWork(num_prefill_seqs=1, prefill_tokens=prompt_tokens, prefill_attn_pairs=pairs)
        )

    def token_s(self, context_tokens: int) -> float:
        """One more token of a single answer with that much before it: with other answers beside it, it takes longer."""
        return self.step_time.seconds(
            BatchWork(num_decode_seqs=1, decode_tokens=1, decode_kv_tokens=context_tokens, decode_kv_max=context_tokens)
        )


def facts_of(scenario: Scenario) -> Facts:
    """Raises `HeadroomError` where the model does not fit its GPUs, with the nearest change that makes it fit."""
    shape = load_model_shape(scenario.model)
    hardware = accelerator(scenario.hardware.accelerator, scenario.hardware.catalogue)
    efficiency = Efficiency.prior(hardware)
    split = Parallelism(scenario.parallelism.tensor)
    memory = fitting_plan(shape, hardware, efficiency, memory_layout(scenario))
    step_time = AnalyticStepTime(shape, hardware, efficiency, scenario.weight_dtype, scenario.kv_dtype, split)
    return Facts(shape, hardware, memory, step_time)


def draw(facts: Facts, prompt_tokens: int | None, output_tokens: int | None) -> None:
    """One row of cards; the lengths are means, None where a recording brings its own."""
    memory, name = facts.memory, facts.hardware.name
    share = f"{memory.kv_bytes / memory.memory_bytes:.0%} of each {name}"
    taken = f"weights take {words.gigabytes(memory.weight_bytes)}, the rest {words.gigabytes(memory.other_bytes)}"
    cards = [Card("KV cache tokens, replica", words.big(memory.kv_tokens), f"{share}; {taken}")]
    if prompt_tokens is not None and output_tokens is not None:
        length = prompt_tokens + output_tokens
        context = prompt_tokens + output_tokens // 2
        room = f"{memory.max_sequences(length):,}"
        cards += [
            Card("Fit at once, replica", room, f"requests of {length:,} tokens, prompt and answer"),
            Card("Mean prompt, alone", words.seconds(facts.prefill_s(prompt_tokens)), "its TTFT is not shorter"),
            Card("One token, alone", words.seconds(facts.token_s(context)), "a TPOT is not shorter"),
        ]
    st.markdown("##### Before any simulation")
    draw_cards(cards, "facts")
    st.caption(f"Arithmetic on the datasheet of the {name} and on usual efficiencies; nothing queues here.")
