"""Arguments and options that several commands of `roofline` share: one name, one help text."""

from pathlib import Path
from typing import Annotated

import typer

from roofline.formats import BYTES_PER_ELEMENT

MODEL_HELP = "Catalogue name, Hugging Face folder or config.json, or .gguf file."
WEIGHTS_HELP = f"Weight format: {', '.join(BYTES_PER_ELEMENT)}."

ModelName = Annotated[str, typer.Argument(help=MODEL_HELP)]
GpuName = Annotated[str, typer.Argument(help="Accelerator of the catalogue (H100, L40S, ...) or of --accelerators.")]
UserRows = Annotated[Path | None, typer.Option("--accelerators", help="JSON file of your own rows, catalogue schema.")]
Tensor = Annotated[int, typer.Option("--tp", help="Tensor-parallel degree: accelerators that share every layer.")]
Pipeline = Annotated[int, typer.Option("--pp", help="Pipeline stages.")]
Data = Annotated[int, typer.Option("--dp", help="Data-parallel ranks that share experts; work is each one's.")]
Expert = Annotated[int, typer.Option("--ep", help="Ranks among which experts are divided.")]
GGUF_HELP = "a GGUF file's own formats are not read, it counts as bf16"
Weights = Annotated[
    str | None, typer.Option("--weights", help=f"{WEIGHTS_HELP} Default: the checkpoint's; {GGUF_HELP}.")
]
Kv = Annotated[str | None, typer.Option("--kv", help="KV cache format. Default: the checkpoint's, or bf16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Figure = Annotated[Path | None, typer.Option("--figure", help="Also write figures to this HTML file.")]
