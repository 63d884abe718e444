"""iCaRL and GDumb: their losses and samples by hand, and what they exclude."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.nn.functional import binary_cross_entropy, cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import AGEM, DER, EWC, GDumb, ICaRL, LwF
from greentrain.callbacks.step_layers import wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.methods import class_means, icarl_loss, mean_scores
from tests.callbacks.test_output_terms import Recorded
from tests.callbacks.test_parameter_anchors import (
    Net,
    Regression,
    TwoOptimizers,
    loader,
    trainer,
    weights,
)


def hidden(module, inputs):
    return module.net[:2](inputs)


def icarl(**options) -> ICaRL:
    return ICaRL(Net, hidden, **{"capacity": 6, **options})


def of_classes(*classes: int, seed: int = 0, count: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(classes).repeat(count // len(classes))
    inputs = torch.randn(count, 4, generator=generator) + labels[:, None]
    return DataLoader(TensorDataset(inputs, labels), count)


def test_the_loss_has_new_classes_and_distilled_ones():
    logits, teacher = torch.tensor([[1.0, -1.0, 0.5, 9.0]]), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    new, old = torch.tensor([False, True, True, False]), torch.tensor([True, False, False, False])
    found = icarl_loss(logits, torch.tensor([2]), new=new, old=old, teacher=teacher)
    targets = torch.tensor([torch.tensor(2.0).sigmoid(), 0.0, 1.0])  # class 3 is left out
    expected = binary_cross_entropy(logits[0, :3].sigmoid(), targets, reduction="sum")
    assert float(found) == pytest.approx(float(expected))


def test_the_nearest_mean_is_that_of_directions():
    points = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, -5.0]])
    means, known = class_means(points, torch.tensor([0, 0, 2]), 3)
    torch.testing.assert_close(means[0], torch.tensor([0.5**0.5, 0.5**0.5]))
    assert known.tolist() == [True, False, True]
    scores = mean_scores(torch.tensor([[2.0, 2.0], [0.0, -0.1]]), means, known)
    assert scores.argmax(1).tolist() == [0, 2]
    assert float(scores[0, 0]) == pytest.approx(0.0, abs=1e-6)
    assert float(scores[1, 1]) == -torch.inf


def test_icarl_replaces_the_loss_and_replays_exemplars():
    method, module = icarl(), Recorded()
    trainer(method).fit(module, of_classes(0, 1))
    [first] = module.losses
    start, batch = Recorded(), next(iter(of_classes(0, 1)))
    probabilities = start(batch[0])[:, :2].detach().sigmoid()
    own = torch.nn.functional.one_hot(batch[1], 2).float()
    expected = binary_cross_entropy(probabilities, own, reduction="none").sum(1).mean()
    assert first == pytest.approx(float(expected))
    assert len(method.buffer) == 6  # three of each class
    assert "training_step" not in vars(module)

    stored, _ = method._exemplars
    teacher = Net()
    teacher.load_state_dict(module.state_dict())
    inputs, _ = next(iter(of_classes(2, seed=3)))
    whole = torch.cat([inputs, stored])
    with torch.no_grad():
        target = teacher(whole).sigmoid()
        target[:, 2] = torch.cat([torch.ones(8), torch.zeros(6)])
        expected = binary_cross_entropy(module(whole).sigmoid(), target, reduction="none")
    trainer(method).fit(module, of_classes(2, seed=3))
    assert module.losses[1] == pytest.approx(float(expected.sum(1).mean()))
    kept = method._exemplars[1]
    assert torch.bincount(kept).tolist() == [2, 2, 2]
    assert method.experiences == 2


def test_outputs_are_distances_to_means_outside_of_a_fit():
    class Tested(Net):
        def test_step(self, batch, batch_idx):
            self.seen = self(batch[0])

    method, module = icarl(), Tested()
    tested = of_classes(0, 1, 2, seed=5, count=6)
    trainer(method).fit(module, of_classes(0, 1))
    trainer(method).test(module, tested, verbose=False)
    inputs, _ = next(iter(tested))
    stored, classes = method._exemplars
    with torch.no_grad():
        phi = normalize(hidden(module, stored), dim=1)
        means = torch.stack([normalize(phi[classes == n].mean(0), dim=0) for n in range(2)])
        far = torch.cdist(normalize(hidden(module, inputs), dim=1), means).square()
        torch.testing.assert_close(module.seen[:, :2], -far, atol=1e-5, rtol=1e-4)
        assert module.seen[:, 2].eq(-torch.inf).all()
        assert "forward" not in vars(module)

    restored = icarl()
    restored.load_state_dict(method.state_dict())
    assert torch.equal(restored.scores(module, inputs), method.scores(module, inputs))
    assert restored._generator.get_state().equal(method._generator.get_state())


def test_other_terms_are_added_to_the_loss_of_icarl_in_any_order():
    losses = []
    for order in (1, -1):
        module = Recorded()
        callbacks = [icarl(), LwF(Net, weight=0.5), EWC(1.0)][::order]
        for data in (of_classes(0, 1), of_classes(2)):
            trainer(*callbacks).fit(module, data)
        losses.append(module.losses)
    assert losses[0] == pytest.approx(losses[1])
    layered = Net()
    layered.training_step = lambda batch, index: torch.tensor(1.0)
    wrap_training_step(layered, lambda step, *given: 5 * step(*given))
    wrap_training_step(layered, lambda step, *given: 2 + 0 * step(*given), innermost=True)
    assert float(layered.training_step(None, 0)) == 10


def test_gdumb_trains_fresh_weights_on_stored_samples_only():
    method, module = GDumb(lambda: Net(seed=7), 4), Recorded(lr=0.0)
    trainer(method).fit(module, of_classes(0, 1))
    torch.testing.assert_close(weights(module), weights(Net(seed=7)))
    trainer(method).fit(module, of_classes(2, seed=3))
    stored = method.buffer.select(lambda origin: True)
    labels = sorted(int(stored[index][1]) for index in range(4))
    assert set(labels) == {0, 1, 2}
    # A batch has two passes of four samples, so its loss is that of the memory.
    inputs = torch.stack([stored[index][0] for index in range(4)])
    targets = torch.stack([stored[index][1] for index in range(4)])
    with torch.no_grad():
        expected = cross_entropy(module(inputs), targets)
    assert module.losses[-1] == pytest.approx(float(expected))
    assert "training_step" not in vars(module)


def test_a_resumed_fit_of_gdumb_starts_neither_again():
    method, module = GDumb(Net, 4), Net()
    trainer(method).fit(module, of_classes(0, 1))
    half = GDumb(Net, 4)
    half.load_state_dict({**method.state_dict(), "in_fit": True})
    continued = Net(seed=5, lr=0.0)
    trainer(half).fit(continued, of_classes(0, 1))
    torch.testing.assert_close(weights(continued), weights(Net(seed=5)))
    assert (half.experiences, len(half.buffer)) == (1, 4)


@pytest.mark.parametrize("make", [icarl, lambda: GDumb(Regression, 4)])
def test_a_regression_is_refused_with_the_reason(make):
    with pytest.raises(ConfigurationError, match="not defined for a regression"):
        trainer(make()).fit(Regression(), loader(1, regression=True))


def test_what_excludes_each_other_is_refused():
    for other in (DER(4), EWC(1.0), AGEM(4), icarl()):
        with pytest.raises(MisconfigurationException, match=r"GDumb and \w+ exclude each other"):
            trainer(GDumb(Net, 4), other).fit(Net(), loader(1))
    with pytest.raises(MisconfigurationException, match="manual optimization"):
        trainer(icarl()).fit(TwoOptimizers(), loader(1))
    with pytest.raises(ConfigurationError, match="has no exemplars yet"):
        icarl().scores(Net(), torch.ones(1, 4))
    with pytest.raises(ConfigurationError, match=r"between 3 and 3, and the model has 3 outputs"):
        trainer(icarl()).fit(Net(), of_classes(3))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ICaRL(None, hidden), "make_model is None"),
        (lambda: ICaRL(Net, "net"), "features is 'net'"),
        (lambda: icarl(batch_size=0), "batch_size is 0"),
        (lambda: icarl(capacity=0), "max_size is 0"),
        (lambda: GDumb(4, Net), "make_model is 4"),
        (lambda: GDumb(Net, 0), "max_size is 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
