"""Probes of what a run has planned: the noise that is charged, and randomness that is its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from discreet.accounting import AdaptivelyClippedGaussian, Event
from discreet.checking import Finding
from discreet.clipping import AdaptiveClipping
from discreet.yolo import train

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

_STEPS = 64  # plateaus of noise are at most half as many


def probes(trainer: PrivateDetectionTrainer) -> Mapping[str, Callable[[], Finding]]:
    """The probes of the plan, by name."""
    return {
        "schedule": lambda: schedule(trainer),
        "randomness": lambda: randomness(trainer),
    }


def schedule(trainer: PrivateDetectionTrainer) -> Finding:
    """Noise and sample rate of each step, and those of the event that it is charged as."""
    mechanism = trainer.plan.mechanism
    finding = Finding(
        probe="schedule",
        compared="the noise and sample rate of steps with those that they are charged as",
        verdict="passed",
    )
    sampler = mechanism.make_sampler()
    for step in {int(step) for step in np.linspace(1, mechanism.steps, _STEPS)}:
        noise = mechanism.make_mechanism(step)
        event: Event = sampler.event(noise_multiplier=noise.noise_multiplier, steps=1)
        if isinstance(trainer.clipping, AdaptiveClipping):
            event = AdaptivelyClippedGaussian(
                sample_rate=mechanism.sample_rate,
                noise_multiplier=noise.noise_multiplier,
                count_noise_multiplier=trainer.clipping.count_noise_multiplier,
                steps=1,
            )
        if mechanism.step_event(step) != event:
            return replace(
                finding,
                verdict="failed",
                where=(f"step {step}",),
                what=f"runs with σ = {noise.noise_multiplier:.4g}, and is charged as another step",
                do="take a step's noise and its event from the same plan",
            )
    return finding


def randomness(trainer: PrivateDetectionTrainer) -> Finding:
    """The random numbers of a run that is begun twice: only an asked-for seed repeats them."""
    seed = trainer.prepared.privacy.insecure_seed
    finding = Finding(
        probe="randomness",
        compared="the first random numbers of two runs of the same settings",
        verdict="passed",
    )
    if seed is not None:
        return replace(finding, verdict="not run", what="the run asks for a seed: not private")
    first: list[Any] = [
        train.make_source(seed).stream().integers(0, 2**64, size=4, dtype=np.uint64)
        for _ in range(2)
    ]
    if trainer.source.secure and not np.array_equal(*first):
        return finding
    return replace(
        finding,
        verdict="failed",
        where=("the random source",),
        what="it is seeded: a run that is resumed would repeat its noise, which can be subtracted",
        do="take a fresh key from the operating system for every draw, and never store one",
    )
