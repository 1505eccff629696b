import pytest

from engine.core.sampling_params import SamplingParams
from roofline.errors import InputError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, f"seed is {2**63}"),
        ({"stop": "text"}, "stop is 'text'"),
        ({"stop": ("",)}, "stop is"),
        ({"stop_token_ids": (-1,)}, "stop_token_ids is"),
    ],
)
def test_a_value_outside_its_range_is_named(wrong, said):
    with pytest.raises(InputError, match=said):
        SamplingParams(**wrong)


def test_the_edges_of_the_ranges_are_allowed():
    params = SamplingParams(max_tokens=1, top_p=1.0, min_p=1.0, seed=2**63 - 1, min_tokens=1)
    assert params.is_greedy and params.is_filtered


def test_next_to_no_temperature_is_greedy():
    assert SamplingParams(temperature=1e-40).is_greedy and not SamplingParams(temperature=1e-4).is_greedy
