"""Which models the engine computes: of what is compiled for it, and of what it refuses to load."""

from roofline.model_shape import ModelShape


def unsupported_traits(shape: ModelShape) -> list[str]:
    """What of a shape is more than RMSNorm, grouped-query attention of one reach in all layers, and a dense SwiGLU."""
    traits = {
        "experts": shape.moe,
        "latent attention": shape.mla,
        "sliding windows in some layers": 0 < shape.sliding_layers < shape.num_layers,
        "norms after its blocks": shape.post_norms,
        "attention sinks": shape.attention_sinks,
        f"{shape.activation} activations": shape.activation != "silu",
        "partly rotated heads": shape.rotary_fraction != 1.0,
    }
    return [trait for trait, present in traits.items() if present]
