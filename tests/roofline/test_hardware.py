import json
from dataclasses import replace

import pytest

from roofline.catalogue_data import shipped_rows
from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.prices import price

NAMES = [row["name"] for row in shipped_rows("accelerators")]
ROW = {
    "name": "Toy",
    "kind": "gpu",
    "memory_bytes": 1e9,
    "memory_bytes_per_s": 1e11,
    "dense_flops_per_s": {"bfloat16": 1e12},
    "link_bytes_per_s": 0,
    "tdp_w": 10,
    "source": "a test",
    "date": "2026-11",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_a_dense_accelerator_with_a_source_and_a_date(name):
    spec = accelerator(name)
    assert spec.source
    assert spec.date.startswith("20")
    assert spec.note or not spec.estimate, "an estimate says what is uncertain"
    # A sparse or fp16-accumulate rate among dense ones shows as a ratio other than two.
    rates = spec.dense_flops_per_s
    for narrow in ("fp8", "int8"):
        assert rates.get(narrow, 2 * rates["bf16"]) == pytest.approx(2 * rates["bf16"], rel=0.02)
    # Datasheets of the last five years lie between these ridges; a unit mistake of 1000 does not.
    assert 80 < spec.ridge_flop_per_byte("bf16") < 450
    assert 16e9 < spec.memory_bytes < 400e9


def test_names_are_unique_and_found_in_any_case_and_by_alias():
    assert len({name.lower() for name in NAMES}) == len(NAMES)
    assert accelerator("h100") == accelerator("NVIDIA H100 80GB HBM3") == accelerator("H100")
    with pytest.raises(InputError, match="known are A100, H100"):
        accelerator("Z9")


def test_every_price_has_an_accelerator_and_rises():
    for row in shipped_rows("prices"):
        found = price(row["accelerator"].lower())
        assert found.low <= found.typical <= found.high
        assert accelerator(found.accelerator).name == found.accelerator
    with pytest.raises(InputError, match="no price is known for accelerator 'MI355X'"):
        price("MI355X")


def test_user_files_come_first_and_share_the_schema(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"accelerators": [ROW, {**ROW, "name": "H100"}]}))
    assert accelerator("toy", file).flops_per_s("bf16") == 1e12
    assert accelerator("H100", file).source == "a test"
    assert accelerator("A100", file) == accelerator("A100")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", 'no list "accelerators"'),
        ('{"accelerators": [{"name": "toy"}]}', "lacks .*memory_bytes"),
        (json.dumps({"accelerators": [{**ROW, "tflops": 1}]}), "unknown fields tflops"),
        (json.dumps({"accelerators": [{**ROW, "memory_bytes": -1}]}), "memory_bytes = -1"),
        (json.dumps({"accelerators": [{**ROW, "memory_bytes_per_s": "fast"}]}), "'fast'"),
        (json.dumps({"accelerators": [{**ROW, "dense_flops_per_s": {}}]}), "no dense_flops_per_s"),
        (json.dumps({"accelerators": [{**ROW, "dense_flops_per_s": 1e12}]}), "dense_flops_per_s"),
        (json.dumps({"accelerators": [{**ROW, "link_bytes_per_s": "PCIe"}]}), "link_bytes_per_s = 'PCIe'"),
        (json.dumps({"accelerators": [{**ROW, "kind": "tpu"}]}), "gpu or cpu"),
    ],
)
def test_a_wrong_user_file_is_one_clear_error(tmp_path, text, message):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        accelerator("toy", file)


def test_a_missing_user_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json cannot be read"):
        accelerator("toy", tmp_path / "absent.json")


def test_four_bit_weights_compute_in_bf16_and_old_hardware_widens():
    assert accelerator("H100").compute_format("int4") == "bf16"
    assert accelerator("A100").compute_format("fp8") == "bf16"
    assert accelerator("H100").flops_per_s("fp8") == 1979e12
    cpu = HardwareSpec.measured_cpu(20e9, {"float32": 1e11}, 16e9)
    assert cpu.compute_format("bf16") == "fp32"


def test_measured_cpu_keeps_its_figures():
    cpu = HardwareSpec.measured_cpu(20e9, {"float32": 1e11}, 16e9, "bench machine")
    assert (cpu.name, cpu.kind, cpu.memory_bytes_per_s, cpu.flops_per_s("fp32")) == ("bench machine", "cpu", 20e9, 1e11)
    with pytest.raises(InputError, match="memory_bytes_per_s = 0"):
        HardwareSpec.measured_cpu(0, {"fp32": 1e11}, 16e9)


def test_priors_are_those_of_the_accelerator():
    priors = {name: Efficiency.prior(accelerator(name)).compute for name in ("H100", "A100", "L40S", "L4")}
    assert priors == {"H100": 0.45, "A100": 0.38, "L40S": 0.32, "L4": 0.4}
    with pytest.raises(InputError, match=r"efficiency compute is 1\.2"):
        replace(Efficiency(), compute=1.2)
