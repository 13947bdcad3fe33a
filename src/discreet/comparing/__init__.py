"""What privacy costs on one data set: contestants side by side.

table.py    what was measured, as text, Markdown, CSV and JSON
plot.py     mAP against ε
"""

from discreet.comparing.table import Comparison, Contestant, Measured

__all__ = ["Comparison", "Contestant", "Measured"]
