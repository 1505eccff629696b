"""What meta.json says is read once, whether it is ours or a foreign trace's shorter one."""

import pytest

from engine.core.trace import Trace
from engine.core.trace_meta import (
    ClientLink,
    client_link,
    engine_settings,
    hardware_count,
    hardware_name,
    model_name,
    tensor_parallel,
)
from roofline.errors import TraceError


def test_names_may_be_objects_or_plain():
    full = Trace({"model": {"name": "m", "shape": {}}, "hardware": {"name": "h", "count": 4}, "tensor_parallel": 4})
    assert (model_name(full), hardware_name(full), hardware_count(full), tensor_parallel(full)) == ("m", "h", 4, 4)
    short = Trace({"model": "m", "hardware": "h", "tensor_parallel": 2})
    assert (model_name(short), hardware_name(short), hardware_count(short)) == ("m", "h", 2)


def test_what_is_silent_has_the_plain_default():
    trace = Trace({})
    assert (tensor_parallel(trace), hardware_count(trace)) == (1, 1)
    assert client_link(trace) == ClientLink() == ClientLink(None, 0.0, 0.0)
    assert engine_settings(trace) == {}


def test_engine_settings_are_those_that_are_known():
    meta = {"engine_config": {"block_size": 32, "num_blocks": None, "gpu_memory_utilization": 0.9}}
    assert engine_settings(Trace(meta)) == {"block_size": 32}


def test_the_client_is_as_described():
    link = client_link(Trace({"client": {"max_concurrency": 8, "to_engine_s": 0.002, "to_client_s": None}}))
    assert link == ClientLink(8, 0.002, 0.0)


@pytest.mark.parametrize(
    ("meta", "read", "message"),
    [
        ({}, model_name, "gives no model name"),
        ({"hardware": {"count": 1}}, hardware_name, "gives no hardware name"),
        ({"tensor_parallel": 0}, tensor_parallel, "tensor_parallel is 0"),
        ({"tensor_parallel": True}, tensor_parallel, "tensor_parallel is True"),
        ({"hardware": {"name": "h", "count": "two"}}, hardware_count, "hardware.count is 'two'"),
        ({"engine_config": [1]}, engine_settings, "must be an object of settings"),
        ({"client": {"to_engine_s": -1.0}}, client_link, "client.to_engine_s is -1.0"),
        ({"client": {"to_client_s": "2"}}, client_link, "client.to_client_s is '2'"),
        ({"client": {"to_client_s": float("nan")}}, client_link, "client.to_client_s is nan"),
        ({"client": [1]}, client_link, "client is .1.; it must be an object"),
        ({"engine_config": {"num_blocks": "many"}}, engine_settings, "engine_config.num_blocks is 'many'"),
        ({"engine_config": {"block_size": True}}, engine_settings, "engine_config.block_size is True"),
        ({"engine_config": {"async_scheduling": 1}}, engine_settings, "engine_config.async_scheduling is 1"),
        ({"client": {"max_concurrency": 0}}, client_link, "client.max_concurrency is 0"),
    ],
)
def test_a_wrong_value_is_named(meta, read, message):
    with pytest.raises(TraceError, match=message) as error:
        read(Trace(meta, source="folder"))
    assert "folder/meta.json" in str(error.value)
