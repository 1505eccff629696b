"""Steps with a known truth: compositions as a scheduler makes them, times from a form, noise on top."""

import numpy as np
import pandas as pd

from calibration.form import StepTimeForm
from calibration.measurements import WORK_COLUMNS, Measurements, from_table
from roofline.step_time import BatchWork, chunk_attn_pairs

# About a 7B model on a large GPU: 4 ms of weights, 20 us a token, 262 kB of KV a token at 3 TB/s.
TRUTH = StepTimeForm(
    fixed_s=1e-3,
    weight_read_s=4e-3,
    s_per_token=2e-5,
    s_per_attn_pair=1e-9,
    s_per_decode_kv_token=6e-8,
    s_per_decode_seq=1.5e-5,
    join="max",
    scope="linear",
)


def random_works(count: int, rng: np.random.Generator) -> list[BatchWork]:
    """Two thirds pure decodes, the rest chunks with and without decodes beside them."""
    works = []
    for _ in range(count):
        seqs, chunks = int(2 ** rng.uniform(0, 7)), 0 if rng.random() < 0.66 else int(rng.integers(1, 4))
        if chunks and rng.random() < 0.3:
            seqs = 0
        usual = int(2 ** rng.uniform(5, 12))  # one typical context a step, or batch and context would go together
        contexts = rng.integers(usual // 2, 2 * usual, size=seqs)
        lengths, cached = (2 ** rng.uniform(3, 11, size=chunks)).astype(int), rng.integers(0, 4096, size=chunks)
        works.append(
            BatchWork(
                num_prefill_seqs=chunks,
                prefill_tokens=int(lengths.sum()),
                prefill_kv_tokens=int(cached.sum()),
                prefill_attn_pairs=sum(chunk_attn_pairs(int(n), int(c)) for n, c in zip(lengths, cached, strict=True)),
                num_decode_seqs=seqs,
                decode_tokens=seqs,
                decode_kv_tokens=int(contexts.sum()),
                decode_kv_max=int(contexts.max(initial=0)),
            )
        )
    return works


def steps_table(count: int, seed: int = 0, noise: float = 0.02, truth: StepTimeForm = TRUTH) -> pd.DataFrame:
    """A `steps` table whose wall times are the truth's, times lognormal noise of mean one."""
    rng = np.random.default_rng(seed)
    works = random_works(count, rng)
    factor = np.exp(rng.normal(-(noise**2) / 2, noise, size=count))
    rows = [{name: getattr(work, name) for name in WORK_COLUMNS} for work in works]
    wall_s = np.array([truth.seconds(work) for work in works]) * factor
    return pd.DataFrame(rows).assign(wall_s=wall_s)


def measured(count: int, seed: int = 0, noise: float = 0.02, truth: StepTimeForm = TRUTH) -> Measurements:
    """The same as measurements."""
    return from_table(steps_table(count, seed, noise, truth))
