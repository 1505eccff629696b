"""A scenario resolved: what its names stand for, what fits in memory, and how long a forward pass takes there.

Everything that can be wrong with a scenario beyond its form (a missing profile, a model that does not fit) is found
here, once, before anything is simulated.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from calibration import profile as profiles
from calibration.fitted import FittedStepTime
from calibration.measurements import differences
from engine.core.config import EngineConfig
from engine.core.workload import Workload
from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError, ModelError, ProfileError
from roofline.fitting import fitting_plan
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.memory import MemoryLayout
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape
from roofline.parallelism import Parallelism
from roofline.step_time import StepTimeModel
from simulator.fleet.cluster import FleetSpec
from simulator.fleet.disaggregation import Split
from simulator.fleet.scaled import ScaledStepTime
from simulator.output.results import Badge
from simulator.scenario import Scenario
from simulator.workload_source import at_rate, recorded_requests

# Doubt about a step time, as a fraction, where no error table says it. Arithmetic on datasheet figures was off by 17 to
# 55 % on other projects' anchors; a profile moved to other hardware is somewhere between that and its own table.
ANALYTIC_DOUBT = 0.30
TRANSFER_DOUBT = 0.20


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """One replica of a scenario, ready to simulate."""

    scenario: Scenario
    shape: ModelShape
    engine: EngineConfig
    step_time: StepTimeModel
    badge: Badge
    step_time_doubt: float  # fraction by which all step times may be off together
    doubt_source: str
    recorded: Workload | None  # the trace's requests, where the scenario names one
    notes: tuple[str, ...] = ()
    speed: float = 1.0  # the step times are multiplied by it

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica."""
        return self.scenario.parallelism.tensor

    def fleet(self, replicas: int) -> FleetSpec:
        """So many replicas behind the scenario's router and clients."""
        scenario = self.scenario
        client, faults = scenario.client, [fault.build() for fault in scenario.faults]
        if replicas != scenario.fleet.replicas:  # a search for their number: what is not there cannot fail
            faults = [fault for fault in faults if getattr(fault, "replica", 0) < replicas]
        try:
            return FleetSpec(
                self.engine, replicas, scenario.fleet.router, client.link, client.patience, tuple(faults),
                scenario.fleet.admission.build(), scenario.fleet.autoscaling, self._split(replicas), scenario.seed,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"fleet: {error}") from error

    def _split(self, replicas: int) -> Split | None:
        """Who computes prompts only; in a search one replica alone computes everything."""
        asked, searched = self.scenario.fleet.disaggregation, replicas != self.scenario.fleet.replicas
        if asked is None or (searched and replicas == 1):
            return None
        prefill = min(max(1, round(asked.prefill_share * replicas)), max(1, replicas - 1))
        kv_bytes_per_token = self.shape.kv_bytes_per_token(self.scenario.kv_dtype)
        return Split(prefill, kv_bytes_per_token, asked.link_gb_per_s * 1e9, asked.link_latency_ms / 1000)

    def alone(self) -> FleetSpec:
        """One replica that never fails, with clients who wait."""
        return FleetSpec(self.engine, client=self.scenario.client.link)

    def slowed(self, factor: float) -> "Deployment":
        """The same replica if every pass took `factor` times as long as the model says."""
        return replace(self, step_time=ScaledStepTime(self.step_time, factor), speed=factor)

    def at_rate(self, rate_per_s: float) -> "Deployment":
        """The same replica under another offered rate of the fleet."""
        workload = at_rate(self.scenario.workload, self.recorded, rate_per_s)
        return replace(self, scenario=self.scenario.model_copy(update={"workload": workload}))


def resolve(scenario: Scenario) -> Deployment:
    """Look up whatever the scenario names. InputError says what is missing or does not fit, and the remedy."""
    shape = _shape(scenario)
    engine = _engine(scenario, shape)
    recorded = recorded_requests(scenario.workload)
    if scenario.step_time.profile is None:
        model = _analytic(scenario, shape)
        doubt = "an assumed error of arithmetic on datasheet figures"
        note = "No measurement stands behind the step times: they are arithmetic on datasheet figures."
        return Deployment(scenario, shape, engine, model, "analytic", ANALYTIC_DOUBT, doubt, recorded, (note,))
    fitted = _profile(scenario.step_time.profile)
    badge, notes = _standing(scenario, shape, fitted)
    doubt_size, doubt = _profile_doubt(fitted, badge)
    return Deployment(scenario, shape, engine, fitted, badge, doubt_size, doubt, recorded, notes)


def _shape(scenario: Scenario) -> ModelShape:
    try:
        return load_model_shape(scenario.model)
    except ModelError as error:
        raise ModelError(f"model: {error}") from error


def _accelerator(scenario: Scenario) -> HardwareSpec:
    try:
        return accelerator(scenario.hardware.accelerator, scenario.hardware.catalogue)
    except InputError as error:
        raise InputError(
            f"hardware.accelerator: {error} A name outside the catalogue needs a profile measured on it "
            "(step_time.profile) and engine.num_blocks."
        ) from error


def _analytic(scenario: Scenario, shape: ModelShape) -> AnalyticStepTime:
    hardware = _accelerator(scenario)
    efficiency = Efficiency.prior(hardware)
    split = Parallelism(scenario.parallelism.tensor)
    return AnalyticStepTime(shape, hardware, efficiency, scenario.weight_dtype, scenario.kv_dtype, split)


def _engine(scenario: Scenario, shape: ModelShape) -> EngineConfig:
    settings = scenario.engine.model_dump()
    length = settings["max_model_len"] or shape.max_position
    if length > shape.max_position:
        raise InputError(
            f"engine.max_model_len is {length}, and {shape.name} reads at most {shape.max_position} tokens; lower it."
        )
    blocks = settings["num_blocks"] or _fitting_blocks(scenario, shape)
    try:
        return EngineConfig(**{**settings, "max_model_len": length, "num_blocks": blocks})
    except InputError as error:
        raise InputError(f"engine: {error}") from error


def memory_layout(scenario: Scenario) -> MemoryLayout:
    """How a replica of the scenario stores the model, and the batch it makes room for."""
    return MemoryLayout(
        scenario.weight_dtype,
        scenario.kv_dtype,
        Parallelism(scenario.parallelism.tensor),
        scenario.engine.block_size,
        scenario.engine.max_num_batched_tokens,
        scenario.engine.max_num_seqs,
    )


def _fitting_blocks(scenario: Scenario, shape: ModelShape) -> int:
    hardware = _accelerator(scenario)
    return fitting_plan(shape, hardware, Efficiency.prior(hardware), memory_layout(scenario)).kv_blocks


def _profile(name: str) -> FittedStepTime:
    shipped = profiles.SHIPPED / f"{name}.json"
    if shipped.exists():
        return profiles.load(shipped)
    try:
        return profiles.load(Path(name))
    except ProfileError as error:
        names = ", ".join(sorted(path.stem for path in profiles.SHIPPED.glob("*.json")))
        raise ProfileError(f"step_time.profile: {error} Shipped profiles: {names}.") from error


def _standing(scenario: Scenario, shape: ModelShape, fitted: FittedStepTime) -> tuple[Badge, tuple[str, ...]]:
    """Whether the profile speaks for the scenario, and what its user should know."""
    origin = fitted.provenance
    asked = {
        "hardware": scenario.hardware.accelerator, "model": _called(scenario, shape, origin.model),
        "tensor_parallel": scenario.parallelism.tensor, "weight_dtype": scenario.weight_dtype,
    }  # fmt: skip
    wrong = differences(origin.identity, asked)
    if not wrong:
        return "calibrated", fitted.notes
    told = "; ".join(f"{name} is {now} here and {then} in the profile" for name, (then, now) in wrong.items())
    if not scenario.step_time.transfer:
        raise ProfileError(
            f"step_time.profile {scenario.step_time.profile} was fitted on something else: {told}. Change the "
            "scenario, fit a profile for it, or set step_time.transfer to true."
        )
    return "transferred", (*fitted.notes, f"Step times are taken over unchanged from another measurement: {told}.")


def _called(scenario: Scenario, shape: ModelShape, theirs: str | None) -> str:
    """Their name for the model where it is the same one under another of its names, else ours."""
    if theirs is None or theirs.lower() in (scenario.model.lower(), shape.name.lower()):
        return theirs or shape.name
    try:
        same = replace(ModelShape.from_catalogue(theirs), name=shape.name) == shape
    except ModelError:
        same = False
    return theirs if same else shape.name


def _profile_doubt(fitted: FittedStepTime, badge: Badge) -> tuple[float, str]:
    """The common error of step times: the worst held-out total over the kinds of pass."""
    cells = [cell for cell in fitted.errors if not cell.cell]
    worst = max(cells, key=lambda cell: abs(cell.total_error), default=None)
    if worst is None:
        return TRANSFER_DOUBT, "an assumed error: the profile has no error table"
    told = f"the profile's held-out error ({worst.total_error:+.1%} on {worst.region} passes, {worst.method})"
    if badge == "transferred":
        return max(TRANSFER_DOUBT, abs(worst.total_error)), f"an assumed error of the transfer, at least {told}"
    return abs(worst.total_error), told
