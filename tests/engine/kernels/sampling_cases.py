"""One set-up for drawing, on a CPU, under the interpreter and on a GPU; and an oracle that sorts."""

import numpy as np
import torch

from engine.kernels.sampling import Filters, sample, uniforms
from engine.kernels.sampling_kernels import DEFAULT, Columns, launch

# A mass is a float32 sum of up to some hundred thousand terms; the oracle's is float64.
MASS_ERROR = 2e-5


def settings(rows, seed=0):
    """Filters of every kind and none, greedy rows among them; seeds and positions."""
    rng = np.random.default_rng(seed)
    temperature = rng.choice([0.0, 0.3, 1.0, 3.0], rows, p=[0.1, 0.3, 0.3, 0.3])
    top_k = rng.choice([0, 1, 2, 7, 40, 10**6], rows, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    top_p = np.where(rng.random(rows) < 0.5, 1.0, rng.uniform(0.05, 1, rows))
    min_p = np.where(rng.random(rows) < 0.6, 0.0, rng.uniform(0, 1, rows) ** 3)
    columns = (torch.from_numpy(column.astype(np.float32)) for column in (temperature, top_p, min_p))
    temperature, top_p, min_p = columns
    filters = Filters(temperature, torch.from_numpy(top_k.astype(np.int32)), top_p, min_p)
    return filters, torch.from_numpy(rng.integers(0, 2**63 - 1, rows)), torch.from_numpy(rng.integers(0, 9999, rows))


def random_logits(rows, vocabulary, dtype, seed=0):
    """Logits of which bfloat16 leaves many alike; some tokens are impossible."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 3
    logits[torch.rand(rows, vocabulary, generator=generator) < 0.05] = -torch.inf
    logits[:, vocabulary // 2] = 0.5  # never is everything impossible
    return logits.to(dtype)


def kept_masses(logits, temperature, top_k, top_p, min_p):
    """[vocabulary] float64: probability of each token that all filters keep, 0 of the others; by sorting."""
    masses = torch.softmax(logits.double() / temperature, -1)
    masses = torch.where(masses >= min_p * masses.max(), masses, 0)
    for reach in (lambda ordered: top_k or len(ordered), lambda ordered: count_until(ordered, top_p)):
        ordered = masses.sort(descending=True).values
        masses = torch.where(masses >= ordered[min(reach(ordered), len(ordered)) - 1], masses, 0)
    return masses / masses.sum()


def count_until(ordered, top_p):
    """How many of the largest masses hold that share of all."""
    if top_p >= 1:
        return len(ordered)
    return int((ordered.cumsum(0) < top_p * ordered.sum()).sum()) + 1


def assert_drawn(tokens, logits, filters, seeds, positions):
    """Each token is where its row's number falls in the kept distribution, by the oracle."""
    numbers = uniforms(seeds.numpy().view(np.uint64), positions.numpy())
    for row, token in enumerate(tokens.tolist()):
        temperature, top_k, top_p, min_p = (column[row].item() for column in filters)
        x = logits[row].float()
        if temperature == 0:
            assert token == int(np.argmax(x.numpy())), f"row {row}: {token} is not the first likeliest token"
            continue
        # A filter's edge may fall to either side by rounding.
        edges = ((min(top_p * factor, 1.0) if top_p < 1 else 1.0, min_p * factor) for factor in (1, 1 - 2e-6, 1 + 2e-6))
        fits = (number_fits(token, kept_masses(x, temperature, top_k, *edge), numbers[row]) for edge in edges)
        assert any(fits), (
            f"row {row}: token {token} of {x.numel()}, {numbers[row]=}, {temperature=} {top_k=} {top_p=} {min_p=}"
        )


def number_fits(token, masses, number):
    """Whether the number falls on the token, or within rounding of it."""
    reached = masses.cumsum(0)
    begin = reached[token] - masses[token]
    return masses[token] > 0 and begin - MASS_ERROR <= number <= reached[token] + MASS_ERROR


def run(device, logits, filters, seeds, positions, sizes=DEFAULT):
    """Tokens by the kernels, back on the CPU."""
    columns = Columns(*(column.to(device) for column in (*filters, seeds, positions)))
    return launch(logits.to(device), columns, sizes).cpu()


def check_sampling(device, rows, vocabulary, dtype, sizes=DEFAULT):
    """Kernels and reference both draw what the oracle says, and so the same."""
    logits, drawn = random_logits(rows, vocabulary, dtype), settings(rows)
    for tokens in (run(device, logits, *drawn, sizes), sample(logits, *drawn)):
        assert tokens.dtype == torch.int64 and tokens.shape == (rows,)
        assert_drawn(tokens, logits, *drawn)
