from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from discreet.errors import ModelError
from discreet.gradients import make_engine
from tests.gradients.oracle import check_engines, per_image_loss, trainable


@settings(deadline=None, max_examples=30)
@given(
    images=st.integers(1, 4),
    middle=st.lists(st.integers(1, 4), max_size=2),
    entries=st.integers(1, 5),
    padding=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_embedding_agrees_with_the_oracle(
    images: int, middle: list[int], entries: int, padding: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(entries, 3, padding_idx=0 if padding else None)
    model = nn.Sequential(layer, nn.Linear(3, 2))
    check_engines(model, torch.randint(0, entries, (images, *middle)))


@pytest.mark.parametrize("engine", ["discreet", "opacus", "reference"])
@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_tables_that_mix_images_are_refused(engine: str, option: dict[str, float]) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, **option), nn.Linear(3, 2))
    with pytest.raises(ModelError, match="max_norm"):
        make_engine(engine, model, trainable(model)).per_example_gradients(
            lambda: per_image_loss(model, torch.randint(0, 5, (3, 4)))
        )
