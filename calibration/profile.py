"""A fitted model as one JSON file: written whole or not at all, read with every field checked, matched to a trace."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from calibration.accuracy import ErrorCell
from calibration.fitted import (
    LAGS,
    QUANTILES,
    RANGE_AMOUNTS,
    FittedStepTime,
    Provenance,
    ResidualStats,
    RowCount,
    ValidRange,
)
from calibration.form import JOINS, SCOPES, TERMS, StepTimeForm
from calibration.measurements import REGIONS, differences, identity
from roofline.errors import ProfileError
from roofline.files import write_whole

SCHEMA_VERSION = 1
SHIPPED = Path(__file__).parent / "profiles"

Badge = Literal["calibrated", "transferred"]


def as_json(profile: FittedStepTime) -> dict[str, Any]:
    """The profile as plain JSON values."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "form": {"join": profile.form.join, "scope": profile.form.scope, "costs": profile.form.costs},
        "valid_range": profile.valid_range.largest,
        "residuals": {
            "quantile_levels": list(QUANTILES),
            "lags": list(LAGS),
            "regions": {region: asdict(stats) for region, stats in profile.residuals.items()},
        },
        "provenance": asdict(profile.provenance),
        "rows": asdict(profile.rows),
        "errors": [cell.as_dict() for cell in profile.errors],
        "notes": list(profile.notes),
    }
    plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))  # tuples become lists here, not on disk
    return plain


def from_json(document: Any, place: str) -> FittedStepTime:
    """The profile in a JSON document; raises ProfileError naming `place` and the field that is wrong."""
    if not isinstance(document, dict) or "schema_version" not in document:
        raise ProfileError(f"{place} is no profile (no schema_version); write one with `calibration fit`.")
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise ProfileError(
            f"{place} has schema_version {version!r}, this release reads {SCHEMA_VERSION}; fit the trace again."
        )
    try:
        return FittedStepTime(
            form=_form(document["form"]),
            valid_range=_valid_range(document["valid_range"]),
            residuals={name: _stats(row) for name, row in document["residuals"]["regions"].items()},
            provenance=_provenance(document["provenance"]),
            errors=tuple(ErrorCell(**row) for row in document["errors"]),
            rows=RowCount(**document["rows"]),
            notes=tuple(document["notes"]),
        )
    except KeyError as error:
        raise ProfileError(f"{place} lacks the field {error}; fit the trace again.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ProfileError(f"{place} is not a sound profile ({error}); fit the trace again.") from error


def _form(value: Mapping[str, Any]) -> StepTimeForm:
    if value["join"] not in JOINS or value["scope"] not in SCOPES:
        raise ValueError(f"join {value['join']!r} with scope {value['scope']!r} is unknown")
    if unknown := set(value["costs"]) - set(TERMS):
        raise ValueError(f"cost {min(unknown)!r} is unknown")
    costs = {name: float(value["costs"][name]) for name in TERMS}
    for name, cost in costs.items():
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost {name} is {cost}; costs are finite and at least 0")
    if costs["fixed_s"] <= 0:
        raise ValueError("cost fixed_s is 0; a step takes time")
    return StepTimeForm(**costs, join=value["join"], scope=value["scope"])


def _valid_range(value: Mapping[str, Mapping[str, Any]]) -> ValidRange:
    if unknown := set(value) - set(REGIONS):
        raise ValueError(f"valid_range {min(unknown)!r} is unknown")
    return ValidRange({region: {n: float(limits[n]) for n in RANGE_AMOUNTS} for region, limits in value.items()})


def _stats(row: Mapping[str, Any]) -> ResidualStats:
    quantiles, autocorrelation = tuple(map(float, row["quantiles"])), tuple(row["autocorrelation"])
    if len(quantiles) != len(QUANTILES) or len(autocorrelation) != len(LAGS):
        raise ValueError("residuals have another number of quantiles or lags")
    return ResidualStats(int(row["n"]), float(row["mean"]), float(row["std"]), quantiles, autocorrelation)


def _provenance(row: Mapping[str, Any]) -> Provenance:
    return Provenance(**{**row, "sources": tuple(row["sources"])})


def save(profile: FittedStepTime, path: Path) -> None:
    """Write the profile; an interruption leaves the old file, or none, in its place."""
    write_whole(path, json.dumps(as_json(profile), indent=1) + "\n")


def load(path: Path) -> FittedStepTime:
    """Read a profile; raises ProfileError where the file is missing, no JSON, or not sound."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileError(f"{path} does not exist; write it with `calibration fit TRACE --out {path}`.") from error
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path} cannot be read as JSON ({error}); fit the trace again.") from error
    return from_json(document, str(path))


def shipped() -> dict[str, FittedStepTime]:
    """The profiles that come with the project, by file stem."""
    return {path.stem: load(path) for path in sorted(SHIPPED.glob("*.json"))}


def check_compatible(profile: FittedStepTime, trace_meta: Mapping[str, Any], transfer: bool = False) -> Badge:
    """Whether the profile speaks for this trace: "calibrated", or "transferred" where the caller asked for it.

    Raises ProfileError where hardware, model, parallelism or weight format differ and no transfer was asked for. What
    either side does not state cannot differ.
    """
    wrong = differences(profile.provenance.identity, identity(trace_meta))
    if not wrong:
        return "calibrated"
    if transfer:
        return "transferred"
    told = "; ".join(
        f"{name} is {theirs} in the trace, {ours} in the profile" for name, (ours, theirs) in wrong.items()
    )
    raise ProfileError(f"the profile was fitted on something else: {told}. Fit one for it, or ask with --transfer.")


def unstated(profile: FittedStepTime, trace_meta: Mapping[str, Any]) -> list[str]:
    """What of hardware, model, parallelism and weights could not be compared, as one side does not state it."""
    ours, theirs = profile.provenance.identity, identity(trace_meta)
    return [name for name in ours if ours[name] is None or theirs[name] is None]
