"""Keep a model up to date with Ray Train on two workers: rank 0 decides, and both train.

Run ``python examples/distributed/ray_stream.py``. It needs the extra ``[ray]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray
from pytorch_lightning import Callback
from ray import train
from ray.train.lightning import RayTrainReportCallback
from ray.train.torch import TorchTrainer

from greentrain import StreamTrainer
from greentrain.demo import DigitsModel
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Report(RayTrainReportCallback, Callback):
    """Ray's callback, also where it is one of ``lightning`` and no ``pytorch_lightning`` one."""


def work(config: dict[str, str]) -> None:
    """Run the stream; each worker of Ray calls this."""
    folder = Path(config["folder"])
    with StreamTrainer(
        DigitsModel,
        budget=config["budget"],
        num_experiences=6,
        monitor="val_acc",
        ledger=f"sqlite:///{folder / 'ray_stream.db'}",
        state_dir=folder / "ray_state",
        trainer={
            "max_epochs": 3,
            "accelerator": "cpu",
            "callbacks": [Report()],
        },
        loader={"batch_size": 16},
    ) as stream:
        for part in digits_stream()[:3]:
            result = stream.update(part)
            if stream.rank == 0:
                print(f"{part.id}: {result.update_mode}, {format_energy(result.energy_j)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="0.5 Wh")
    options = parser.parse_args()
    folder = str(Path.cwd())  # Ray's processes have other folders
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": folder, "budget": options.budget},
        scaling_config=train.ScalingConfig(num_workers=2),
        run_config=train.RunConfig(name="stream", storage_path=f"{folder}/ray_results"),
    )
    print(trainer.fit().error or "the stream has ended")


if __name__ == "__main__":
    main()
