"""What a roofline expects of each cost, for the terms that a measurement leaves open.

Few rows, or rows without long prompts, cannot tell the cost of a query-key pair; leaving it at zero made one published
simulator 17 % optimistic on long prompts. So a fit may lean on any `StepTimeModel`: it is asked for the time of a grid
of passes, the same physical form is fitted to the answers, and the costs, scaled to the measurements' own speed, become
weak expectations.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from calibration.form import TERMS, predict
from calibration.measurements import Measurements, from_works
from calibration.solve import Problem, solve
from roofline.step_time import BatchWork, FloatArray, StepTimeModel, chunk_attn_pairs

PREFILL_SIDE = np.array([name in ("s_per_token", "s_per_attn_pair", "s_per_prefill_seq") for name in TERMS])


def prior_costs(model: StepTimeModel, measurements: Measurements, active: NDArray[np.bool_]) -> FloatArray:
    """Expected costs, shape (terms,): the model's, scaled to the measured speed of prefill and of decode passes."""
    works = _probes()
    probes = from_works(works, np.array([model.seconds(work) for work in works]))
    costs = solve(Problem(probes.amounts, probes.seconds, probes.regions, active, "max", "linear"))
    ratio = measurements.seconds / np.maximum(predict(measurements.amounts, costs, "max", "linear"), 1e-12)
    decode = measurements.regions == 0
    of_decode = float(np.median(ratio[decode])) if decode.any() else float(np.median(ratio))
    of_prefill = float(np.median(ratio[~decode])) if not decode.all() else of_decode
    return np.where(PREFILL_SIDE, of_prefill, of_decode) * costs


def _probes() -> list[BatchWork]:
    """Passes from one token to a full budget, with short and long contexts."""
    works = []
    for seqs, context in itertools.product((1, 4, 16, 64, 256), (64, 512, 4096, 16384)):
        works.append(
            BatchWork(
                num_decode_seqs=seqs, decode_tokens=seqs, decode_kv_tokens=seqs * context, decode_kv_max=context
            )
        )
    for tokens, cached in itertools.product((64, 512, 2048, 8192), (0, 2048, 16384)):
        works.append(
            BatchWork(
                num_prefill_seqs=1,
                prefill_tokens=tokens,
                prefill_kv_tokens=cached,
                prefill_attn_pairs=chunk_attn_pairs(tokens, cached),
            )
        )
    return works
