import pytest

from roofline import figures
from roofline.analytic import AnalyticStepTime
from roofline.compare import Service, cheapest_replica
from roofline.hardware import Efficiency, accelerator
from roofline.memory import memory_plan
from tests.roofline.shapes import DEEPSEEK_V2_LITE, LLAMA_8B
from tests.roofline.test_analytic import decode, prefill

H100 = accelerator("H100")
USUAL = Efficiency.prior(H100)
ESTIMATE = AnalyticStepTime(LLAMA_8B, H100, USUAL, weight_dtype="fp8")


@pytest.mark.parametrize("work", [decode(64, 1024), prefill(2048)])
def test_no_point_stands_above_its_roof(work):
    parts = ESTIMATE.breakdown(work)
    figure = figures.roofline_plot(ESTIMATE, parts)
    points = [(x, y) for trace in figure.data if "waits" in trace.name for x, y in zip(trace.x, trace.y, strict=True)]
    assert len(points) == sum(term.flop_per_byte is not None for term in parts.terms)
    for intensity, rate in points:
        assert rate <= min(1979e12, intensity * 3.35e12)
    roofs = {trace.name: trace for trace in figure.data if "datasheet" in trace.name}
    assert set(roofs) == {"datasheet, fp8", "datasheet, bf16"}  # the layers' products; attention and logits
    assert roofs["datasheet, bf16"].x[1] == pytest.approx(295, abs=0.5)


def test_points_that_lie_together_share_a_label():
    parts = ESTIMATE.breakdown(prefill(4096))
    labels = [text for trace in figures.roofline_plot(ESTIMATE, parts).data for text in (trace.text or ()) if text]
    assert any(text.split("<br>")[0] == "gate and up" and "down" in text for text in labels)
    assert sum("qkv" in text for text in labels) == 1


def test_bars_sum_to_the_pass_and_to_the_memory():
    parts = ESTIMATE.breakdown(decode(8, 512))
    assert sum(sum(trace.x) for trace in figures.step_bars(parts).data) == pytest.approx(parts.seconds * 1e3)
    stack = memory_plan(DEEPSEEK_V2_LITE, H100, USUAL).stack()
    assert sum(trace.x[0] for trace in figures.memory_stack({"bf16": stack}).data) == pytest.approx(80)


def test_cost_bars_sum_to_the_dollars():
    costs = [cheapest_replica(LLAMA_8B, Service(), H100, USUAL, usd) for usd in (4.0, 5.0)]
    drawn = figures.cost_bars(costs).data
    for index, cost in enumerate(costs):
        assert sum(trace.x[index] for trace in drawn) == pytest.approx(cost.usd_per_million_tokens)


def test_the_page_opens_offline_and_names_are_only_text(tmp_path):
    page = tmp_path / "new" / "step.html"
    figures.write(page, "<b>my & model</b>", [figures.step_bars(ESTIMATE.breakdown(decode(1)))])
    text = page.read_text()
    assert "&lt;b&gt;my &amp; model&lt;/b&gt;" in text
    assert '<script src="http' not in text
