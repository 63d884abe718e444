"""Learn digits class by class, and rehearse them from a generator or from compressed samples.

Run ``python examples/generated_replay.py``; ``--quick`` learns two experiences, in one epoch each.
"""

from __future__ import annotations

import sys

import torch
from pytorch_lightning import Trainer, seed_everything
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from greentrain.callbacks import EnergyMonitor, GenerativeReplay
from greentrain.demo import DigitsModel
from greentrain.memory import GenerativeBuffer, QuantisedBuffer
from greentrain.streams import class_incremental, digits
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def flat(data: object) -> TensorDataset:
    """Return images as rows ``(64,)``."""
    images, labels = next(iter(DataLoader(data, 10_000)))
    return TensorDataset(images.flatten(1), labels)


def main() -> None:
    quick = "--quick" in sys.argv
    epochs, steps = (1, 20) if quick else (20, 500)
    stream = class_incremental(digits()[0], n_experiences=5, val_share=0.3)
    tested = flat(ConcatDataset([each.val for each in stream])).tensors
    quantised = QuantisedBuffer(200, threshold=0.02, block=4)
    generators = [GenerativeBuffer(200, steps=steps, hidden=128, latent=16) for _ in range(2)]
    methods = {
        "fine-tuning": ([], None),
        "compressed samples": ([], quantised),
        "generative replay": ([GenerativeReplay(DigitsModel, generators[0])], generators[0]),
        "with distillation": (
            [GenerativeReplay(DigitsModel, generators[1], distill=True)],
            generators[1],
        ),
    }
    for name, (callbacks, buffer) in methods.items():
        seed_everything(0, verbose=False)
        model, used_j = DigitsModel(), 0.0
        for experience in stream[: 2 if quick else 5]:
            data = new = flat(experience.train)
            if buffer is quantised:
                data = ConcatDataset([new, buffer.select(lambda origin: True)])
            monitor = EnergyMonitor(ledger=False, summary=False)
            trainer = Trainer(max_epochs=epochs, callbacks=[monitor, *callbacks], **QUIET)
            trainer.fit(model, DataLoader(data, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
            if buffer is quantised:
                buffer.add(new, origin=experience.id)
        with torch.no_grad():
            right = (model.eval()(tested[0]).argmax(1) == tested[1]).float().mean()
        size = f"{0 if buffer is None else buffer.nbytes:,} bytes"
        print(f"{name}: {100 * right:.1f} % of all experiences, {format_energy(used_j)}, {size}")


if __name__ == "__main__":
    main()
