"""Who was in the training set: the comparison that people understand.

No bound and no proof: a model that this attack cannot tell apart may fall to a better one. It
shows what a plain model gives away and a private one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from discreet.errors import ConfigurationError

_POINTS = 200
_RESOLVING = 100  # images, of which 1 % is one


@dataclass(frozen=True, kw_only=True)
class MembershipCurve:
    """How well losses tell members from others.

    Attributes:
        members: Number of images that were trained on.
        others: Number of images that were not.
        auc: Probability that a member has a lower loss than another image; ties count half. 0.5
            is a coin.
        tpr_at_1_percent_fpr: Share of members found where 1 % of the others are accused.
        points: (FPR, TPR) pairs of the ROC curve, thinned out for a picture.
    """

    members: int
    others: int
    auc: float
    tpr_at_1_percent_fpr: float
    points: Sequence[tuple[float, float]]

    @property
    def caveat(self) -> str:
        """What the numbers of images do not allow to say; empty if they are enough."""
        if self.others >= _RESOLVING:
            return ""
        return (
            f"{self.others} images that were not trained on cannot resolve 1 % false alarms, "
            f"since one is already {100 / self.others:.0f} %: the share is what is found without "
            "any false alarm, and chance has a large part in it. Compare with "
            f"{_RESOLVING} or more."
        )

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object."""
        return {**asdict(self), "caveat": self.caveat}


def membership_curve(member_losses: ArrayLike, other_losses: ArrayLike) -> MembershipCurve:
    """ROC curve of the attack "a low loss means: trained on".

    Yeom et al., "Privacy Risk in Machine Learning" (2018), section 3.2; TPR at a low FPR as Carlini
    et al., "Membership Inference Attacks From First Principles" (2022), ask for.

    Args:
        member_losses: Losses of training images, (n,).
        other_losses: Losses of images from the same source that were not trained on, (k,).

    Raises:
        ConfigurationError: A side is empty, or a loss is not a number.
    """
    members = np.sort(np.asarray(member_losses, dtype=np.float64))
    others = np.sort(np.asarray(other_losses, dtype=np.float64))
    if len(members) == 0 or len(others) == 0:
        raise ConfigurationError(
            "a comparison needs images that were trained on and others",
            do="give the data set a validation or test split",
        )
    if np.isnan(members).any() or np.isnan(others).any():
        raise ConfigurationError("a loss is not a number")
    below = np.searchsorted(others, members, side="left")
    at_most = np.searchsorted(others, members, side="right")
    auc = 1 - float((below + at_most).mean()) / (2 * len(others))
    thresholds = np.unique(np.concatenate([members, others]))
    tpr = np.concatenate([[0.0], np.searchsorted(members, thresholds, side="right") / len(members)])
    fpr = np.concatenate([[0.0], np.searchsorted(others, thresholds, side="right") / len(others)])
    return MembershipCurve(
        members=len(members),
        others=len(others),
        auc=auc,
        tpr_at_1_percent_fpr=float(tpr[fpr <= 0.01].max()),
        points=_thinned(fpr, tpr),
    )


def _thinned(fpr: NDArray[np.float64], tpr: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), _POINTS)).round().astype(int))
    return tuple((float(fpr[i]), float(tpr[i])) for i in kept)
