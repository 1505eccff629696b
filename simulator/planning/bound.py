"""What a forward pass waits for: the largest part of its time, as the step-time model itself divides it."""

from calibration.fitted import FittedStepTime
from calibration.form import StepTimeForm
from roofline.analytic import AnalyticStepTime
from roofline.step_time import BatchWork, StepTimeModel
from simulator.fleet.scaled import ScaledStepTime

_NAMES = {"compute": "compute", "memory": "memory_bandwidth", "link": "link", "launch": "overhead"}


def probe(model: StepTimeModel, work: BatchWork) -> tuple[str | None, bool]:
    """What the pass waits for, and whether its time is within the range that was measured (arithmetic has none)."""
    inner = model.model if isinstance(model, ScaledStepTime) else model
    return bound_of(inner, work), not isinstance(inner, FittedStepTime) or inner.in_range(work)


def bound_of(model: StepTimeModel, work: BatchWork) -> str | None:
    """compute, memory_bandwidth, link or overhead; None where the model does not divide its time."""
    match model:
        case AnalyticStepTime():
            return _NAMES[model.breakdown(work).bound]
        case FittedStepTime():
            return _largest_part(model.form, work)
        case _:
            return None


def _largest_part(form: StepTimeForm, work: BatchWork) -> str:
    memory_s = (
        form.weight_read_s
        + work.prefill_kv_tokens * form.s_per_prefill_kv_token
        + work.decode_kv_tokens * form.s_per_decode_kv_token
        + work.decode_kv_max * form.s_per_decode_kv_max_token
    )
    parts_s = {
        "compute": work.num_tokens * form.s_per_token + work.prefill_attn_pairs * form.s_per_attn_pair,
        "memory_bandwidth": memory_s,
        "overhead": form.fixed_s
        + work.num_prefill_seqs * form.s_per_prefill_seq
        + work.num_decode_seqs * form.s_per_decode_seq,
    }
    return max(parts_s, key=parts_s.__getitem__)
