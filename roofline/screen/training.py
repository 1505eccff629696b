"""`roofline training`: memory on each accelerator, days and dollars, and the size that would have been cheapest."""

from dataclasses import asdict, dataclass
from typing import Any

from roofline import console
from roofline.hardware import HardwareSpec
from roofline.model_shape import ModelShape
from roofline.prices import Price
from roofline.scaling_law import Demand, Optimum, cheapest, plan_for
from roofline.screen.tables import billions, columns, gigabytes, pairs
from roofline.training import (
    COPIES,
    Speed,
    TrainingMemory,
    TrainingRun,
    TrainingSetup,
    changes_that_fit,
    trained_parameters,
    training_memory,
    training_run,
)


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained on what, for how long, and at which speed and price."""

    shape: ModelShape
    hardware: HardwareSpec
    setup: TrainingSetup
    tokens: float
    speed: Speed
    price: Price | None
    demand: Demand | None = None

    def run(self, usd_per_hour: float | None) -> TrainingRun:
        """Time and money at one price."""
        return training_run(
            self.shape, self.setup, self.hardware, self.tokens, speed=self.speed, usd_per_hour=usd_per_hour
        )


def show_training(job: Job, as_json: bool) -> None:
    """Print what the job takes."""
    memory = training_memory(job.shape, job.setup)
    run = job.run(job.price.typical if job.price else None)
    fits = memory.total_bytes <= job.hardware.memory_bytes
    changes = [] if fits else changes_that_fit(job.shape, job.setup, job.hardware)
    optima = _optima(job)
    if as_json:
        console.print_json(_json(job, memory, run, changes, optima))
        return
    _print_memory(job, memory)
    if not fits:
        told = f"it fits with {' or with '.join(changes)}" if changes else "no single change makes it fit"
        console.out.print(f"[bold red]It does not fit {job.hardware.name}[/]: {console.escape(told)}.")
    console.out.print(pairs("time and money", _run_lines(job, run)))
    _print_optima(job, optima)


def _optima(job: Job) -> dict[str, Optimum] | None:
    """This size, and the cheapest ones of the same loss; the scaling law is of dense models trained from scratch."""
    if job.setup.method != "pretrain" or job.setup.adapter != "full" or job.shape.moe:
        return None
    demand = job.demand or Demand()
    here = plan_for(job.shape.num_parameters, job.tokens, demand)
    least = cheapest(here.loss)
    plans = {"this plan": here, "cheapest to train": plan_for(least.parameters, least.tokens, demand)}
    if job.demand:
        plans["cheapest to train and serve"] = cheapest(here.loss, job.demand)
    return plans


def _print_memory(job: Job, memory: TrainingMemory) -> None:
    setup = job.setup
    name = "pre-training" if setup.method == "pretrain" else setup.method.upper()
    stage = ("no sharding", "ZeRO-1", "ZeRO-2", "ZeRO-3 or FSDP")[setup.zero_stage]
    kind = {"full": "", "lora": f", LoRA of rank {setup.lora_rank}", "qlora": f", QLoRA of rank {setup.lora_rank}"}
    title = f"{name} of {job.shape.name} on {setup.accelerators} x {job.hardware.name}, {stage}"
    table = columns(title + kind[setup.adapter] + ": bytes on each", ("part", "bytes", "share of its memory"))
    for part, size in memory.parts.items():
        table.add_row(part, gigabytes(size), f"{size / job.hardware.memory_bytes:.1%}")
    table.add_section()
    table.add_row("all", gigabytes(memory.total_bytes), f"{memory.total_bytes / job.hardware.memory_bytes:.1%}")
    console.out.print(table)


def _run_lines(job: Job, run: TrainingRun) -> dict[str, str]:
    copies = COPIES[job.setup.method]
    trained = trained_parameters(job.shape, job.setup)
    lines = {
        "copies of the model": f"{copies.total}: {copies.trained} trained, {copies.frozen} frozen",
        "weights trained": f"{trained:,} of each trained copy",
        "FLOPs of training": f"{run.train_flops:.3g} for {job.tokens:.3g} tokens, at {job.speed.mfu:.0%} MFU",
    }
    if run.hardware_flops > run.train_flops:
        busy = job.speed.mfu * run.hardware_flops / run.train_flops
        lines["computed again"] = f"{run.hardware_flops / run.train_flops - 1:.0%} more: {busy:.0%} of the peak in use"
    if copies.generates:
        lines["FLOPs of sampling"] = f"{run.generation_flops:.3g}, at {job.speed.generation_mfu:.0%} MFU"
    gpu_hours = run.seconds / 3600 * job.setup.accelerators
    lines["time"] = f"{run.days:,.2f} days, {gpu_hours:,.0f} accelerator-hours"
    if job.price is None:
        lines["cost"] = "unknown; state a price with --price"
    else:
        low, typical, high = (gpu_hours * one for one in (job.price.low, job.price.typical, job.price.high))
        span = f" ({low:,.0f} to {high:,.0f})" if high > low else ""
        lines["cost"] = f"${typical:,.0f}{span}, prices of {job.price.date}: {job.price.source}"
    return lines


def _print_optima(job: Job, optima: dict[str, Optimum] | None) -> None:
    if optima is None:
        return
    title = f"a loss of {optima['this plan'].loss:.3f}, by the scaling law of Hoffmann et al., 2022"
    table = columns(title, ("plan", "size", "tokens", "a weight", "FLOPs", "lifetime"))
    for name, one in optima.items():
        figures = (f"{one.tokens:.3g}", f"{one.tokens_per_parameter:,.0f}", f"{one.train_flops:.3g}")
        table.add_row(name, billions(one.parameters), *figures, f"{one.lifetime_flops:.3g}" if job.demand else "")
    console.out.print(table)
    if job.demand:
        console.out.print(
            "lifetime: FLOPs of training and of serving, each over its MFU, so that they add up as time does."
        )


def _json(
    job: Job, memory: TrainingMemory, run: TrainingRun, changes: list[str], optima: dict[str, Optimum] | None
) -> dict[str, Any]:
    return {
        "model": job.shape.name,
        "hardware": job.hardware.name,
        **asdict(job.setup),
        "tokens": job.tokens,
        **asdict(job.speed),
        "memory_bytes": dict(memory.parts),
        "total_bytes": memory.total_bytes,
        "fits": memory.total_bytes <= job.hardware.memory_bytes,
        "fits_with": changes,
        "copies": COPIES[job.setup.method].total,
        "trained_parameters": trained_parameters(job.shape, job.setup),
        **asdict(run),
        "days": run.days,
        "usd_low": job.run(job.price.low).usd if job.price else None,
        "usd_high": job.run(job.price.high).usd if job.price else None,
        "optima": None if optima is None else {name: asdict(one) for name, one in optima.items()},
        "provenance": "analytic",
    }
