"""What a roofline expects of each cost, for the terms that a measurement leaves open.

Few rows, or rows without long prompts, cannot tell the cost of a query-key pair; at zero, a measured engine's time per
token on prompts of 4k came out 17 % too short. So a fit may lean on any `StepTimeModel`: it is asked for the time of a
grid of passes, the same physical form is fitted to the answers, and the costs, scaled to the measurements' own speed,
become weak expectations.
"""

import itertools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.form import TERMS, predict
from calibration.measurements import Measurements, from_works, identity
from calibration.solve import Problem, solve
from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape
from roofline.parallelism import Parallelism
from roofline.step_time import BatchWork, FloatArray, StepTimeModel, chunk_attn_pairs

PREFILL_SIDE = np.array([name in ("s_per_token", "s_per_attn_pair") for name in TERMS])
# A roofline knows what the resources cost; of an engine's overheads (fixed, per sequence) it knows next to nothing.
DECODE_SIDE = np.array([name in ("weight_read_s", "s_per_decode_kv_token") for name in TERMS])
# Only the ratios of an unknown accelerator's costs come from the roofline, and these are alike from one to the next.
REFERENCE_ACCELERATOR = "H100"


def prior_costs(model: StepTimeModel, measurements: Measurements, active: NDArray[np.bool_]) -> FloatArray:
    """Expected costs, shape (terms,), NaN where nothing is expected.

    The model's costs, scaled to the measured speed of passes with prefill and of pure decodes.
    """
    works = _probes()
    probes = from_works(works, np.array([model.seconds(work) for work in works]))
    costs = solve(Problem(probes.amounts, probes.seconds, probes.regions, active, "max", "linear"))
    ratio = measurements.seconds / np.maximum(predict(measurements.amounts, costs, "max", "linear"), 1e-12)
    decode = measurements.regions == 0
    of_decode = float(np.median(ratio[decode])) if decode.any() else float(np.median(ratio))
    of_prefill = float(np.median(ratio[~decode])) if not decode.all() else of_decode
    return np.where(PREFILL_SIDE, of_prefill * costs, np.where(DECODE_SIDE, of_decode * costs, np.nan))


def roofline_of(meta: Mapping[str, Any], model: str | None = None, gpu: str | None = None) -> AnalyticStepTime | None:
    """The roofline of what a trace was measured on; None where the model's shape is known neither to it nor to us.

    `model` and `gpu` say what `meta` does not; InputError for names that the catalogue does not have.
    """
    shape = load_model_shape(model) if model else _shape_in(meta)
    if shape is None:
        return None
    hardware = accelerator(gpu) if gpu else _hardware_in(meta)
    degree = identity(meta)["tensor_parallel"]
    split = Parallelism(int(degree or 1))
    return AnalyticStepTime(shape, hardware, Efficiency.prior(hardware), parallelism=split)


def _shape_in(meta: Mapping[str, Any]) -> ModelShape | None:
    """The shape that `meta` spells out, or the catalogue's of that name."""
    told = meta.get("model")
    if isinstance(told, Mapping):
        told_shape = told.get("shape", told)
        known = {f.name for f in fields(ModelShape)} - {"rope_scaling"}  # which moves no FLOP and no byte
        values = {key: value for key, value in {"name": told.get("name", ""), **told_shape}.items() if key in known}
        try:
            return ModelShape.from_dict(values)
        except TypeError:  # the shape is not there in full: the name may say more
            pass
    name = identity(meta)["model"]
    try:
        return ModelShape.from_catalogue(str(name)) if name else None
    except InputError:
        return None


def _hardware_in(meta: Mapping[str, Any]) -> HardwareSpec:
    name = identity(meta)["hardware"]
    try:
        return accelerator(str(name))
    except InputError:
        return accelerator(REFERENCE_ACCELERATOR)


def _probes() -> list[BatchWork]:
    """Passes from one token to a full budget, with short and long contexts."""
    works = []
    for seqs, context in itertools.product((1, 4, 16, 64, 256), (64, 512, 4096, 16384)):
        works.append(
            BatchWork(num_decode_seqs=seqs, decode_tokens=seqs, decode_kv_tokens=seqs * context, decode_kv_max=context)
        )
    for tokens, cached in itertools.product((64, 512, 2048, 8192), (0, 2048, 16384)):
        pairs = chunk_attn_pairs(tokens, cached)
        works.append(
            BatchWork(num_prefill_seqs=1, prefill_tokens=tokens, prefill_kv_tokens=cached, prefill_attn_pairs=pairs)
        )
    return works
