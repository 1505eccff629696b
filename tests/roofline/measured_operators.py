"""The arithmetic of single operators against published kernel times: `python -m tests.roofline.measured_operators`.

For every class of operator (a kernel of one number format on one accelerator) two errors, each the median of
|predicted / measured - 1| over the rows above 20 us: with datasheet ceilings and nothing else, and with one fitted
efficiency, a factor on both ceilings. Beside that factor stand only what is read off or assumed beforehand: the launch,
which is what the fastest hundredth of the class takes beyond the datasheet, and the priors of attention's work items.

A launch above 20 us is the host's: those tables were measured without graphs, and the device runs behind the host.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roofline.communication import Group, Link, all_reduce_s
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.model_shape import ModelShape
from roofline.operators import Attention, gemm
from roofline.parallelism import Parallelism, RankShare
from roofline.step_time import BatchWork

MEASURED = Path(__file__).parents[2] / "../shared/data/measured"
H100_TABLES = MEASURED / "aiconfigurator_h100_vllm0.24_ops"
PROFILES = MEASURED / "llmservingsim_opprofile"
FLOOR_S = 20e-6  # shorter kernels are mostly launch
ITEM_S, TILE_ROWS = Efficiency().attention_item_s, Efficiency().attention_tile_rows
Array = NDArray[np.float64]


@dataclass(frozen=True)
class OperatorRows:
    """Rows of one class: T_math and T_mem at the datasheet's ceilings, starts of work items, and what was measured."""

    source: str
    name: str
    math_s: Array
    memory_s: Array
    items_s: Array
    measured_s: Array


@dataclass(frozen=True)
class Comparison:
    source: str
    name: str
    rows: int  # above the floor
    datasheet_error: float
    efficiency: float
    launch_s: float
    errors: Array  # with the fitted efficiency

    @property
    def fitted_error(self) -> float:
        return float(np.median(self.errors))


def compare(rows: OperatorRows) -> Comparison:
    """Fit the efficiency that makes the median error smallest."""
    all_roof_s = np.maximum(rows.math_s, rows.memory_s)
    fastest = np.argsort(rows.measured_s)[: max(5, len(rows.measured_s) // 100)]
    launch_s = max(0.0, float(np.median((rows.measured_s - all_roof_s)[fastest])))
    kept = rows.measured_s > FLOOR_S
    roof_s = all_roof_s[kept]
    items_s, measured_s = rows.items_s[kept], rows.measured_s[kept]

    def errors(efficiency: float) -> Array:
        device_s = items_s + roof_s / efficiency
        predicted_s = np.maximum(launch_s, device_s) if launch_s > FLOOR_S else launch_s + device_s
        return np.abs(predicted_s / measured_s - 1)

    grid = np.geomspace(0.05, 2.0, 150)
    best = float(min(grid, key=lambda efficiency: np.median(errors(efficiency))))
    datasheet = float(np.median(np.abs(roof_s / measured_s - 1)))
    return Comparison(rows.source, rows.name, int(kept.sum()), datasheet, best, launch_s, errors(best))


def h100_gemm() -> Iterator[OperatorRows]:
    hardware, table = accelerator("H100"), pd.read_parquet(H100_TABLES / "gemm_perf.parquet")
    for kernel, rows in table.groupby("kernel_source"):
        narrow = rows["gemm_dtype"].iloc[0] != "bfloat16"
        m, n, k = (rows[column].to_numpy(float) for column in ("m", "n", "k"))
        product = gemm("gemm", 1, k, n, (1.0, 1.0) if narrow else (2.0, 2.0))  # type: ignore[arg-type]
        flops, moved = product.work(m)
        # The narrow kernels write 16 bits, and the input is converted first: read in 16 bits, written in 8.
        moved = moved + (m * n + 3 * m * k if narrow else 0)
        rate = hardware.flops_per_s("fp8" if narrow else "bf16")
        yield OperatorRows(
            "H100", f"gemm {kernel}", flops / rate, moved / hardware.memory_bytes_per_s, np.zeros_like(m),
            rows["latency"].to_numpy(float) * 1e-3,
        )  # fmt: skip


def h100_attention(phase: str) -> Iterator[OperatorRows]:
    """`phase` is context (whole prompts) or generation (one token each)."""
    hardware, table = accelerator("H100"), pd.read_parquet(H100_TABLES / f"{phase}_attention_perf.parquet")
    columns = ["batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "step", "window_size", "latency"]
    table[columns] = table[columns].astype(float)
    for kv_dtype, rows in table.groupby("kv_cache_dtype"):
        parts = [_attention(hardware, some, phase) for _, some in rows.groupby("window_size")]
        columns_s = [np.concatenate(column) for column in zip(*parts, strict=True)]
        yield OperatorRows("H100", f"{phase} attention, {kv_dtype} cache", *columns_s)


def _attention(hardware: HardwareSpec, rows: pd.DataFrame, phase: str) -> tuple[Array, Array, Array, Array]:
    batch, tokens, heads, kv_heads, size, past, window, latency = (
        rows[name].to_numpy(float)
        for name in (
            "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "step", "window_size", "latency",
        )
    )  # fmt: skip
    cache = 2 * kv_heads * size
    element = 1.0 if rows["kv_cache_dtype"].iloc[0] == "fp8" else 2.0
    layer = Attention(
        calls=1, num_heads=heads, num_kv_heads=kv_heads, decode_flops_per_pair=4 * heads * size,
        prefill_flops_per_pair=4 * heads * size, kv_bytes_per_token=cache * element,
        query_bytes_per_token=2 * heads * size * 2.0, window=window[0] or None,
    )  # fmt: skip
    if phase == "context":
        work = BatchWork(batch, batch * tokens, 0 * batch, batch * tokens * (tokens + 1) / 2)
        (flops, moved), items = layer.prefill(work), layer.prefill_items(work, TILE_ROWS)
        flops = flops + layer.prefill_padding(work, TILE_ROWS)
        moved = moved + batch * tokens * cache * (2.0 + element)  # the new keys and values, written to the cache
    else:
        work = BatchWork(num_decode_seqs=batch, decode_tokens=batch, decode_kv_tokens=batch * past, decode_kv_max=past)
        (flops, moved), items = layer.decode(work, batch * past, past), layer.decode_items(work)
    rate, width = hardware.flops_per_s("bf16"), hardware.memory_bytes_per_s
    return flops / rate, moved / width, items * ITEM_S, latency * 1e-3


def h100_all_reduce() -> Iterator[OperatorRows]:
    """Message sizes of the table are elements of bf16; "memory" is the link here."""
    hardware, table = accelerator("H100"), pd.read_parquet(H100_TABLES / "custom_allreduce_perf.parquet")
    for kernel, rows in table.groupby("kernel_source"):
        sizes, ranks = rows["message_size"].to_numpy(float) * 2, rows["num_gpus"].to_numpy(int)
        link = Link(hardware.link_bytes_per_s, 0.0)
        link_s = np.array([all_reduce_s(size, Group(n, n, link)) for size, n in zip(sizes, ranks, strict=True)])
        nothing = np.zeros_like(link_s)
        yield OperatorRows(
            "H100", f"all-reduce {kernel}", nothing, link_s, nothing, rows["latency"].to_numpy(float) * 1e-3
        )


PROFILE_SETUPS = (
    ("RTX4090_Llama-3.1-8B_tp1", "RTX-4090", "llama-3.1-8b", 1),
    ("RTXPRO6000_Llama-3.1-8B_tp1", "RTX-PRO-6000", "llama-3.1-8b", 1),
    ("RTXPRO6000_Qwen3-32B_tp2", "RTX-PRO-6000", "qwen3-32b", 2),
)


def profile_gemm(folder: str, gpu: str, model: str, degree: int) -> OperatorRows:
    hardware, share = accelerator(gpu), RankShare(ModelShape.from_catalogue(model), Parallelism(degree))
    sizes = {
        "qkv_proj": (share.shape.hidden_size, share.q_size + 2 * share.kv_size),
        "o_proj": (share.q_size, share.shape.hidden_size),
        "gate_up_proj": (share.shape.hidden_size, 2 * share.intermediate_size),
        "down_proj": (share.intermediate_size, share.shape.hidden_size),
        "lm_head": (share.shape.hidden_size, share.vocab_size),
    }
    head = pd.read_csv(PROFILES / folder / "per_sequence.csv").rename(columns={"sequences": "tokens"})
    table = pd.concat([pd.read_csv(PROFILES / folder / "dense.csv"), head])
    table = table[table["layer"].isin(sizes)]
    k, n = np.array([sizes[layer] for layer in table["layer"]], dtype=float).T
    flops, moved = gemm("gemm", 1, k, n, (2.0, 2.0)).work(table["tokens"].to_numpy(float))  # type: ignore[arg-type]
    return OperatorRows(
        f"{gpu}, {model}", "gemm bf16", flops / hardware.flops_per_s("bf16"), moved / hardware.memory_bytes_per_s,
        np.zeros(len(table)), table["time_us"].to_numpy(float) * 1e-6,
    )  # fmt: skip


def profile_attention(folder: str, gpu: str, model: str, degree: int) -> Iterator[OperatorRows]:
    """One layer's attention: chunks alone, decodes alone, and both in one batch."""
    hardware, share = accelerator(gpu), RankShare(ModelShape.from_catalogue(model), Parallelism(degree))
    flops_per_pair = 4.0 * share.q_size
    layer = Attention(
        1, share.num_heads, share.num_kv_heads, flops_per_pair, flops_per_pair, share.kv_elements * 2.0,
        2 * share.q_size * 2.0,
    )  # fmt: skip
    table = pd.read_csv(PROFILES / folder / "attention.csv").astype(float)
    chunk, cached, count, context = (
        table[c].to_numpy() for c in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    )
    pairs = chunk * cached + chunk * (chunk + 1) / 2
    work = BatchWork((chunk > 0) * 1.0, chunk, cached * (chunk > 0), pairs, count, count, count * context, context)
    prefill, decode = layer.prefill(work), layer.decode(work, count * context, context)
    rate, width = hardware.flops_per_s("bf16"), hardware.memory_bytes_per_s
    items_s = (layer.prefill_items(work, TILE_ROWS) + layer.decode_items(work)) * ITEM_S
    padded = layer.prefill_padding(work, TILE_ROWS) + layer.decode_padding(work, count * context, TILE_ROWS) * (
        chunk > 0
    )
    math_s, memory_s = (prefill[0] + decode[0] + padded) / rate, (prefill[1] + decode[1]) / width
    measured_s = table["time_us"].to_numpy() * 1e-6
    for name, chosen in (
        ("chunk attention", count == 0),
        ("decode attention", chunk == 0),
        ("mixed attention", (chunk > 0) & (count > 0)),
    ):  # fmt: skip
        parts = (column[chosen] for column in (math_s, memory_s, items_s, measured_s))
        yield OperatorRows(f"{gpu}, {model}", name, *parts)


def all_rows() -> Iterator[OperatorRows]:
    """Every class of every table."""
    yield from h100_gemm()
    yield from h100_attention("context")
    yield from h100_attention("generation")
    yield from h100_all_reduce()
    for setup in PROFILE_SETUPS:
        yield profile_gemm(*setup)
        yield from profile_attention(*setup)


def main() -> None:
    """Print one line a class, and the errors of all rows together."""
    found = [compare(rows) for rows in all_rows()]
    print(f"{'class':62} {'rows':>7} {'datasheet':>9} {'fitted':>7} {'p90':>6} {'eff.':>5} {'launch us':>9}")
    for one in found:
        p90 = np.quantile(one.errors, 0.9)
        print(
            f"{one.source + ': ' + one.name:62} {one.rows:7,} {one.datasheet_error:9.1%} {one.fitted_error:7.1%} "
            f"{p90:6.1%} {one.efficiency:5.2f} {one.launch_s * 1e6:9.1f}"
        )
    every = np.concatenate([one.errors for one in found])
    print(f"all {len(every):,} rows above 20 us: median {np.median(every):.1%}, p90 {np.quantile(every, 0.9):.1%}")


if __name__ == "__main__":
    main()
