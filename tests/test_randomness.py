"""Streams of seeds: no two uses share one, and the recorded numbers stay, by which stored runs resume."""

import pytest
import torch

from tnml.data import random_table
from tnml.errors import InputError
from tnml.pde.paths.noise import increments
from tnml.randomness import (
    Noise,
    Stream,
    SweepStream,
    TableStream,
    forked_rng,
    generator,
    reseed,
    seeded,
    step_seed,
)  # fmt: skip

RECORDED = {
    Stream: {
        "ORDER": 0, "SHIFT": 1, "DROPOUT": 2, "SPLIT": 3, "READ": 4, "WEIGHTS": 7,
        "NORMAL": 11, "SOBOL": 12, "NODES": 13, "SITES": 14,
    },
    Noise: {"PATHS": 0, "AHEAD": 1, "ACCURACY": 5},
    SweepStream: {"DRAW": 0, "NOISE": 1, "SHIFT": 2},
    TableStream: {
        "INPUTS": 0, "NOISE": 1, "WEIGHTS": 2, "PERMUTATION": 3, "FLIPS": 4, "STEPS": 5, "CLASSES": 6,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", RECORDED, ids=lambda family: family.__name__)
def test_streams_have_their_recorded_numbers(family):
    found = {name: int(member) for name, member in family.__members__.items()}
    assert found == RECORDED[family]
    assert len(set(found.values())) == len(found)


def test_sets_of_noise_leave_the_other_streams_alone():
    of_noise = [kind + 16 * number for kind in (Stream.NORMAL, Stream.SOBOL) for number in Noise]
    others = [stream for stream in Stream if stream not in (Stream.NORMAL, Stream.SOBOL)]
    assert len({*of_noise, *others}) == len(of_noise) + len(others)


def test_the_held_out_part_of_sweeps_has_a_stream_of_its_own():
    assert Stream.SPLIT not in list(SweepStream)


def test_numbers_of_a_stream_are_those_of_its_integer():
    for stream in (Stream.NODES, SweepStream.NOISE):
        assert step_seed(3, 1, 2, stream) == step_seed(3, 1, 2, int(stream))
    plain = random_table.source(3, 4).random_sample(5)
    assert (random_table.source(3, TableStream.FLIPS).random_sample(5) == plain).all()
    block = torch.empty(16, 2, 3).normal_(generator=generator(5, 1, 0, 11 + 16))
    drawn = increments(4, 2, 3, 1.0, seed=5, step=1, stream=Noise.AHEAD)
    assert torch.equal(drawn, block[:4])


def test_seeds_are_mixed_to_the_recorded_numbers():
    found = [step_seed(0, 0), step_seed(7, 3, 2, Stream.SHIFT), step_seed(2**32 - 1, 9, 1, SweepStream.SHIFT)]
    assert found == [1195769770526638388, 5859288659876695092, 7587794685337914391]


@pytest.mark.parametrize("seed", [1.5, "1", None, True, 2**64])
def test_a_generator_needs_a_seed_that_torch_takes(seed):
    assert torch.equal(torch.rand(2, generator=seeded(-1)), torch.rand(2, generator=seeded(2**64 - 1)))
    with pytest.raises(InputError, match="seed must be a whole number, from -9223372036854775808 to "):
        seeded(seed)


def test_forked_generators_of_the_cpu_come_back():
    before = torch.get_rng_state()
    with forked_rng(), forked_rng(torch.device("cpu"), torch.device("cpu")):
        reseed(torch.device("cpu"), 3)
        first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=seeded(3)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_forked_generators_of_every_device_come_back():
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    before = [torch.cuda.get_rng_state(device) for device in devices]
    with forked_rng(*devices, torch.device("cpu")):
        for device in devices:
            reseed(device, 3)
            torch.rand(3, device=device)
    assert all(map(torch.equal, before, map(torch.cuda.get_rng_state, devices)))
