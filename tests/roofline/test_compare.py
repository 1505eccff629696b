import pytest

from roofline.analytic import AnalyticStepTime
from roofline.compare import Service, cheapest_replica, roof_cost
from roofline.errors import CapacityError, InfeasibleError, InputError
from roofline.hardware import Efficiency, accelerator
from roofline.parallelism import Parallelism
from tests.roofline.shapes import LLAMA_8B, LLAMA_70B

H100 = accelerator("H100")
USUAL = Efficiency.prior(H100)


def on_h100(shape=LLAMA_8B, degree=1) -> AnalyticStepTime:
    return AnalyticStepTime(shape, H100, USUAL, parallelism=Parallelism(degree))


def test_dollars_follow_from_time_and_price():
    service = Service(1024, 256)
    cost = roof_cost(LLAMA_8B, service, on_h100(), 4.0)
    request_s = cost.prefill_s + 256 * cost.tpot_s / cost.batch
    assert cost.usd_per_million_tokens == pytest.approx(request_s * 4.0 / 3600 / 1280 * 1e6)
    parts = 1024 * cost.usd_per_million_input_tokens + 256 * cost.usd_per_million_output_tokens
    assert parts == pytest.approx(1280 * cost.usd_per_million_tokens)
    assert cost.output_tokens_per_s == pytest.approx(256 / request_s)
    assert roof_cost(LLAMA_8B, service, on_h100(), 8.0).usd_per_million_tokens == 2 * cost.usd_per_million_tokens


def test_a_target_bounds_the_batch_and_raises_the_price():
    free, bounded = (roof_cost(LLAMA_8B, Service(tpot_s=target), on_h100(), 4.0) for target in (None, 0.02))
    assert bounded.batch < free.batch
    assert bounded.tpot_s <= 0.02 < on_h100().seconds(Service().decode_work(bounded.batch + 1))
    assert bounded.usd_per_million_tokens > free.usd_per_million_tokens


def test_the_datasheet_is_cheaper_than_what_is_usual():
    ideal = cheapest_replica(LLAMA_8B, Service(), H100, Efficiency.ideal(), 4.0)
    assert ideal.usd_per_million_tokens < cheapest_replica(LLAMA_8B, Service(), H100, USUAL, 4.0).usd_per_million_tokens


def test_the_cheapest_degree_is_no_dearer_than_any():
    best = cheapest_replica(LLAMA_70B, Service(), H100, USUAL, 4.0)
    for degree in (2, 4, 8):
        assert (
            best.usd_per_million_tokens
            <= roof_cost(LLAMA_70B, Service(), on_h100(LLAMA_70B, degree), 4.0).usd_per_million_tokens
        )


def test_what_does_not_fit_or_never_keeps_the_target_is_refused():
    with pytest.raises(CapacityError, match="does not fit 1 x H100"):
        roof_cost(LLAMA_70B, Service(), on_h100(LLAMA_70B), 4.0)
    with pytest.raises(InfeasibleError, match=r"one answer alone takes 6\.\d ms"):
        roof_cost(LLAMA_8B, Service(tpot_s=0.001), on_h100(), 4.0)
    with pytest.raises(InputError, match="prompt_tokens is 0"):
        Service(0)
    with pytest.raises(InputError, match="must be positive"):
        Service(tpot_s=0.0)
    with pytest.raises(InputError, match="'fp7'"):
        Service(weight_dtype="fp7")
