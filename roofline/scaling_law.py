"""How large a model and how many tokens: the loss that training reaches, and the cheapest way to a loss.

The loss is Hoffmann et al. (2022)'s, L = E + A / N^a + B / D^b. Training costs 6 N D FLOPs; a token served later costs
2 N, so the more a model will serve, the smaller it should be, and the longer trained (Sardana et al., 2024).
"""

import math
from dataclasses import dataclass

from scipy.optimize import minimize_scalar

from roofline.errors import InputError

TOKENS_PER_PARAMETER = 20.0  # the rule of thumb of Hoffmann et al.
TRAIN_FLOPS = 6.0  # per weight and token
SERVE_FLOPS = 2.0


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """Coefficients of the loss; the defaults are Hoffmann et al.'s third approach, exponents before rounding.

    Rounded to 0.34 and 0.28, as often printed, they move the optimum of a 13B model from 44 to 76 tokens a parameter.
    """

    irreducible: float = 1.69
    size_factor: float = 406.4
    size_exponent: float = 0.336
    data_factor: float = 410.7
    data_exponent: float = 0.283

    def loss(self, parameters: float, tokens: float) -> float:
        """Loss after training so many parameters on so many tokens."""
        of_size: float = self.size_factor / parameters**self.size_exponent
        of_data: float = self.data_factor / tokens**self.data_exponent
        return self.irreducible + of_size + of_data

    def tokens_for(self, loss: float, parameters: float) -> float:
        """Tokens after which so many parameters reach a loss; infinity where they never do."""
        rest: float = loss - self.irreducible - self.size_factor / parameters**self.size_exponent
        return float((self.data_factor / rest) ** (1 / self.data_exponent)) if rest > 0 else math.inf


HOFFMANN = ScalingLaw()
# Besiroglu et al. (2024), fitted again to the same runs.
BESIROGLU = ScalingLaw(1.8172, 482.01, 0.3478, 2085.43, 0.3658)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model will serve in its life, and how efficiently; prices are relative, per FLOP at the peak.

    `mfu` of training, of reading prompts and of writing answers turn FLOPs into accelerator time.
    """

    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    train_mfu: float = 1.0
    prompt_mfu: float = 1.0
    output_mfu: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative amounts and shares outside (0, 1]."""
        for name in ("prompt_tokens", "output_tokens"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"demand has {name} = {getattr(self, name)}; it must not be negative.")
        for name in ("train_mfu", "prompt_mfu", "output_mfu"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"demand has {name} = {getattr(self, name)}; it must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class Optimum:
    """A model size and a number of training tokens, with what they cost as FLOPs at the peak."""

    parameters: float
    tokens: float
    loss: float
    train_flops: float
    lifetime_flops: float  # training and serving, each over its MFU

    @property
    def tokens_per_parameter(self) -> float:
        """Training tokens for each parameter."""
        return self.tokens / self.parameters


def plan_for(parameters: float, tokens: float, demand: Demand, law: ScalingLaw = HOFFMANN) -> Optimum:
    """What a size and a number of training tokens come to."""
    train = TRAIN_FLOPS * parameters * tokens
    serving = demand.prompt_tokens / demand.prompt_mfu + demand.output_tokens / demand.output_mfu
    lifetime = train / demand.train_mfu + SERVE_FLOPS * parameters * serving
    return Optimum(parameters, tokens, law.loss(parameters, tokens), train, lifetime)


def rule_of_thumb(train_flops: float) -> tuple[float, float]:
    """Parameters and tokens for a budget at 20 tokens a parameter."""
    if not 0 < train_flops < math.inf:
        raise InputError(f"a training budget of {train_flops} FLOPs has no meaning; it must be positive.")
    parameters = math.sqrt(train_flops / (TRAIN_FLOPS * TOKENS_PER_PARAMETER))
    return parameters, TOKENS_PER_PARAMETER * parameters


def cheapest(loss: float, demand: Demand | None = None, law: ScalingLaw = HOFFMANN) -> Optimum:
    """The size and tokens that reach a loss at the least cost of training and lifetime serving.

    Without demand it is the compute-optimal model of that loss. Raises `InputError` for a loss that none reaches.
    """
    demand = demand or Demand()
    if not law.irreducible < loss < math.inf:
        raise InputError(f"a loss of {loss} is out of reach; no model gets below {law.irreducible}.")
    least = (law.size_factor / (loss - law.irreducible)) ** (1 / law.size_exponent)

    def cost(log_ratio: float) -> float:
        parameters = least * math.exp(log_ratio)
        return math.log(plan_for(parameters, law.tokens_for(loss, parameters), demand, law).lifetime_flops)

    # From a hair above the size that needs endless data to one that needs next to none.
    found = minimize_scalar(cost, bounds=(1e-4, 20.0), method="bounded", options={"xatol": 1e-8})
    parameters = least * math.exp(float(found.x))
    return plan_for(parameters, law.tokens_for(loss, parameters), demand, law)
