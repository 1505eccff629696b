"""`roofline show`: what a model is and weighs, or which models and accelerators there are."""

from dataclasses import asdict
from datetime import date
from typing import Any

from roofline import console
from roofline.catalogue_data import shipped_rows
from roofline.formats import BYTES_PER_ELEMENT
from roofline.hardware import HardwareSpec
from roofline.memory import checkpoint_bytes, stored_formats
from roofline.model_shape import ModelShape, catalogue_names
from roofline.model_source import index_bytes, load_model_shape
from roofline.prices import known_price, price
from roofline.screen.tables import billions, columns, gigabytes, kilobytes, pairs

KV_FORMATS = ("fp32", "bf16", "fp8")


def show_model(source: str, as_json: bool) -> None:
    """Print a model's shape, parameters, and bytes by number format."""
    shape = load_model_shape(source)
    stored = index_bytes(source)
    sizes: dict[str, Any] = {
        "num_parameters": shape.num_parameters,
        "active_parameters": shape.active_parameters,
        "non_embedding_parameters": shape.non_embedding_parameters,
        "linear_parameters": shape.linear_parameters,
        "weight_bytes": {dtype: shape.weight_bytes(dtype) for dtype in BYTES_PER_ELEMENT},
        "checkpoint_bytes": {
            dtype: checkpoint_bytes(shape, *stored_formats(shape, dtype)[:2]) for dtype in BYTES_PER_ELEMENT
        },
        "kv_bytes_per_token": {dtype: shape.kv_bytes_per_token(dtype) for dtype in KV_FORMATS},
        "kv_bytes_at_max_position": {dtype: shape.kv_bytes(shape.max_position, dtype) for dtype in KV_FORMATS},
        "safetensors_index_bytes": stored,
    }
    if as_json:
        console.print_json({"shape": asdict(shape), **sizes})
        return
    console.out.print(pairs(shape.name, _lines(shape, stored)))
    table = columns("bytes by number format", ("format", "weights", "checkpoint", "KV of a token", "KV at full length"))
    for dtype, size in sizes["weight_bytes"].items():
        row = [gigabytes(size), gigabytes(sizes["checkpoint_bytes"][dtype])]
        if dtype in KV_FORMATS:
            row += [kilobytes(sizes["kv_bytes_per_token"][dtype]), gigabytes(sizes["kv_bytes_at_max_position"][dtype])]
        table.add_row(dtype, *row)
    console.out.print(table)
    console.out.print(
        "weights: all in that format. checkpoint: as published ones are, with embedding, head, norms and routers in "
        "16 bits beside narrow layers."
    )


def show_catalogue(as_json: bool) -> None:
    """Print every model and accelerator that has a name."""
    models = [ModelShape.from_catalogue(name) for name in catalogue_names()]
    accelerators = [HardwareSpec.from_row(row) for row in shipped_rows("accelerators")]
    if as_json:
        rows = [{"name": one.name, "num_parameters": one.num_parameters} for one in models]
        console.print_json({"models": rows, "accelerators": [asdict(one) for one in accelerators]})
        return
    table = columns("models", ("name", "parameters", "active", "KV of a token, bf16", "context"))
    for shape in models:
        active = billions(shape.active_parameters) if shape.moe else ""
        sizes = (kilobytes(shape.kv_bytes_per_token()), f"{shape.max_position:,}")
        table.add_row(shape.name, billions(shape.num_parameters), active, *sizes)
    console.out.print(table)
    table = columns("accelerators", ("name", "GB", "TB/s", "bf16", "fp8", "fp4", "W", "$/h", "low", "high"))
    for spec in accelerators:
        table.add_row(spec.name + (" *" if spec.estimate else ""), *_figures(spec))
    console.out.print(table)
    console.out.print(
        "bf16, fp8, fp4: dense TFLOP/s. * a figure of the row is disputed or derived. $/h: list prices to rent one."
    )
    _warn_of_age()


def _figures(spec: HardwareSpec) -> list[str]:
    rates = [spec.dense_flops_per_s.get(dtype) for dtype in ("bf16", "fp8", "fp4")]
    return [
        f"{spec.memory_bytes / 1e9:.0f}",
        f"{spec.memory_bytes_per_s / 1e12:.2f}",
        *("" if rate is None else f"{rate / 1e12:,.0f}" for rate in rates),
        "" if spec.tdp_w is None else f"{spec.tdp_w:.0f}",
        *_prices(spec.name),
    ]


def _prices(name: str) -> list[str]:
    row = known_price(name)
    if row is None:
        return ["?", "", ""]
    return [f"{one:.2f}" for one in (row.typical, row.low, row.high)]


def _warn_of_age() -> None:
    warnings = {price(row["accelerator"]).age_warning(date.today()) for row in shipped_rows("prices")}
    for warning in sorted(text for text in warnings if text):
        console.err.print(console.escape(warning))


def _lines(shape: ModelShape, stored: int | None) -> dict[str, str]:
    lines = {"parameters": f"{shape.num_parameters:,} ({shape.non_embedding_parameters:,} without embedding and head)"}
    if shape.moe:
        lines["active"] = f"{shape.active_parameters:,} of them for each token"
    lines |= {"layers": _layers(shape), "hidden, MLP": f"{shape.hidden_size:,}, {shape.intermediate_size:,}"}
    lines["heads"] = f"{shape.num_heads} query, {shape.num_kv_heads} KV, of {shape.head_dim}"
    if shape.moe:
        shared = (
            f", a shared one of {shape.moe.shared_intermediate_size:,}" if shape.moe.shared_intermediate_size else ""
        )
        lines["experts"] = (
            f"{shape.moe.num_experts} of {shape.moe.intermediate_size:,}, {shape.moe.experts_per_token} for each "
            f"token{shared}; {shape.moe.num_dense_layers} layers without"
        )
    if shape.mla:
        query = f", queries through {shape.mla.q_lora_rank}" if shape.mla.q_lora_rank else ""
        lines["latent attention"] = f"{shape.mla.kv_lora_rank} + {shape.mla.qk_rope_head_dim} cached{query}"
    lines["vocabulary"] = f"{shape.vocab_size:,}{', tied with the output head' if shape.tie_embeddings else ''}"
    lines["context"] = f"{shape.max_position:,} tokens"
    if shape.rope_scaling:
        lines["context"] += f", stretched {shape.rope_scaling.factor:g} times ({shape.rope_scaling.kind})"
    if shape.quantization:
        part = "routed experts" if shape.quantization.scope == "experts" else "layers"
        lines["checkpoint"] = f"{part} in {shape.quantization.weight_format}"
    if stored is not None:
        lines["files"] = f"{stored:,} bytes by the safetensors index"
    return lines


def _layers(shape: ModelShape) -> str:
    if not shape.sliding_layers:
        return str(shape.num_layers)
    return f"{shape.num_layers}, {shape.sliding_layers} of them with a window of {shape.sliding_window:,} tokens"
