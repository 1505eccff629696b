"""What the engine and the simulator note down while they run; a trace's tables are made of it at the end.

Noting a step costs one tuple, so that measuring does not disturb what is measured.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from engine.core.batch import Batch
from engine.core.trace_schema import COUNT, KEYS, REQUEST_COLUMNS, SECONDS, STEP_COLUMNS, TEXT, TIMES

UNKNOWN_S = float("nan")
_EMPTY_COLUMN = {COUNT: "int64", SECONDS: "float64", TEXT: "object", TIMES: "object", KEYS: "object"}


@dataclass(frozen=True, slots=True)
class StepTiming:
    """When a step began and how long its parts took, in seconds; NaN where it was not measured."""

    start_s: float
    wall_s: float
    device_s: float = UNKNOWN_S
    schedule_s: float = UNKNOWN_S
    prepare_s: float = UNKNOWN_S
    sample_s: float = UNKNOWN_S


@dataclass(frozen=True, slots=True)
class StepKind:
    """How a step was run: `mode` eager or graph, `graph_batch` the captured batch size (0 in eager mode)."""

    mode: str = "eager"
    graph_batch: int = 0


EAGER = StepKind()


class StepLog:
    """The steps of one run, in order."""

    def __init__(self, kv_blocks_total: int) -> None:
        self._kv_blocks_total = kv_blocks_total
        self._rows: list[tuple[object, ...]] = []

    def add(self, batch: Batch, timing: StepTiming, kind: StepKind = EAGER, drafts: tuple[int, int] = (0, 0)) -> None:
        """Note one step; `drafts` are the speculative tokens proposed and accepted in it."""
        t, w = timing, batch.work
        self._rows.append(
            (
                *(len(self._rows), t.start_s, t.wall_s, t.device_s, t.schedule_s, t.prepare_s, t.sample_s),
                *(kind.mode, kind.graph_batch),
                *(w.num_prefill_seqs, w.prefill_tokens, w.prefill_kv_tokens, w.prefill_attn_pairs),
                *(w.num_decode_seqs, w.decode_tokens, w.decode_kv_tokens, w.decode_kv_max),
                *(batch.cached_tokens, *drafts, batch.kv_blocks_used, self._kv_blocks_total),
                *(batch.num_running, batch.num_waiting, len(batch.preempted)),
            )
        )

    def __len__(self) -> int:
        return len(self._rows)

    def table(self) -> pd.DataFrame:
        """The steps with the columns of `STEP_COLUMNS`."""
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(STEP_COLUMNS)
        named = zip(STEP_COLUMNS.items(), columns, strict=True)
        return pd.DataFrame({name: pd.Series(values, dtype=_EMPTY_COLUMN[dtype]) for (name, dtype), values in named})


@dataclass(slots=True)
class RequestRecord:
    """One request as it goes through, in the columns of `REQUEST_COLUMNS`; NaN where nothing happened yet."""

    request_id: str
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    session_id: str | None = None
    send_s: float = UNKNOWN_S
    cached_tokens: int = 0
    first_scheduled_s: float = UNKNOWN_S
    finish_s: float = UNKNOWN_S
    num_preemptions: int = 0
    finish_reason: str | None = None
    token_times_s: list[float] = field(default_factory=list)

    @property
    def output_tokens(self) -> int:
        """Tokens the request has yielded."""
        return len(self.token_times_s)

    @property
    def first_token_s(self) -> float:
        """When the first token came; NaN before it."""
        return self.token_times_s[0] if self.token_times_s else UNKNOWN_S


def requests_table(records: Iterable[RequestRecord]) -> pd.DataFrame:
    """The requests with the columns of `REQUEST_COLUMNS`, in the order given."""
    rows = list(records)
    columns = {}
    for name, dtype in REQUEST_COLUMNS.items():
        values = [getattr(row, name) for row in rows]
        if dtype == TIMES:
            values = [np.asarray(times, dtype=np.float64) for times in values]
        columns[name] = pd.Series(values, dtype=_EMPTY_COLUMN[dtype])
    return pd.DataFrame(columns)
