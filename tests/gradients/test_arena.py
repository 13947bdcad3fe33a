from __future__ import annotations

import torch

from discreet.gradients.arena import SHARE, Arena, Wish

CPU = torch.device("cpu")


def test_what_costs_most_to_compute_again_is_held_first() -> None:
    arena = Arena(CPU)
    wishes = {
        "few positions": Wish(entries=10, positions=4),
        "many": Wish(entries=30, positions=100),
        "too large": Wish(entries=1000, positions=90),
        "some": Wish(entries=20, positions=50),
    }
    assert arena.lease(2).place("many", 30) is None
    arena.plan(wishes, kept=int(2 * 50 / SHARE), examples=2)
    lease = arena.lease(3)
    places = {name: lease.place(name, wish.entries) for name, wish in wishes.items()}
    assert {name for name, place in places.items() if place is not None} == {"many", "some"}
    many, some = places["many"], places["some"]
    assert many is not None
    assert some is not None
    assert many.shape == (3, 30)
    many.fill_(1)
    some.fill_(2)
    assert (many == 1).all(), "places overlap"


def test_memory_goes_back_only_when_nobody_knows_the_lease() -> None:
    arena = Arena(CPU)
    arena.plan({"w": Wish(entries=10, positions=1)}, kept=10_000, examples=1)
    first = arena.lease(4)
    place = first.place("w", 10)
    assert place is not None
    second = arena.lease(4)  # while the first pass's gradients are still in use
    other = second.place("w", 10)
    assert other is not None
    assert other.data_ptr() != place.data_ptr()
    address = other.data_ptr()
    del second, other
    again = arena.lease(2).place("w", 10)
    assert again is not None
    assert again.data_ptr() == address
