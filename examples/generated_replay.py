"""Learn digits class by class, and rehearse them from a generator or from compressed samples.

Run ``python examples/generated_replay.py``; ``--quick`` learns two experiences, in one epoch each.
"""

from __future__ import annotations

import sys

from pytorch_lightning import Trainer, seed_everything
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from greentrain import memory
from greentrain.callbacks import EnergyMonitor, GenerativeReplay, ReplayThroughFeedback
from greentrain.demo import DigitsModel
from greentrain.streams import class_incremental, digits
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def feedback_model() -> DigitsModel:
    model = DigitsModel()
    model.layers = memory.FeedbackNet((64,), 10, hidden=128, latent=16)
    return model


def flat(data: object) -> TensorDataset:
    images, labels = next(iter(DataLoader(data, 10_000)))
    return TensorDataset(images.flatten(1), labels)


def main() -> None:
    quick = "--quick" in sys.argv
    epochs, steps = (1, 20) if quick else (20, 500)
    stream = class_incremental(digits()[0], n_experiences=5, val_share=0.3)
    tested = flat(ConcatDataset([each.val for each in stream])).tensors
    kinds = dict.fromkeys(("generative replay", "with distillation"), memory.GenerativeBuffer)
    kinds |= {"BinPlay": memory.BinPlayBuffer, "LogCL": memory.LogarithmicBuffer}
    kinds |= {"Multiband VAE": memory.MultibandBuffer}
    coded = {"compressed samples": memory.QuantisedBuffer(200, threshold=0.02, block=4)}
    coded["in two levels"] = memory.QuantisedBuffer(200, threshold=0.02, block=(4, 8))
    methods, buffers = {name: [] for name in ("fine-tuning", *coded)}, dict(coded)
    feedback = ReplayThroughFeedback(feedback_model, net=lambda module: module.layers)
    methods["replay through feedback"] = [feedback]
    for name, kind in kinds.items():
        buffers[name] = buffer = kind(200, steps=steps, hidden=128, latent=16)
        methods[name] = [GenerativeReplay(DigitsModel, buffer, distill="distill" in name)]
    for name, callbacks in methods.items():
        seed_everything(0, verbose=False)
        model, used_j = feedback_model() if feedback in callbacks else DigitsModel(), 0.0
        for experience in stream[: 2 if quick else 5]:
            data = new = flat(experience.train)
            if name in coded:
                data = ConcatDataset([new, coded[name].select(lambda origin: True)])
            monitor = EnergyMonitor(ledger=False, summary=False)
            trainer = Trainer(max_epochs=epochs, callbacks=[monitor, *callbacks], **QUIET)
            trainer.fit(model, DataLoader(data, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
            if name in coded:
                coded[name].add(new, origin=experience.id)
        right = (model.eval()(tested[0]).argmax(1) == tested[1]).float().mean()
        size = f"{buffers[name].nbytes if name in buffers else 0:,} bytes"
        print(f"{name}: {100 * right:.1f} % of all experiences, {format_energy(used_j)}, {size}")


if __name__ == "__main__":
    main()
