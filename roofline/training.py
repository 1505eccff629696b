"""What training a model takes: memory on each accelerator, FLOPs, days and dollars. Arithmetic, not a measurement.

Mixed precision keeps, for every trained weight, a 16-bit copy, a 16-bit gradient and the optimizer's state; ZeRO's
stages (FSDP is the third) divide the state, the gradients and the weights among the accelerators. LoRA trains small
matrices beside frozen ones; QLoRA stores the frozen ones in four bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from roofline.errors import InputError
from roofline.hardware import HardwareSpec
from roofline.memory import checkpoint_bytes
from roofline.model_shape import ModelShape

# Bytes of state per trained weight. AdamW: an fp32 copy of the weight and two fp32 moments.
OPTIMIZER_BYTES = {"adamw": 12.0, "adamw-8bit": 4.0 + 1.0 + 1.0, "sgd-momentum": 8.0}
HALF_BYTES = 2  # of a 16-bit number
LOGIT_BYTES = 4 + 4  # of a logit and of its gradient, in fp32
QLORA_FORMAT = "nf4-double"
SECONDS_PER_DAY = 86400.0
SMALLEST_MICRO_BATCH = 512  # tokens; below it, training is no longer bound by compute


@dataclass(frozen=True, slots=True)
class Copies:
    """Models of the same size that a method holds beside each other, and the passes each token takes.

    `generates` says that the tokens are first sampled from the policy.
    """

    trained: int
    frozen: int
    generates: bool = False

    @property
    def total(self) -> int:
        """All copies."""
        return self.trained + self.frozen


COPIES: dict[str, Copies] = {
    "pretrain": Copies(1, 0),
    "sft": Copies(1, 0),
    "dpo": Copies(1, 1),  # policy; reference
    "grpo": Copies(1, 1, generates=True),  # policy; reference; rewards by rule
    "ppo": Copies(2, 2, generates=True),  # policy and value; reference and reward
}


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """How a model is trained."""

    accelerators: int = 8
    zero_stage: int = 3  # 0 none, 1 optimizer, 2 and gradients, 3 and weights (FSDP)
    method: str = "pretrain"
    adapter: str = "full"  # or lora, qlora
    lora_rank: int = 16
    optimizer: str = "adamw"
    gradient_bytes: int = HALF_BYTES  # 4 where gradients are summed in fp32
    micro_batch_tokens: int = 8192  # on one accelerator at a time
    checkpointing: bool = True  # keep each layer's input only and compute the layer again

    def __post_init__(self) -> None:
        """Refuse settings that do not exist."""
        choices = {
            "zero_stage": (0, 1, 2, 3),
            "method": tuple(COPIES),
            "adapter": ("full", "lora", "qlora"),
            "optimizer": tuple(OPTIMIZER_BYTES),
            "gradient_bytes": (2, 4),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"training has {name} {getattr(self, name)!r}; use one of {', '.join(map(str, known))}."
                )
        for name in ("accelerators", "lora_rank", "micro_batch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"training has {name} = {getattr(self, name)}; it must be at least 1.")

    def divided(self, stage: int) -> int:
        """Accelerators among which what `stage` divides is divided."""
        return self.accelerators if self.zero_stage >= stage else 1


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes on each accelerator, by part."""

    parts: Mapping[str, float] = field(hash=False)

    @property
    def total_bytes(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def state_bytes(num_parameters: float, setup: TrainingSetup) -> dict[str, float]:
    """Bytes on each accelerator of the weights, gradients and optimizer state of one model trained in full."""
    return {
        "weights": num_parameters * HALF_BYTES / setup.divided(3),
        "gradients": num_parameters * setup.gradient_bytes / setup.divided(2),
        "optimizer": num_parameters * OPTIMIZER_BYTES[setup.optimizer] / setup.divided(1),
    }


def training_memory(shape: ModelShape, setup: TrainingSetup) -> TrainingMemory:
    """Memory on each accelerator. With adapters, frozen copies of the same base are the base without the adapter."""
    copies = COPIES[setup.method]
    trained = trained_parameters(shape, setup)
    states = {name: copies.trained * size for name, size in state_bytes(trained, setup).items()}
    stored = checkpoint_bytes(shape, QLORA_FORMAT if setup.adapter == "qlora" else "bf16") / setup.divided(3)
    if setup.adapter == "full":
        parts = {**states, "frozen copies": copies.frozen * stored}
    else:
        # Policy and reference share one base; so do reward and value models where they start from it.
        parts = {"frozen weights": stored, **{f"adapter {name}": size for name, size in states.items()}}
    if setup.zero_stage == 3:
        # The layer at hand and the next one, gathered whole.
        largest = shape.layer_linear_parameters / shape.num_layers
        parts["gathered layers"] = 2 * largest * HALF_BYTES
    parts |= activation_parts(shape, setup)
    return TrainingMemory({name: size for name, size in parts.items() if size})


def activation_parts(shape: ModelShape, setup: TrainingSetup) -> dict[str, float]:
    """What the backward pass needs of the forward pass of one micro batch, with attention that keeps no scores."""
    layer = _saved_elements(shape) * HALF_BYTES
    kept = shape.num_layers * (shape.hidden_size * HALF_BYTES if setup.checkpointing else layer)
    at_hand = layer if setup.checkpointing else 0
    return {
        "activations": setup.micro_batch_tokens * (kept + at_hand),
        "logits": setup.micro_batch_tokens * shape.vocab_size * LOGIT_BYTES,
    }


def _saved_elements(shape: ModelShape) -> float:
    """Elements of one token that the backward pass of one layer reads, the mean over layers.

    The two norms' inputs and outputs, q, k, v, attention's output, gate, up and their product.
    """
    mixed = shape.num_heads * (shape.mla.v_head_dim if shape.mla else shape.head_dim)
    keys_and_values = shape.q_size + mixed if shape.mla else 2 * shape.kv_size
    attention = shape.q_size + keys_and_values + mixed
    width = shape.num_dense_layers * shape.intermediate_size
    if shape.moe:
        active = shape.moe.experts_per_token * shape.moe.intermediate_size + shape.moe.shared_intermediate_size
        width += shape.num_moe_layers * active
    return 4 * shape.hidden_size + attention + 3 * width / shape.num_layers


def trained_parameters(shape: ModelShape, setup: TrainingSetup) -> int:
    """Weights that get a gradient, of one trained model: all, or adapters on every matrix of every layer."""
    return shape.num_parameters if setup.adapter == "full" else lora_parameters(shape, setup.lora_rank)


def lora_parameters(shape: ModelShape, rank: int) -> int:
    """Weights of adapters of `rank` on all linear matrices of all layers, routed experts left out.

    A matrix of k x n gets k x rank and rank x n.
    """
    hidden = shape.hidden_size
    mlps = [(shape.num_dense_layers, shape.intermediate_size)]
    if shape.moe:
        mlps.append((shape.num_moe_layers, shape.moe.shared_intermediate_size))
    sides = shape.num_layers * _attention_sides(shape)
    sides += sum(layers * 3 * (hidden + width) for layers, width in mlps if width)
    return rank * sides


def _attention_sides(shape: ModelShape) -> int:
    """Input plus output widths of one layer's attention matrices, summed."""
    hidden = shape.hidden_size
    if not shape.mla:
        return (hidden + shape.q_size) + 2 * (hidden + shape.kv_size) + (shape.q_size + hidden)
    mla, heads = shape.mla, shape.num_heads
    query = [(hidden, shape.q_size)]
    if mla.q_lora_rank:
        query = [(hidden, mla.q_lora_rank), (mla.q_lora_rank, shape.q_size)]
    expand = (mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim))
    matrices = [*query, (hidden, mla.cache_elements), expand, (heads * mla.v_head_dim, hidden)]
    return sum(rows + columns for rows, columns in matrices)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """FLOPs, time and money of one run; all accelerators together."""

    train_flops: float  # of the model: 6 N D where all is trained
    hardware_flops: float  # with what checkpointing computes again
    generation_flops: float
    seconds: float
    usd: float | None

    @property
    def days(self) -> float:
        """Wall time in days."""
        return self.seconds / SECONDS_PER_DAY


@dataclass(frozen=True, slots=True)
class Speed:
    """How much of the accelerators' peak a run reaches: assumptions to be replaced by measurements."""

    mfu: float = 0.4  # model FLOPs over peak while training; what checkpointing computes again does not count
    generation_mfu: float = 0.1  # while sampling, which is bound by memory

    def __post_init__(self) -> None:
        """Refuse shares outside (0, 1]."""
        for name in ("mfu", "generation_mfu"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"training has {name} {getattr(self, name)}; it must be above 0 and at most 1.")


def flops_per_token(shape: ModelShape, setup: TrainingSetup) -> float:
    """Of forward and backward passes: 6 for each active weight trained in full, by method and adapter.

    A forward pass takes 2, gradients of the activations 2, gradients of the weights 2, which frozen weights do not get.
    """
    copies = COPIES[setup.method]
    backward = 4 if setup.adapter == "full" else 2
    return shape.active_parameters * (copies.trained * (2 + backward) + copies.frozen * 2)


def recomputed_flops_per_token(shape: ModelShape, setup: TrainingSetup) -> float:
    """Of the forward passes that checkpointing runs a second time."""
    return 2.0 * shape.active_parameters * COPIES[setup.method].trained if setup.checkpointing else 0.0


def training_run(
    shape: ModelShape,
    setup: TrainingSetup,
    hardware: HardwareSpec,
    tokens: float,
    *,
    speed: Speed | None = None,
    usd_per_hour: float | None = None,
) -> TrainingRun:
    """Time and money for `tokens` in all; `usd_per_hour` of one accelerator, None where no price is known."""
    if not 0 < tokens < float("inf"):
        raise InputError(f"training on {tokens} tokens has no meaning; state how many.")
    speed = speed or Speed()
    peak = setup.accelerators * hardware.flops_per_s("bf16")
    train = flops_per_token(shape, setup) * tokens
    on_device = train + recomputed_flops_per_token(shape, setup) * tokens
    if speed.mfu * on_device > train:
        raise InputError(
            f"an MFU of {speed.mfu:.0%} with {on_device / train - 1:.0%} of FLOPs computed again is more than the "
            "peak; lower the MFU, or do without checkpointing."
        )
    generate = 2.0 * shape.active_parameters * tokens if COPIES[setup.method].generates else 0.0
    seconds = train / (peak * speed.mfu) + generate / (peak * speed.generation_mfu)
    usd = None if usd_per_hour is None else seconds / 3600 * setup.accelerators * usd_per_hour
    return TrainingRun(train, on_device, generate, seconds, usd)


def changes_that_fit(shape: ModelShape, setup: TrainingSetup, hardware: HardwareSpec) -> list[str]:
    """Single changes, the smallest of each kind, that bring the memory below the accelerator's; in words."""
    more = [(f"{n} accelerators", replace(setup, accelerators=n)) for n in _doubled(setup.accelerators)]
    smaller = [(f"micro batches of {n:,} tokens", replace(setup, micro_batch_tokens=n)) for n in _halved(setup)]
    kinds = [
        [(f"ZeRO stage {n}", replace(setup, zero_stage=n)) for n in range(setup.zero_stage + 1, 4)],
        [("checkpointing of activations", replace(setup, checkpointing=True))],
        smaller,
        more if setup.zero_stage else [(f"{text} at ZeRO stage 3", replace(one, zero_stage=3)) for text, one in more],
        [("LoRA", replace(setup, adapter="lora")), ("QLoRA", replace(setup, adapter="qlora"))],
    ]

    def fits(one: TrainingSetup) -> bool:
        return training_memory(shape, one).total_bytes <= hardware.memory_bytes

    firsts = (next((text for text, one in kind if one != setup and fits(one)), None) for kind in kinds)
    return [text for text in firsts if text is not None]


def _doubled(accelerators: int) -> list[int]:
    return [accelerators * 2**n for n in range(1, 13)]


def _halved(setup: TrainingSetup) -> list[int]:
    sizes = [setup.micro_batch_tokens // 2**n for n in range(1, 8)]
    return [size for size in sizes if size >= SMALLEST_MICRO_BATCH]
