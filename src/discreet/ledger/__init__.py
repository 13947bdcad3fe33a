"""What was spent: a run's own record of its steps, and the ledger of data sets over all runs."""

from discreet.ledger.accounts import OWN_RECORD, RunAccounts
from discreet.ledger.budget import BudgetLedger
from discreet.ledger.changes import BudgetChange
from discreet.ledger.database import without_secrets
from discreet.ledger.reservation import Reservation, reconcile
from discreet.ledger.rows import Budget, Dataset
from discreet.ledger.run import Ledger, RunLedger
from discreet.ledger.spending import Spent

__all__ = [
    "OWN_RECORD",
    "Budget",
    "BudgetChange",
    "BudgetLedger",
    "Dataset",
    "Ledger",
    "Reservation",
    "RunAccounts",
    "RunLedger",
    "Spent",
    "reconcile",
    "without_secrets",
]
