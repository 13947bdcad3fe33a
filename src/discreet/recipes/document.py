"""The table of rules as `docs/recipes.md` has it; a test holds the file to it."""

from __future__ import annotations

from collections.abc import Iterator

from discreet.recipes.rules import RATES_OF_OTHERS, RECIPES, Rule

_RATES_OF_OTHERS = ", ".join(f"`{name}={rate:g}`" for name, rate in RATES_OF_OTHERS.items())
_INTRODUCTION = f"""\
# Recipes

What a private run takes where nothing is asked for. `recipe=auto` is the default; any argument
that is given wins over its row. The rates below are Adam's: with any other `optimizer`, those that
are not given too are Ultralytics' own:
{_RATES_OF_OTHERS}.

Every rule looks at public numbers only: the number n of images, or of groups where they are the
privacy unit, the number of classes, ε, δ, the task, the image size, whether the run starts from
public weights and of which size, and, with `hours`, how long a blank image takes. None looks at an
image, a label, a loss or a gradient of the private set. `discreet plan` and `discreet train` print
what was chosen and why. A run that is resumed keeps what was chosen when it began.

This file is made from `discreet.recipes.rules`: `python -m discreet.recipes > docs/recipes.md`.
"""
_MEASURED = """\
## What was measured

YOLOv8n on 808 of the 1,008 training images of TXL-PBC (blood cells, 160 px, δ = 1e-4, flips only),
200 others held out; each step read 50 images and had the noise of the whole batch. Each figure is
one run: two runs of one recipe differed by up to four points without zoom.

### Small objects: zoom

A platelet is eight pixels wide at 160 px, and pretrained features hardly know anything of that
size. Where the model enlarges the images itself, they do.

| zoom | passes | steps | ε | mAP50 | platelets | mAP50-95 |
|---|---|---|---|---|---|---|
| 1 | 40 | 160 | 8 | 0.834, 0.806 | 0.66, 0.60 | 0.560, 0.552 |
| 2 | 40 | 160 | 8 | **0.884** | 0.75 | 0.627 |
| 2 | 20 | 160 | 8 | 0.879 | 0.75 | 0.616 |
| 2 | 12.5 | 100 | 8 | 0.870 | 0.72 | 0.603 |
| 2, without the neck's γ and β | 20 | 160 | 8 | 0.840 | 0.71 | 0.561 |
| 2, `lr0` 0.03 | 20 | 160 | 2 | 0.790 | 0.58 | 0.531 |
| 2, no clipping | 20 | 160 | ∞ | 0.896 | 0.77 | 0.638 |

More passes still help a little: a thousand images are read fourteen times, as two cores do in five
minutes or less, and `steps=160 batch=252` is a run for patient users.

### What takes noise and gives nothing

In the runs above γ and β of the finest level trained, and the class rows of all three. Adam moves
every coordinate alike, whether it has a gradient or only noise: each that has none costs. With
zoom 2, 100 steps of 12.5 passes; two figures are two draws of the noise:

| what trains | numbers | ε | mAP50 | platelets | mAP50-95 |
|---|---|---|---|---|---|
| as above | 2,201 | 2 | 0.803, 0.781 | 0.61, 0.51 | 0.529, 0.539 |
| without the norm before the last class convolution | 2,041 | 2 | 0.810 | 0.61 | 0.545 |
| without the class row of a level that has no objects | 1,958 | 2 | 0.809 | 0.60 | 0.535 |
| without both, nor the first neck block's bottleneck | 1,542 | 2 | 0.829 | 0.68 | 0.537 |
| without both, γ and β of two levels | 2,854 | 2 | 0.814 | 0.60 | 0.535 |
| without all three, two levels | 2,598 | 2 | **0.842**, **0.854** | 0.69, 0.73 | 0.545, 0.549 |
| the same | 2,598 | 8 | 0.887 | 0.78 | 0.603 |
| the same, no bottlenecks at all | 2,086 | 2 | 0.807, 0.854 | 0.58, 0.73 | 0.529, 0.552 |

The recipe trains γ and β on the way to the class scores of both levels that the enlarged image
needs, outside bottlenecks: 2,214 numbers. At ε = 2 in the first row's setting, on its first draw
(0.803): momentum 0.95 0.804; half the box gains 0.791; a decay of 0.02 a step towards the start
0.817; a warm-up of 15 steps 0.827, but with 2,598 numbers 0.830 where 0.842 was without. All
changes scaled by 0.8 or 1.2 in the end: 0.798, 0.791. Two draws differ by up to five points at
ε = 2, all of it in platelets.

Noise that is correlated over steps (banded square root of the prefix sums, accounted by cyclic
Poisson sampling: Choquette-Choo et al. 2023) is not offered. For these 100 steps with q = 0.125,
momentum and decay, 2, 4 and 8 bands would leave 3, 7 and 13 % more noise in the last weights at
ε = 2, where noise is what limits; at ε = 8 7, 11 and 13 % less, where little is left to gain.

### Many classes, and scenes that are new: features that learn

YOLOv8n on FOD-A (things on runways, 31 classes, one box an image, 128 px). 27 of the 119 video
segments of its training set were held out: a model that has learned them knows other things of
each class than it is asked for.

Frozen features do not know these classes. Logistic regression on the means over each thing's box,
from 2,500 images of other segments, is right for 0.87 to 1.00 of those images, in the mean over
classes, but of the held-out segments for 0.24 to 0.41 (inputs of the last class convolutions: 0.35,
0.37 and 0.24 by level; the neck's outputs 0.35, 0.33, 0.25; blocks 4 and 6 of the backbone 0.34 and
0.41). Enlarged fourfold in area or not makes no difference to the best. So with frozen features no
ε helps; what they lack was looked for in 100 steps of 100 images with the noise of 688, one run a
row. Images are augmented as by Ultralytics, in two or four fixed states or anew at each step:

| what trains | numbers | zoom | augmentation | `lr0` | ε | mAP50 | mAP50-95 |
|---|---|---|---|---|---|---|---|
| `class_film+classes`, class rows of three levels | 9,261 | 2 | flips | 0.05 | ∞ | 0.249 | 0.173 |
| the same | 9,261 | 2 | four states | 0.05 | ∞ | 0.283 | 0.187 |
| last class convolutions alone | 5,022 | 2 | four states | 0.05 | ∞ | 0.216 | 0.146 |
| γ and β of the neck and the whole head | 889,581 | 2 | four states | 0.005 | ∞ | 0.224 | 0.168 |
| everything, class rows at 0.02 | 3,145,277 | 1 | new | 0.0003 | ∞ | 0.331 | 0.231 |
| `film+classes`, class rows of three levels | 18,125 | 1 | new | 0.03 | ∞ | 0.333 | 0.241 |
| `class_film+classes`, class rows of three levels | 9,261 | 2 | flips | 0.05 | 8 | 0.173 | 0.120 |
| `class_film+classes` | 6,750 | 2 | four states | 0.02 | 8 | 0.177 | 0.116 |
| with `class_low_rank` | 13,214 | 2 | four states | 0.03 | 8 | 0.227 | 0.166 |
| `class_film+classes`, of two levels | 5,950 | 1 | two states | 0.03 | 8 | 0.180 | 0.126 |
| `class_film+classes`, class rows of three levels | 8,461 | 1 | new | 0.03 | 8 | 0.236 | 0.173 |
| everything, class rows at 0.02 | 3,145,277 | 1 | new | 0.0003 | 8 | 0.156 | 0.108 |
| γ, β and convolutions of the finest level's way | 372,703 | 1 | new | 0.0004 | 8 | 0.185 | 0.128 |
| `film+classes`, class rows of three levels | 18,125 | 1 | new | 0.03 | 8 | 0.260 | 0.186 |
| the same, without γ and β of boxes | 16,877 | 1 | new | 0.03 | 8 | 0.250 | 0.177 |
| `film+classes`, stronger augmentation | 18,125 | 1 | new | 0.03 | 8 | 0.278 | 0.197 |
| `film+classes`, rate 0.05 | 18,125 | 1 | new | 0.05 | 8 | 0.195 | 0.136 |

γ and β of the whole model, few as they are, learn as much as all of its weights do, and hear their
gradients through the noise; that an image never looks the same twice is worth as much again. Half
way, zoom 2 was no better there (0.203, without 0.199) at four times the work. Now 160 steps of 125
images with the noise of 1,000, Ultralytics' own augmentation:

| what trains | numbers | `lr0` | ε | mAP50 | mAP50-95 |
|---|---|---|---|---|---|
| `film+classes` | 13,103 | 0.02 | 8 | 0.303 | 0.219 |
| the same, class rows of three levels | 18,125 | 0.02 | 8 | 0.317 | 0.219 |
| the same, two levels, without what hardly hears a gradient | 12,414 | 0.02 | 8 | 0.298 | 0.207 |
| `film+classes` | 13,103 | 0.012 | 8 | 0.319 | 0.230 |
| the same, 320 steps of 80 images, q halved | 13,103 | 0.012 | 8 | 0.298 | 0.214 |
| with `class_low_rank` | 15,615 | 0.02 | 8 | 0.312 | 0.220 |
| `film+classes` | 13,103 | 0.02 | 2 | 0.222 | 0.154 |
| the same | 13,103 | 0.012 | 2 | **0.242** | 0.174 |

Differences below 0.02 are chance. The recipe's rule follows: `film+classes` with Ultralytics'
augmentation and without zoom where ε · n is at least 10,000, or less with many classes (below). On
TXL-PBC, whose ε · n at ε = 8 is 8,064, the same without zoom (160 steps, 40 passes) has 0.843 on
held-out images, where `class_film+classes` has 0.834 and 0.806 without zoom, and 0.870 to 0.887
with zoom 2.

### What agrees among images: views

FOD-A as above, with other images held out, as its val images were: 20 whole segments, and the last
quarters of ten more, 998 images of 30 classes. 160 steps of 125 images with the noise of 1,000.
Class loss: -log of the true class's share of the scores at the three best boxes, in the mean over
classes; it differs by 0.02 between runs of one setting, mAP50 by 0.04.

| `film+classes` | `lr0` | ε | mAP50 | mAP50-95 | class loss |
|---|---|---|---|---|---|
| one view | 0.02 | 8 | 0.351 | 0.257 | 2.65 |
| one view | 0.012 | 8 | 0.460, 0.411, 0.387 | 0.332, 0.291, 0.278 | 2.56, 2.54, 2.56 |
| one view | 0.008 | 8 | 0.394 | 0.282 | 2.58 |
| the same, a quarter of the box gains | 0.012 | 8 | 0.418 | 0.285 | 2.59 |
| the same, tensors scaled half way to equal gradients | 0.012 | 8 | 0.467 | 0.332 | 2.53 |
| the same, tensors scaled to equal gradients | 0.012 | 8 | 0.416 | 0.301 | 2.54 |
| **two views** | 0.012 | 8 | **0.494** | 0.353 | **2.35** |
| two views, 80 steps | 0.017 | 8 | 0.427 | 0.304 | 2.48 |
| one view | 0.012 | 2 | 0.344 | 0.239 | 2.69 |
| one view | 0.007 | 2 | 0.286 | 0.209 | 2.71 |
| the same, tensors scaled half way | 0.012 | 2 | 0.334 | 0.235 | 2.71 |
| the same, a quarter of the box gains | 0.012 | 2 | 0.337 | 0.219 | 2.82 |
| the same, twice the box gains | 0.012 | 2 | 0.338 | 0.236 | 2.86 |
| **four views** | 0.012 | 2 | **0.417** | 0.295 | **2.35** |
| one view | 0.02 | ∞ | 0.480 | 0.348 | 2.20 |

Of the squared length that an image's clipped gradient has, 1.0 % is common to all images in the
first 40 steps of one view at ε = 8, then 0.28, 0.18 and 0.10 %; noise is the same all the time. Two
views have 1.4 % in the first 40. So where noise is loud a step is better spent on views than on
images: 500 images have 1.09 times the noise of 1,000 at ε = 2, but 1.33 times at ε = 8. The recipe
takes four views of 500 at ε = 2, and two of 1,000 at ε = 8. Four of 1,000 there, twice the work,
are no better: 0.385 (0.297) where two have 0.379 (0.287), on other held-out images (those below).
Boxes are right in all runs (an overlap of 0.86 in the mean): what is missing is which class.

At ε = 1 ε · n is 6,885, less than TXL-PBC's 8,064 at ε = 8, where features that stay are the better
ones for its three classes. For 31 classes they are not. On 20 other held-out segments and parts
of ten (1,215 images of 19 classes), with the noise of ε = 1 and an eighth of the images read:

| what trains | views of a batch | zoom | steps | mAP50 | mAP50-95 |
|---|---|---|---|---|---|
| `class_film+classes` | 1 of 688 | 2 | 100 | 0.110 | 0.071 |
| **`film+classes`** | 4 of 500 | 1 | 160 | **0.263** | 0.191 |
| the same | 8 of 250 | 1 | 160 | 0.253 | 0.178 |

So features learn from ε · n of 5,000 on where there are ten classes or more. Both numbers are set
between the two data sets, not measured.

### What trains, without zoom

160 steps of 40 passes in all.

| what trains | numbers | ε | mAP50 | mAP50-95 |
|---|---|---|---|---|
| `class_film+classes` with class rows of two levels | 1,958 | 8 | 0.801, 0.800 | 0.525, 0.530 |
| that and `class_low_rank`, rank 1 | 4,553 | 8 | **0.846**, **0.848** | 0.555, 0.572 |
| thin convolutions at half of their rate | 4,553 | 8 | 0.843 | 0.567 |
| thin convolutions in the neck alone | 3,014 | 8 | 0.812, 0.830 | 0.528, 0.566 |
| in the neck's block before as well | 6,665 | 8 | 0.830 | 0.569 |
| rank 2, in the class rows of one more level as well | 11,378 | 8 | 0.832 | 0.553 |
| rank 2, at twice their rate | 7,148 | 8 | 0.819 | 0.549 |
| rank 2, in the class rows alone | 5,036 | 8 | 0.786 | 0.523 |
| rank 4, first factors fixed | 3,378 | 8 | 0.816 | 0.523 |
| `class_film+classes` | 1,958 | ∞ | 0.845 | 0.549 |
| `neck_film+classes` | 6,054 | ∞ | 0.852 | 0.568 |
| rank 2, in the class rows of one more level as well | 11,378 | ∞ | 0.855 | 0.591 |
| thin convolutions, rank 1, `lr0` 0.03 | 4,553 | 2 | 0.786 | 0.523 |
| `class_film+classes`, correlated features, `lr0` 0.03 | 2,201 | 2 | 0.760 | 0.501 |
| the same, decorrelated | 2,201 | 2 | 0.772 | 0.514 |
| the same, decorrelated, `lr0` 0.05 | 2,201 | 2 | 0.761 | 0.502 |

Thin convolutions did not keep that promise where a step reads its whole batch, and so are no part
of the recipe. There, on held-out images: 0.807 (0.548) with them, 0.805 (0.534) without, one run
each. Whole runs on all 1,008 images, one each: 0.793 (0.530) on val and 0.805 (0.546) on test with
them, 0.807 (0.539) and 0.817 (0.553) without: within what chance does to runs without zoom.
Without the decorrelation of class features, whole batches: 0.793 (0.525) on held-out images.

Gradient over noise in one coordinate, first step and last, ε = 8: last class convolution of the
finest level 6.1 and 2.0; γ and β of the block before it 2.3 and 1.0, of its class row 4.4 and 1.2;
the next coarser level's class convolution 0.5 and 0.35. Platelets, rare and eight pixels wide, are
what noise costs most. James-Stein shrinkage of the momentum, means of the last iterates (`ema=`),
and a balance of 1 in place of 0.5 changed nothing or made it worse.
"""
_TITLES = {
    "auto": "`recipe=auto`, from public weights",
    "auto, from scratch": "`recipe=auto`, from an architecture alone",
    "plain": "`recipe=plain`",
}


def as_markdown() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *_sections(), _MEASURED])


def _sections() -> Iterator[str]:
    for name, rules in RECIPES.items():
        yield f"## {_TITLES[name]}\n"
        yield "| setting | value | why |"
        yield "|---|---|---|"
        first: dict[str, Rule] = {}
        for rule in rules:
            same = first.setdefault(rule.why, rule)
            why = rule.why if same is rule else f"as for `{same.setting}`"
            yield f"| `{rule.setting}` | {rule.table} | {why} |"
        yield ""
