"""The same question to a grid of scenarios: any field of a scenario may vary, points run on several processes.

Every point is a scenario of its own, and its answer is stored as soon as it is known, in a file named by the hash of
all that the answer depends on: the scenario with its defaults, the question, the files it names, the project's version.
So a sweep that was stopped goes on where it was, a grown grid computes its new points only, and two sweeps into one
folder share what they have in common. A point that cannot be answered is an answer too: its row says why.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from roofline.errors import HeadroomError, InfeasibleError
from roofline.files import write_whole
from simulator.deployment import resolve
from simulator.grid import Point, Question
from simulator.output.rows import Row, capacity_row, plan_row, run_row
from simulator.parallel import ALONE, Workers, unordered
from simulator.planning.capacity import Effort, capacity
from simulator.planning.cost import cost_of
from simulator.planning.criteria import is_precise
from simulator.planning.plan import plan
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario
from simulator.scenario_file import to_mapping

RESULT_FILE, POINTS = "sweep.parquet", "points"


def sweep(
    points: Sequence[Point],
    question: Question,
    folder: Path,
    workers: Workers = ALONE,
    done: Callable[[int], None] = lambda count: None,
) -> pd.DataFrame:
    """The answers to all points, a row each in the points' order; stored ones are taken from `folder`.

    `done` is told of every n points more. Columns: the varied fields, `status` (answered, infeasible, refused),
    `message`, and those of `simulator.output.rows`.
    """
    store = folder / POINTS
    store.mkdir(parents=True, exist_ok=True)
    missing = {point.key: point for point in points if not (store / f"{point.key}.parquet").exists()}
    done(len(points) - len(missing))
    tasks = [(point.scenario, store / f"{key}.parquet") for key, point in missing.items()]
    for _ in unordered(partial(_answer_and_store, question), tasks, workers):
        done(1)
    stored = {point.key: pq.read_table(store / f"{point.key}.parquet").to_pylist()[0] for point in points}
    table = _of_one_kind(pd.DataFrame([_shown(point.values) | stored[point.key] for point in points]))
    _write_table(pa.Table.from_pandas(table, preserve_index=False), folder / RESULT_FILE)
    return table


def num_stored(points: Sequence[Point], folder: Path) -> int:
    """Points whose answer is there already."""
    return sum((folder / POINTS / f"{point.key}.parquet").exists() for point in points)


def answer(scenario: Scenario, question: Question) -> Row:
    """One point's row; what the scenario cannot be asked is its `status` and `message`."""
    try:
        return {"status": "answered", "message": None, **_ask(scenario, question)}
    except InfeasibleError as error:
        return {"status": "infeasible", "message": str(error)}
    except HeadroomError as error:
        return {"status": "refused", "message": str(error)}


def _ask(scenario: Scenario, question: Question) -> Row:
    if question == "plan":
        return plan_row(plan(scenario))
    if question == "capacity":
        return capacity_row(capacity(scenario, effort=Effort(doubt=False)))
    result = steady_run(resolve(scenario), scenario.fleet.replicas, is_precise)
    return run_row(result, cost_of(scenario, result) if result.output_tokens_per_s else None)


def _answer_and_store(question: Question, task: tuple[Scenario, Path]) -> None:
    scenario, path = task
    row = answer(scenario, question)
    text = json.dumps(to_mapping(scenario), sort_keys=True)
    _write_table(pa.Table.from_pylist([row | {"scenario": text}]), path)


def _write_table(table: pa.Table, path: Path) -> None:
    """Write parquet whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def _of_one_kind(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of numbers and words together, as of lengths and their shorthands, all in words."""
    mixed = [name for name in table if len({isinstance(value, str) for value in table[name].dropna()}) > 1]
    return table.assign(**{str(name): table[name].map(str, na_action="ignore") for name in mixed})


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """The varied values as a table holds them: sections as JSON."""
    return {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
