"""Which samples an update trains on: in each mode, among ranks, with the user's own sampler."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    DistributedSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from greentrain.control import Action, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.memory import ReservoirBuffer, SampleList, size
from greentrain.streams import Experience
from greentrain.training import loaders
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.loaders import (
    MixedBatches,
    check_loader,
    ordered_loader,
    train_loader,
)

NEW = TensorDataset(torch.arange(8.0))
STORED = TensorDataset(torch.arange(100.0, 120.0))
HELD = TensorDataset(torch.arange(200.0, 205.0))
DATA = UpdateData(new=NEW, stored=STORED, held=HELD)


def epoch(mode, *, batch=DATA, seed=0, **loader) -> list[list[float]]:
    """The samples of each batch in an epoch."""
    checked = check_loader({"batch_size": 4, **loader})
    batches = train_loader(Action(mode=mode), batch, loader=checked, seed=seed)
    return [samples.tolist() for (samples,) in batches]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def test_a_full_retraining_passes_over_what_is_held():
    assert sorted(flat(epoch(UpdateMode.FULL_RETRAIN))) == [*range(200, 205)]


def test_a_warm_start_passes_over_new_and_stored_samples_alike():
    assert sorted(flat(epoch(UpdateMode.WARM_START))) == [*range(8), *range(100, 120)]


@pytest.mark.parametrize(
    ("n_past", "batch_size", "new"),
    [(72, 10, 1), (32, 10, 2), (24, 4, 1), (1000, 4, 1)],  # 8 of 80, 40, 32 and 1,008 samples
)
def test_stored_samples_of_a_buffer_stand_for_all_that_there_have_been(n_past, batch_size, new):
    batch = dataclasses.replace(DATA, n_past=n_past)
    batches = epoch(UpdateMode.WARM_START, batch=batch, batch_size=batch_size)
    assert {sum(value < 8 for value in each) for each in batches} == {new}
    assert {len(each) for each in batches} == {batch_size}
    assert sorted(value for value in flat(batches) if value < 8) == [*range(8)]


def test_where_all_is_stored_a_warm_start_is_as_ever():
    batch = dataclasses.replace(DATA, n_past=20)
    assert epoch(UpdateMode.WARM_START, batch=batch) == epoch(UpdateMode.WARM_START)


def test_the_first_steps_of_a_warm_start_are_a_uniform_sample_of_everything():
    firsts = Counter(
        value for seed in range(300) for value in epoch(UpdateMode.WARM_START, seed=seed)[0]
    )
    assert len(firsts) == 28
    # 1,200 draws of 28 samples: 43 each, with a standard deviation of 6.4.
    assert all(17 < count < 69 for count in firsts.values())


def test_a_replay_passes_over_the_new_samples_and_fills_each_batch_with_stored_ones():
    batches = epoch(UpdateMode.REPLAY)
    assert [sum(value < 8 for value in batch) for batch in batches] == [2, 2, 2, 2]
    assert [sum(100 <= value < 120 for value in batch) for batch in batches] == [2, 2, 2, 2]
    assert sorted(value for value in flat(batches) if value < 8) == [*range(8)]


def test_a_replay_with_nothing_stored_trains_on_the_new_samples():
    batch = UpdateData(new=NEW, stored=SampleList([]), held=NEW)
    batches = epoch(UpdateMode.REPLAY, batch=batch)
    assert [len(each) for each in batches] == [4, 4]


def test_fine_tuning_trains_on_the_new_samples_alone():
    assert sorted(flat(epoch(UpdateMode.FINE_TUNE))) == [*range(8)]


@pytest.mark.parametrize("mode", [UpdateMode.WARM_START, UpdateMode.REPLAY])
def test_order_follows_from_the_seed_and_differs_from_epoch_to_epoch(mode):
    assert epoch(mode, seed=3) == epoch(mode, seed=3)
    assert epoch(mode, seed=3) != epoch(mode, seed=4)
    loader = train_loader(Action(mode=mode), DATA, loader=check_loader({}), seed=3)
    first, second = ([batch[0].tolist() for batch in loader] for _ in range(2))
    assert first != second


def test_the_global_random_state_is_left_alone_and_does_not_matter():
    def order():
        loader = train_loader(Action(mode=UpdateMode.REPLAY), DATA, loader=check_loader({}), seed=0)
        return list(loader.batch_sampler)

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = order()
    assert torch.equal(torch.rand(2), expected)
    assert order() == first


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [
        (161, 32, [32, 32, 32, 32, 33]),
        (160, 32, [32] * 5),
        (162, 32, [32] * 5 + [2]),
        (33, 32, [33]),
        (1, 32, [1]),  # there is no other batch
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_sample_joins_the_one_before(samples, batch_size, sizes):
    held = TensorDataset(torch.arange(float(samples)))
    data = UpdateData(new=held, stored=SampleList([]), held=held)
    batches = epoch(UpdateMode.FULL_RETRAIN, batch=data, batch_size=batch_size)
    assert [len(each) for each in batches] == sizes
    assert sorted(flat(batches)) == [*range(samples)]
    dropped = epoch(UpdateMode.WARM_START, batch=data, batch_size=batch_size, drop_last=True)
    assert {len(each) for each in dropped} <= {batch_size}


def test_every_rank_has_as_many_batches_if_one_joins():
    # 22 samples on two ranks are 11 each: batches of 5 and 6.
    ranks = [mixed(rank, 2, n_first=22, batch_size=5) for rank in (0, 1)]
    assert [[len(each) for each in batches] for batches in ranks] == [[5, 6]] * 2


def mixed(rank=0, ranks=1, **arguments):
    """The batches of one rank."""
    sampler = MixedBatches(SequentialSampler(range(arguments["n_first"])), seed=0, **arguments)
    sampler.share_out(ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "get_rank", lambda: rank)
        batches = list(sampler)
    assert len(batches) == len(sampler) == sampler.batches(ranks)
    return batches


def test_ranks_with_unequal_parts_have_as_many_batches(monkeypatch):
    # 5 and 3 samples in batches of 2: both ranks pass over 5, and the last joins.
    monkeypatch.setattr(loaders, "gather", lambda value: [5, 3])
    ranks = [mixed(rank, 2, n_first=n, batch_size=2, of_rank=True) for rank, n in ((0, 5), (1, 3))]
    assert ranks == [[[0, 1], [2, 3, 4]], [[0, 1], [2, 0, 1]]]


PAST = {"day 0": 9, "day 1": 12, "day 2": 5}  # 26 samples, of which 11 are held


@pytest.mark.parametrize("waiting", [[], ["day 1"], [*PAST]])
@pytest.mark.parametrize("ranks", [2, 3, 13])
@pytest.mark.parametrize("new", [1, 7])
def test_ranks_share_all_that_one_process_trains_on(ranks, new, waiting):
    def gathered(**rank):
        stream, start = StreamData(ReservoirBuffer(11, **rank)), 0
        for name, n in PAST.items():
            stream.store(arrived(name, start, n), trained=name not in waiting)
            start += n
        stream.pending = list(waiting)
        experience = arrived("new", 100, new)
        return stream.gather(experience), stream.everything(experience)

    one, parts = gathered(), [gathered(rank=n, world_size=ranks) for n in range(ranks)]
    for alone, each in zip(one, zip(*parts, strict=True), strict=True):
        for data in each:  # the same numbers on all ranks, by which rank 0 decides
            assert data.counts == alone.counts
            assert data.share_new == alone.share_new
        shares = [data.of_rank() for data in each]
        for kind in ("new", "stored", "held"):
            union = {number for share in shares for number in values(getattr(share, kind))}
            wanted = set(values(getattr(alone, kind)))
            assert wanted <= union
            # A rank without any has new ones in their place.
            new_ones = {*values(alone.new), *range(100, 100 + new)}
            assert union - wanted <= (new_ones if ranks > 11 else set())
            assert all(map(size, (getattr(share, kind) for share in shares))) or not wanted


def arrived(name, start, n):
    numbers = TensorDataset(torch.arange(float(start), float(start + n)))
    return Experience(name, numbers, numbers)


def values(dataset):
    return [float(dataset[place][0]) for place in range(size(dataset))]


@given(
    n_first=st.integers(1, 60),
    n_stored=st.integers(0, 40),
    batch_size=st.integers(1, 17),
    ranks=st.integers(1, 5),
    drop_last=st.booleans(),
)
def test_ranks_share_the_new_samples_out_and_have_as_many_batches(
    n_first, n_stored, batch_size, ranks, drop_last
):
    arguments = {
        "n_first": n_first,
        "n_stored": n_stored,
        "batch_size": batch_size,
        "drop_last": drop_last,
    }
    shares = [mixed(rank, ranks, **arguments) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(each == sizes[0] for each in sizes)
    new = Counter(index for share in shares for index in flat(share) if index < n_first)
    per_rank = -(-n_first // ranks)
    if drop_last:
        assert set(new) <= set(range(n_first))
    else:
        assert set(new) == set(range(n_first))
        assert new.total() == per_rank * ranks  # the fewest that all ranks can have alike
    for batch in flat(shares):
        assert max(batch) < n_first + n_stored
        if n_stored:
            mine = sum(index < n_first for index in batch)
            assert len(batch) - mine - mine in (0, 1)
            assert len(batch) <= max(2, batch_size)
        else:
            assert len(batch) <= batch_size


def test_each_rank_draws_stored_samples_of_its_own_uniformly():
    shares = [
        mixed(rank, 2, n_first=4000, n_stored=20, batch_size=20) for rank in range(2)
    ]  # 200 batches of 10 draws for each rank
    drawn = [[index for index in flat(share) if index >= 4000] for share in shares]
    assert [len(each) for each in drawn] == [2000, 2000]
    assert drawn[0] != drawn[1]
    for each in drawn:  # 100 draws of each sample, with a standard deviation of 10
        assert all(60 < count < 140 for count in Counter(each).values())
        assert len(Counter(each)) == 20
    # Independent draws coincide in one of 20 cases: 100 of 2,000, standard deviation 10.
    assert 60 < sum(a == b for a, b in zip(*drawn, strict=True)) < 140


def test_a_replay_never_goes_through_what_is_stored():
    # A pass over 10**12 samples, or a list of their numbers, would not come to an end here.
    batches = mixed(n_first=8, n_stored=10**12, batch_size=4)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]


def test_the_users_sampler_gives_the_order_and_the_new_half_of_a_replay():
    def backwards(dataset):
        return list(reversed(range(len(dataset))))

    assert flat(epoch(UpdateMode.FULL_RETRAIN, sampler=backwards)) == [204, 203, 202, 201, 200]
    replay = flat(epoch(UpdateMode.REPLAY, sampler=backwards))
    assert [value for value in replay if value < 100] == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_sampler_may_draw_fewer_samples_than_there_are():
    batches = epoch(
        UpdateMode.WARM_START,
        sampler=lambda data: WeightedRandomSampler([1.0] + [0.0] * (len(data) - 1), 6),
    )
    assert batches == [[0.0] * 4, [0.0] * 2]


def test_other_options_of_the_loader_stay_the_users():
    def doubled(samples):
        return [2 * torch.stack([sample[0] for sample in samples])]

    assert sorted(flat(epoch(UpdateMode.FULL_RETRAIN, collate_fn=doubled))) == [*range(400, 410, 2)]
    assert [len(each) for each in epoch(UpdateMode.FULL_RETRAIN, drop_last=True)] == [4]
    with_worker = epoch(UpdateMode.REPLAY, num_workers=1)
    assert with_worker == epoch(UpdateMode.REPLAY)


def test_a_probe_sees_every_sample_in_order_whatever_training_uses():
    loader = check_loader(
        {"batch_size": 3, "drop_last": True, "sampler": lambda data: SequentialSampler(range(1))}
    )
    assert flat(samples.tolist() for (samples,) in ordered_loader(NEW, loader)) == [*range(8)]


def test_batches_have_32_samples_by_default():
    assert check_loader({"pin_memory": False}) == {"batch_size": 32, "pin_memory": False}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shuffle": True}, "loader has shuffle, which the update mode decides"),
        ({"batch_sampler": [[0]]}, "loader has batch_sampler"),
        ({"sampler": SequentialSampler(range(3))}, "a SequentialSampler as sampler, which fits"),
        ({"sampler": 3}, "a int as sampler"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": None}, "batch_size is None"),
        ({"colate_fn": None}, "colate_fn"),
        ({"num_workers": -1}, "num_workers"),
        ({"prefetch_factor": 2}, "prefetch_factor"),
    ],
)
def test_wrong_options_are_named_before_anything_starts(options, named):
    with pytest.raises(ConfigurationError, match=named):
        check_loader(options)


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        (lambda data: 3, "returned a int"),
        (lambda data: iter(range(3)), "with a length"),
        (lambda data: [], "length 0"),
        (lambda data: DistributedSampler(data, num_replicas=2, rank=0), "DistributedSampler"),
    ],
)
def test_a_sampler_that_cannot_be_used_is_named(sampler, named):
    with pytest.raises(ConfigurationError, match=named):
        epoch(UpdateMode.WARM_START, sampler=sampler)


def test_nothing_to_train_on_is_an_error():
    empty = UpdateData(new=NEW, stored=STORED, held=SampleList([]))
    with pytest.raises(ConfigurationError, match="no sample for FULL_RETRAIN"):
        epoch(UpdateMode.FULL_RETRAIN, batch=empty)
