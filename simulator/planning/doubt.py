"""How far all step times together may be off, which no number of simulated requests can tell."""

from simulator.deployment import TRANSFER_DOUBT, Deployment
from simulator.output.results import RunResult

TRIFLE = 0.005  # of the step time: less doubt moves no answer


def step_time_doubt(deployment: Deployment, result: RunResult) -> tuple[float, str]:
    """The common error to reckon with, as a fraction, and what it rests on.

    It is larger the more of the busy time lies beyond the measurements.
    """
    beyond = result.occupancy.extrapolated
    known, extrapolated = deployment.step_time_doubt, TRANSFER_DOUBT * beyond
    if extrapolated <= known:
        return known, deployment.doubt_source
    return extrapolated, f"an assumed error, as {beyond:.0%} of the busy time lies beyond the profile's measurements"
