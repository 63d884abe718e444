"""Let the updates of a stream wait for cleaner electricity.

Run ``python examples/waiting_stream.py --quick`` for simulated nights that pass in seconds. For
real ones, give a provider with forecasts: ``--intensity electricitymaps:DE``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from simulated_night import SimulatedNight

from greentrain import StreamTrainer
from greentrain.control import Always, UpdateMode
from greentrain.demo import DigitsModel
from greentrain.ledger import Ledger
from greentrain.streams import digits_stream
from greentrain.training import CarbonConfig, StartBy

LEDGER = "sqlite:///waiting.db"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intensity", default="uk", help="a provider with forecasts, or a file")
    parser.add_argument("--start-by", default="24 h", help="longest wait of an update")
    parser.add_argument("--slices", action="store_true", help="pause within an update, too")
    parser.add_argument("--quick", action="store_true", help="simulate nights")
    given = parser.parse_args()
    waits: dict[str, Any] = {"within": given.start_by, "slices": given.slices}
    options: dict[str, Any] = {"start_by": StartBy(**waits), "budget": "1 kWh"}
    trainer: dict[str, Any] = {"max_epochs": 5, "accelerator": "cpu"}
    if given.quick:
        night = SimulatedNight()
        given.intensity = str(night.write(Path("night.csv")))
        simulated = night.options()
        options |= {
            "start_by": StartBy(**waits, clock=simulated["clock"], sleep=simulated["sleep"]),
            "meter": simulated["meter"],
            "budget": "100 kWh",
        }
        trainer["callbacks"] = [night]
    with StreamTrainer(
        DigitsModel,
        monitor="val_acc",
        num_experiences=3,
        ledger=LEDGER,
        carbon=CarbonConfig(intensity=given.intensity),
        policy=Always(mode=UpdateMode.WARM_START),
        trainer=trainer,
        **options,
    ) as stream:
        stream.run(digits_stream()[:3])
    ledger = Ledger(LEDGER, create=False)
    for row, outcome in zip(ledger.rows("decision"), ledger.rows("outcome"), strict=True):
        waiting = json.loads(row["waiting"])
        saved = outcome["shifted_g"]
        shifted = "" if saved is None else f", {saved:.0f} g shifted"
        print(f"{row['experience_id']}: waited {waiting['waited_s'] / 3600:.1f} h{shifted}")
        print(f"  {waiting['reason']}")
    ledger.close()


if __name__ == "__main__":
    main()
