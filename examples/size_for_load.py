"""How many GPUs at each load? Plans one scenario at several rates and prints a table as CSV.

python examples/size_for_load.py examples/chat-h100.yaml 20 40 80
"""

import csv
import sys

from roofline.errors import HeadroomError
from simulator.planning.plan import plan
from simulator.scenario_file import load, with_changes


def main(path: str, rates: list[str]) -> None:
    scenario = load(path)
    table = csv.writer(sys.stdout)
    table.writerow(["requests/s", "GPUs", "replicas, low", "replicas, high", "$/hour", "binding constraint"])
    for rate in rates:
        found = plan(with_changes(scenario, {"workload.request_rate": float(rate)}))
        dollars = f"{found.cost.per_hour.typical:.2f}" if found.cost else ""
        table.writerow([rate, found.gpus, found.interval.low, found.interval.high, dollars, found.binding.constraint])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2:])
    except HeadroomError as error:
        sys.exit(f"Error: {error}")
