"""`PRIVACY.md`: the record in plain words, on one page, in English and Chinese.

It tells what NIST SP 800-226 (2025) and "How to DP-fy ML" (Ponomareva et al. 2023, section 5.3)
ask to be reported. Figures are rounded towards less privacy.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from discreet.privacy import PrivacyUnit
from discreet.statement.evidence import CHECK_FAILED, REFUTED
from discreet.statement.files import ENVELOPE, PAGES
from discreet.statement.schema import PrivacyRecord
from discreet.terminal import format_delta, format_epsilon

_SAMPLING_ZH = {
    "poisson": "泊松采样",
    "truncated_poisson": "截断泊松采样",
    "shuffle": "打乱顺序",
    None: "未知",
}
# The reasons that a run can have against itself, in the words of the Chinese page.
_REASONS_ZH = {
    "noise and sampling are seeded: anyone can repeat them": (
        "噪声与采样使用了固定种子，任何人都能重现"
    ),
    "no noise was added": "没有加入噪声",
    "the noise does not bound ε": "噪声不足以给出 ε 的上界",
    CHECK_FAILED: "训练流程检查未通过",
    REFUTED: "审计证明的 ε 大于所声明的 ε",
    "the sampling that ran is not the sampling that was accounted": (
        "实际采样方式与核算所假定的不一致"
    ),
}


def render(record: PrivacyRecord) -> dict[str, str]:
    """The pages, by file name."""
    return {file: _render(record, language) for language, file in PAGES.items()}


def _render(record: PrivacyRecord, language: str) -> str:
    template = _environment().get_template(f"{PAGES[language]}.jinja")
    return template.render(vocabulary(record, language))


@cache
def _environment() -> Environment:
    """One for the process: it keeps the compiled templates."""
    return Environment(
        loader=PackageLoader("discreet.statement"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, from a record whose strings are this program's own
    )


def vocabulary(record: PrivacyRecord, language: str) -> dict[str, Any]:
    """What templates about a record may say, and in which form.

    Args:
        record: The record, `r` in a template.
        language: "en" or "zh-CN".
    """
    attack = record.figures.attack
    reasons = record.claim.reasons_against
    return {
        "r": record,
        "grouped": record.unit.kind is PrivacyUnit.GROUP,
        "reasons": [_REASONS_ZH.get(why, why) for why in reasons]
        if language == "zh-CN"
        else reasons,
        "balanced": "" if attack is None else percent(attack.balanced_accuracy),
        "rates": []
        if attack is None
        else [
            (percent(rate.false_positive_rate), percent(rate.at_most))
            for rate in attack.true_positive_rates
        ],
        "other_deltas": _other_deltas(record),
        "epsilon": _epsilon,
        "delta": format_delta,
        "number": lambda value: f"{value:.5g}",
        "sampling": lambda name: _SAMPLING_ZH[name],
        "envelope": ENVELOPE,
    }


def _epsilon(epsilon: float | None) -> str:
    return format_epsilon(math.inf if epsilon is None else epsilon)


def _other_deltas(record: PrivacyRecord) -> str:
    """ε at the δ that are not the claim's."""
    return ", ".join(
        f"{format_epsilon(at.epsilon)} (δ = {format_delta(at.delta)})"
        for at in record.figures.epsilon_at_delta
        if at.epsilon is not None and at.delta != record.claim.delta
    )


def percent(share: float) -> str:
    """A share as per cent with one digit after the point, rounded up to at most 100."""
    tenths = min(1000, math.ceil(share * 1000 - 1e-9))
    text = f"{tenths / 10:.1f}"
    return f"{text.removesuffix('.0')} %"
