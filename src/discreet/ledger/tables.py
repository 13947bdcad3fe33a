"""The tables of a data set ledger, and the checksum that every row carries.

There are no secondary indexes: a ledger is small, and a damaged index would hide rows that are
there. Rows that went missing are noticed by counts: of data sets in `meta`, of runs in each data
set.
"""

from __future__ import annotations

from hashlib import blake2b

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA = 2  # privacy units of several images
READABLE = ("1", "2")  # 1 becomes 2 with the first such unit: see `Rows.add_dataset`
CHECKSUM_BYTES = 16

RESERVED, ENDED = "reserved", "ended"  # states of a run

metadata = MetaData()

meta = Table(
    "discreet_meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

datasets = Table(
    "discreet_datasets",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("images", Integer, nullable=False),
    Column("overlaps", Text, nullable=False),  # JSON: earlier data set to number of shared images
    Column("runs", Integer, nullable=False),
    Column("created", String(32), nullable=False),
    Column("epsilon", Double),  # the budget, where there is one
    Column("delta", Double),
    Column("relation", String(32)),
    Column("checksum", LargeBinary, nullable=False),
)

membership = Table(
    "discreet_membership",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("fingerprints", LargeBinary, nullable=False),  # sorted, joined; then units
    Column("checksum", LargeBinary, nullable=False),
)

runs = Table(
    "discreet_runs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("dataset", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("planned", Text, nullable=False),  # JSON: events in order
    Column("private", Boolean, nullable=False),
    Column("accountant", String(32), nullable=False),
    Column("relation", String(32), nullable=False),
    Column("delta", Double, nullable=False),
    Column("started", String(32), nullable=False),
    Column("checksum", LargeBinary, nullable=False),
)

# Apart from `runs`, so that a charge rewrites only a short row.
charges = Table(
    "discreet_charges",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("steps", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("allowed", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("curve", LargeBinary, nullable=False),
    Column("updated", String(32), nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    CheckConstraint("0 <= position AND position <= allowed", name="discreet_within_allowed"),
    CheckConstraint("allowed <= steps", name="discreet_within_plan"),
    CheckConstraint("state IN ('reserved', 'ended')", name="discreet_state"),
)


def seal(key: bytes, table: str, *values: object) -> bytes:
    """Keyed checksum of a row (BLAKE2b, 16 bytes): a damaged row never passes for a whole one.

    Args:
        key: The ledger's key, 32 bytes.
        table: Name of the table, so that rows do not pass for those of another.
        values: All other columns, in the table's order.
    """
    # Python's notation tells numbers, text, bytes and None apart, and where each ends.
    content = repr((table, *values)).encode()
    return blake2b(content, key=key, digest_size=CHECKSUM_BYTES, person=b"discreet row").digest()
