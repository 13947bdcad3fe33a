"""Attack a run, and say how much ε the attack proves.

    scores.py        what an attack made of its canaries, and a bound
    one_run.py       scores and coins of one run to a lower bound on ε, assuming nothing
    rates.py         the same by rates of error (Clopper-Pearson)
    conditional.py   estimates that hold for Gaussian mechanisms only
    canaries.py      gradient canaries: put in, watched, scored
    harness.py       the real step on a small model, with canaries
    trials.py        many trials of one step, with one unit in or out
    membership.py    who was in the training set: ROC curve, AUC, TPR at a low FPR
    result.py        what an audit found

Nothing here imports Ultralytics; `discreet.yolo.audit` runs these attacks on its trainer.
"""
