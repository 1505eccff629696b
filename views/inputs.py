"""The sidebar's inputs as data: what each is called in the URL, where it stands in a scenario, what it may be.

The widgets, the check of a hostile URL and the scenario are all made from this one table. An input that nobody touched
leaves the scenario behind it as it is, so a file may say more than the sidebar shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibration import profile
from roofline.catalogue_data import shipped_rows
from roofline.errors import InputError
from roofline.formats import BYTES_PER_ELEMENT
from roofline.model_shape import catalogue_names
from simulator import scenario_file
from simulator.scenario import FixedLength, Length, LogNormalLength, Scenario, UniformLength
from views.presets import DEFAULT, PRESETS

ANALYTIC = "datasheet (analytic)"
NAMED = 12  # choices that an error names; the sidebar shows all
LONGEST_PER_MEAN = 8  # where lengths are typed in: beyond eight means lies under 0.3 % of a lognormal of cv 1


@dataclass(frozen=True, slots=True)
class Number:
    """A number between two bounds; those with a text for `empty` may be left out."""

    name: str  # in the URL
    place: str  # in the scenario, dotted
    label: str
    low: float
    high: float
    step: float
    whole: bool = False
    empty: str = ""  # shown where there is no number; inputs without it need one
    help: str = ""

    def fault(self, text: str) -> str | None:
        """What is wrong with a value as the URL has it, or None."""
        if text == "" and self.empty:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and self.low <= value <= self.high and (value.is_integer() or not self.whole):
            return None
        kind = "a whole number" if self.whole else "a number"
        return f"it must be {kind} from {self.low:,g} to {self.high:,g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values; the URL and the screen show them alike, as a widget's labels are what the URL has."""

    name: str
    place: str
    label: str
    options: tuple[Any, ...]
    help: str = ""

    def fault(self, text: str) -> str | None:
        """What is wrong with a value as the URL has it, or None."""
        known = [str(option) for option in self.options]
        if text in known:
            return None
        more = f" or {len(known) - NAMED} more of the list" if len(known) > NAMED else ""
        return f"it must be one of {', '.join(known[:NAMED])}{more}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Yes or no."""

    name: str
    place: str
    label: str
    help: str = ""

    def fault(self, text: str) -> str | None:
        """What is wrong with a value as the URL has it, or None."""
        return None if text.lower() in ("true", "false") else "it must be true or false"


Input = Number | Choice | Switch


def _catalogue(kind: str) -> tuple[str, ...]:
    return tuple(str(row["name"]) for row in shipped_rows(kind))


WORKLOAD: tuple[Input, ...] = (
    Number("rate", "workload.request_rate", "Requests per second, whole fleet", 0.01, 100_000, 1.0,
           help="Offered load at the peak you size for, over all replicas together."),
    Number("prompt", "workload.prompt_tokens", "Prompt tokens, mean", 1, 1_000_000, 64, whole=True),
    Number("output", "workload.output_tokens", "Output tokens, mean", 1, 1_000_000, 16, whole=True,
           help="Thinking tokens count too."),
)  # fmt: skip
SPREAD: tuple[Input, ...] = (
    Number("prompt_cv", "workload.prompt_tokens", "Prompt spread", 0.0, 5.0, 0.1,
           help="Standard deviation divided by the mean of a lognormal; 0: every prompt has the same length."),
    Number("output_cv", "workload.output_tokens", "Output spread", 0.0, 5.0, 0.1,
           help="Standard deviation divided by the mean of a lognormal; 0: every answer has the same length."),
    Number("burstiness", "workload.burstiness", "Burstiness", 0.05, 100.0, 0.1,
           help="1: Poisson arrivals; below 1: burstier; above 1: more regular."),
)  # fmt: skip
SLO: tuple[Input, ...] = (
    Number("ttft", "slo.ttft_ms", "TTFT at most (ms)", 1, 600_000, 50, empty="no target",
           help="Time to first token, queueing included. Empty: no such target."),
    Number("tpot", "slo.tpot_ms", "TPOT at most (ms)", 0.1, 60_000, 5, empty="no target",
           help="Time per output token after the first, averaged over a request. Empty: no such target."),
    Choice("percentile", "slo.percentile", "Kept by this percent of requests", (50, 90, 95, 99, 99.9),
           help="Each target holds for this percent of the requests."),
)  # fmt: skip
SERVING: tuple[Input, ...] = (
    Choice("model", "model", "Model", tuple(catalogue_names())),
    Choice("gpu", "hardware.accelerator", "Accelerator", _catalogue("accelerators")),
    Choice("tp", "parallelism.tensor", "GPUs per replica (tensor parallel)", (1, 2, 4, 8, 16)),
    Choice("weights", "weight_dtype", "Weights", tuple(BYTES_PER_ELEMENT)),
    Choice("kv", "kv_dtype", "KV cache", ("fp32", "bf16", "fp16", "fp8", "int8")),
    Choice("profile", "step_time.profile", "Step time from", (ANALYTIC, *profile.shipped()),
           help="A fitted profile rests on measurements; the datasheet rests on peaks and usual efficiencies."),
)  # fmt: skip
TRANSFER = Switch(
    "transfer", "step_time.transfer", "Use the profile for other hardware or models too",
    help="Without it, a profile answers only for what it was fitted on. Results are marked as transferred.",
)  # fmt: skip
FLEET: tuple[Input, ...] = (
    Number("max_replicas", "fleet.max_replicas", "Most replicas", 1, 4096, 1, whole=True),
    Number("price", "prices", "$ per GPU and hour", 0.0, 1000.0, 0.1, empty="list price",
           help="Empty: the catalogue's list prices, low, typical and high, with their date."),
)  # fmt: skip
ENGINE: tuple[Input, ...] = (
    Number("seqs", "engine.max_num_seqs", "Requests at once on a replica", 1, 8192, 16, whole=True,
           help="vLLM's --max-num-seqs."),
    Number("batched", "engine.max_num_batched_tokens", "Tokens in a pass", 1, 1_000_000, 512, whole=True,
           help="vLLM's --max-num-batched-tokens."),
    Number("context", "engine.max_model_len", "Longest request (tokens)", 2, 2_000_000, 1024, whole=True,
           help="vLLM's --max-model-len: prompt and answer together."),
)  # fmt: skip
PRESET = Choice("preset", "", "Start from", tuple(PRESETS))
INPUTS: tuple[Input, ...] = (*WORKLOAD, *SPREAD, *SLO, *SERVING, TRANSFER, *FLEET, *ENGINE)
LENGTHS = {"prompt": "prompt_tokens", "output": "output_tokens"}  # input, and field of the workload
FROM_A_RECORDING = ("rate", "prompt", "output", "prompt_cv", "output_cv", "burstiness")


def names() -> list[str]:
    """What a link may say, in the order of the sidebar."""
    return [PRESET.name, *(one.name for one in INPUTS)]


def address_faults(parameters: Mapping[str, Sequence[str]]) -> list[str]:
    """What a URL says that cannot be used, one sentence each; the widgets drop such values without a word."""
    known = {one.name: one for one in (PRESET, *INPUTS)}
    faults = []
    for name, values in parameters.items():
        if name.startswith("embed"):  # Streamlit's own
            continue
        if name not in known:
            faults.append(f"{_short(name)} is no input of this page; it is left out.")
        elif fault := known[name].fault(values[-1]):
            faults.append(f"{name} is {_short(values[-1])}; {fault}. The default is used instead.")
    return faults


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def start(preset: str) -> Scenario:
    """The scenario that a preset stands for."""
    return scenario_file.with_changes(scenario_file.from_mapping(DEFAULT), PRESETS[preset].changes)


def values_of(scenario: Scenario) -> dict[str, Any]:
    """What each input shows for a scenario; None where it has nothing to show."""
    values = {one.name: _at(scenario, one.place) for one in INPUTS}
    for name, field in LENGTHS.items():
        values[name], values[f"{name}_cv"] = _mean_and_cv(getattr(scenario.workload, field))
    values["profile"] = scenario.step_time.profile or ANALYTIC
    values["price"] = scenario.prices.typical if scenario.prices else None
    return values


def _at(scenario: Scenario, place: str) -> Any:
    value: Any = scenario
    for name in place.split("."):
        value = getattr(value, name)
    return value


def _mean_and_cv(length: Length | None) -> tuple[int | None, float | None]:
    match length:
        case FixedLength(tokens=tokens):
            return tokens, 0.0
        case LogNormalLength(mean=mean, cv=cv):
            return round(mean), cv
        case UniformLength(low=low, high=high):
            mean = (low + high) / 2
            return round(mean), math.sqrt(((high - low + 1) ** 2 - 1) / 12) / mean
    return None, None


def with_values(base: Scenario, values: Mapping[str, Any]) -> Scenario:
    """`base` with the inputs that show something else than it does; raises InputError where that makes no scenario."""
    shown = values_of(base)
    moved = {name: value for name, value in values.items() if value != shown[name]}
    changes = {one.place: moved[one.name] for one in INPUTS if one.name in moved}
    for name, field in LENGTHS.items():
        if name in moved or f"{name}_cv" in moved:
            changes[f"workload.{field}"] = _length(values[name], values[f"{name}_cv"])
    if "profile" in moved:
        changes["step_time.profile"] = None if moved["profile"] == ANALYTIC else moved["profile"]
    if "price" in moved:
        price = moved["price"]
        changes["prices"] = None if price is None else {"low": price, "typical": price, "high": price}
    return scenario_file.with_changes(base, changes, "the sidebar") if changes else base


def _length(mean: int, cv: float) -> int | dict[str, Any]:
    if cv == 0 or mean < 2:  # a lognormal needs room above one token
        return mean
    return {"distribution": "lognormal", "mean": mean, "cv": cv, "longest": LONGEST_PER_MEAN * mean}


def shown_for(scenario: Scenario) -> tuple[Input, ...]:
    """The inputs that can show this scenario: choices gain its value, and a recording brings its own lengths.

    Raises InputError where a number is outside what the sidebar takes.
    """
    values = values_of(scenario)
    fitting: list[Input] = []
    for one in INPUTS:
        value = values[one.name]
        if scenario.workload.trace is not None and one.name in FROM_A_RECORDING:
            continue
        if isinstance(one, Choice) and value not in one.options:
            fitting.append(replace(one, options=(*one.options, value)))
            continue
        if isinstance(one, Number) and value is not None and not one.low <= value <= one.high:
            raise InputError(
                f"{one.place} is {value:,g}; this page takes {one.low:,g} to {one.high:,g}: "
                "use `simulator plan` on the file, which takes more."
            )
        fitting.append(one)
    return tuple(fitting)


def left_out_of_link(scenario: Scenario, preset: str, values: Mapping[str, Any]) -> list[str]:
    """Dotted settings of the scenario that a link's receiver would not get: the sidebar has no input for them."""
    received = _flat(scenario_file.to_mapping(with_values(start(preset), values)))
    ours = _flat(scenario_file.to_mapping(scenario))
    return sorted(place for place in ours | received if ours.get(place) != received.get(place))


def _flat(mapping: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat
