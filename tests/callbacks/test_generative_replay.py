"""Generative replay: its loss by hand, and the generator that is trained within a fit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import GenerativeReplay, LearnBuffer, ReplayThroughFeedback
from greentrain.errors import ConfigurationError
from greentrain.memory import FeedbackNet, GenerativeBuffer, ReservoirBuffer
from greentrain.methods import distillation_loss
from tests.callbacks.test_output_terms import Recorded
from tests.callbacks.test_parameter_anchors import Net, Regression, loader, trainer


def buffer(**options) -> GenerativeBuffer:
    small = {"classes": 3, "steps": 4, "batch_size": 8, "hidden": 8, "latent": 2}
    return GenerativeBuffer(100, **{**small, **options})


def data(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.rand(8, 4, generator=generator), torch.arange(8) % 3
    return DataLoader(TensorDataset(inputs, labels), 8)


@pytest.mark.parametrize("distill", [False, True])
def test_the_second_fit_rehearses_what_the_generator_and_the_last_model_give(distill):
    method = GenerativeReplay(Net, buffer(), distill=distill)
    module = Recorded()
    trainer(method).fit(module, data(1))
    assert (method.experiences, method.buffer.experiences) == (1, 1)
    teacher = Net()
    teacher.load_state_dict(module.state_dict())
    generated, _ = copy.deepcopy(method.buffer).generate(8)
    inputs, labels = next(iter(data(2)))
    with torch.no_grad():
        target, found = teacher(generated), module(generated)
        hard = cross_entropy(found, target.argmax(1))
        term = distillation_loss(found, target, temperature=2.0) if distill else hard
        expected = (cross_entropy(module(inputs), labels) + term) / 2
    trainer(method).fit(module, data(2))
    assert module.losses[-1] == pytest.approx(float(expected), abs=1e-6)
    assert "training_step" not in vars(module)

    restored = GenerativeReplay(Net, buffer(), distill=distill)
    restored.load_state_dict(method.state_dict())
    assert restored.experiences == 2
    assert torch.equal(restored.buffer.generate(3)[0], method.buffer.generate(3)[0])


def test_a_waiting_buffer_is_learned_within_a_fit():
    waiting = buffer(learn_at_once=False)
    waiting.add(data(1).dataset, origin="first")
    learn = LearnBuffer(waiting)
    trainer(learn).fit(Net(), data(2))
    assert (learn.steps, waiting.experiences) == (4, 1)


@pytest.mark.parametrize(
    ("scale", "add", "sentence"),
    [(3.0, 0, "scale them"), (1.0, 3, "between 3 and 5"), (None, 0, r"torch.int64 of shape")],
)
def test_what_the_generator_cannot_learn_ends_the_fit_at_its_first_batch(scale, add, sentence):
    inputs, labels = data(1).dataset.tensors
    inputs = labels[:, None].repeat(1, 4) if scale is None else scale * inputs + scale - 1
    method, module = GenerativeReplay(Net, buffer(), outputs=lambda net, x: net(x.float())), Net()
    before = copy.deepcopy(module.state_dict())
    loader_ = DataLoader(TensorDataset(inputs, labels + add), 4)
    module.training_step = lambda batch, batch_idx: module(batch[0].float()).sum()
    with pytest.raises(ConfigurationError, match=sentence):
        trainer(method).fit(module, loader_)
    for name, each in module.state_dict().items():
        assert torch.equal(each, before[name])
    assert (method.experiences, len(method.buffer)) == (0, 0)


def test_what_cannot_be_generated_is_refused():
    with pytest.raises(ConfigurationError, match="not defined for a regression"):
        trainer(GenerativeReplay(Net, buffer())).fit(Regression(), loader(1, regression=True))
    for make in (LearnBuffer, lambda each: GenerativeReplay(Net, each)):
        with pytest.raises(ConfigurationError, match="buffer is a ReservoirBuffer"):
            make(ReservoirBuffer(3))


class Feedback(Recorded):
    def __init__(self) -> None:
        super().__init__()
        self.net = FeedbackNet((4,), 3, hidden=8, latent=2)


def test_a_model_rehearses_what_it_generates_itself():
    module, method = Feedback(), ReplayThroughFeedback(Feedback)
    trainer(method).fit(module, data(1))
    teacher, start = Feedback(), copy.deepcopy(module)
    teacher.load_state_dict(module.state_dict())
    inputs, labels = next(iter(data(2)))
    trainer(method).fit(module, data(2))
    losses = []
    for seed in range(300):  # the noise of the step is unknown, so its mean is compared
        torch.manual_seed(seed)
        with torch.no_grad():
            generated = teacher.net.generate(8)
            found, target = start(generated), teacher(generated)
            new = cross_entropy(start(inputs), labels) + start.net.losses(inputs).mean()
            old = distillation_loss(found, target, temperature=2.0)
            losses.append(float((new + old + start.net.losses(generated).mean()) / 2))
    mean, spread = torch.tensor(losses).mean(), torch.tensor(losses).std()
    assert abs(module.losses[-1] - mean) < 5 * spread
    assert spread < 0.1 * mean
    assert method.experiences == 2
    assert "training_step" not in vars(module)
    restored = ReplayThroughFeedback(Feedback)
    restored.load_state_dict(method.state_dict())
    assert restored.experiences == 2


def test_feedback_needs_a_net_that_generates_and_classes():
    with pytest.raises(ConfigurationError, match="the net of Net is a Sequential"):
        trainer(ReplayThroughFeedback(Net)).fit(Net(), data(1))
    found = ReplayThroughFeedback(Feedback, net=lambda module: module.net)
    for inputs, labels, sentence in (
        (torch.rand(8, 4), torch.rand(8), "not defined for a regression"),
        (torch.rand(8, 4), torch.arange(8), "the model has 3 outputs"),
        (4 * torch.ones(8, 4), torch.arange(8) % 3, "scale them"),
        (torch.rand(8, 2, 2), torch.arange(8) % 3, r"are \[2, 2\] where those before are \[4\]"),
    ):
        module = Feedback()
        module.training_step = lambda batch, batch_idx, net=module: net(batch[0]).sum()
        with pytest.raises(ConfigurationError, match=sentence):
            trainer(found).fit(module, DataLoader(TensorDataset(inputs, labels), 8))
