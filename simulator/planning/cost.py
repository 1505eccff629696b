"""What a fleet costs: by the hour, the month and the million tokens that it really serves."""

from roofline.errors import InputError
from roofline.prices import price
from simulator.output.results import Cost, Money, RunResult
from simulator.scenario import Scenario

HOURS_PER_MONTH = 730.0


def cost_of(scenario: Scenario, result: RunResult) -> Cost | None:
    """The cost of the fleet behind `result`, busy or not, per token at its load; None where no price is known."""
    per_gpu_hour, source = _price(scenario)
    if per_gpu_hour is None:
        return None
    output, total = result.output_tokens_per_s, result.output_tokens_per_s + result.prompt_tokens_per_s
    per_hour = _times(per_gpu_hour, result.gpus)
    return Cost(
        per_gpu_hour=per_gpu_hour,
        per_hour=per_hour,
        per_month=_times(per_hour, HOURS_PER_MONTH),
        per_million_output_tokens=_times(per_hour, 1e6 / 3600 / output),
        per_million_tokens=_times(per_hour, 1e6 / 3600 / total),
        source=source,
    )


def _price(scenario: Scenario) -> tuple[Money | None, str]:
    given = scenario.prices
    if given is not None:
        return Money(given.low, given.typical, given.high), "prices of the scenario"
    try:
        row = price(scenario.hardware.accelerator)
    except InputError:
        return None, ""
    return Money(row.low, row.typical, row.high), f"{row.source} ({row.date})"


def _times(money: Money, factor: float) -> Money:
    return Money(money.low * factor, money.typical * factor, money.high * factor)
