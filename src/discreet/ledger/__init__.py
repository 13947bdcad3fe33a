"""What was spent: a run's own record of its steps."""

from discreet.ledger.run import Ledger, RunLedger

__all__ = ["Ledger", "RunLedger"]
