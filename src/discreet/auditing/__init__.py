"""Attack a run, and say how much ε the attack proves.

    bounds.py        scores and coins to a lower bound on ε, assuming nothing
    conditional.py   estimates that hold for Gaussian mechanisms only
    canaries.py      gradient canaries: put in, watched, scored
    harness.py       the real step on a small model, with canaries
    trials.py        many trials of one step, with one unit in or out
    membership.py    who was in the training set: ROC curve, AUC, TPR at a low FPR
    result.py        what an audit found

Nothing here imports Ultralytics; `discreet.yolo.audit` runs these attacks on its trainer.
"""
