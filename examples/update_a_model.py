"""Update a trained model on new data within an energy budget, and keep the better model.

Run ``python examples/update_a_model.py``; ``--quick`` trains for 2 epochs instead of 10.
"""

from __future__ import annotations

import sys

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import ConcatDataset, DataLoader

import greentrain
from greentrain.demo import DigitsModel
from greentrain.memory import ReservoirBuffer
from greentrain.streams import digits_stream


def main() -> None:
    epochs = 2 if "--quick" in sys.argv else 10
    old, new = digits_stream()[0], digits_stream()[3]  # new classes
    logger = CSVLogger("logs")

    model = DigitsModel()  # your model, after your training
    trainer = Trainer(max_epochs=epochs, enable_checkpointing=False, logger=logger)
    trainer.fit(model, DataLoader(old.train, batch_size=32, shuffle=True))

    buffer = ReservoirBuffer(500)  # past data, so that nothing is forgotten
    buffer.add(old.train, origin="old")
    result = greentrain.update(
        model,
        DataLoader(new.train, batch_size=32),
        val=ConcatDataset([old.val, new.val]),
        buffer=buffer,
        budget="0.5 Wh",
        max_epochs=epochs,
        logger=logger,
    )
    print(result)
    torch.save(result.model.state_dict(), "updated.pt")


if __name__ == "__main__":
    main()
