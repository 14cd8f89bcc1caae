"""LAYOUT, EVENTS, FLAGS, REASONS, UNFILLABLE: what stands in `record.pxd` for Python, told by the compiler, so that no
number stands twice.

Owned by nobody: constants, made at import.
"""

LAYOUT = {
    "journal_record_bytes": sizeof(JournalRecord),
    "gap_record_bytes": sizeof(GapRecord),
    "begin_record_bytes": sizeof(BeginRecord),
    "wire_record_bytes": sizeof(WireRecord),
    "frame_header_bytes": FRAME_HEADER_BYTES,
    "records_per_frame": RECORDS_PER_FRAME,
}

# struct formats of the same structs, checked against the compiler's sizes in the tests.
JOURNAL_FORMAT = "<4dQqiIHBBI"
GAP_FORMAT = "<Q3dQqiIHBBI"
BEGIN_FORMAT = "<Q24xQq8xHBBI"
WIRE_FORMAT = "<Hdd"

# The flags of a trade record, the reasons of a gap record, and why ids are unfillable, by their names in lower case.
EVENTS = {"trade": EVENT_TRADE, "agg_trade": EVENT_AGG_TRADE, "quote": EVENT_QUOTE}
FLAGS = {
    "buyer_maker": FLAG_BUYER_MAKER,
    "aggregate": FLAG_AGGREGATE,
    "sparse": FLAG_SPARSE,
    "late": FLAG_LATE,
    "repair": FLAG_REPAIR,
}
REASONS = {
    "timeout": GAP_TIMEOUT,
    "unknown_quantity": GAP_UNKNOWN_QUANTITY,
    "overflow": GAP_OVERFLOW,
    "restart": GAP_RESTART,
    "unwritten": GAP_UNWRITTEN,
    "unfillable": GAP_UNFILLABLE,
    "begin": GAP_BEGIN,
    "lost": GAP_LOST,
}
UNFILLABLE = {
    "not_there": UNFILLABLE_NOT_THERE,
    "too_old": UNFILLABLE_TOO_OLD,
    "quantity": UNFILLABLE_QUANTITY,
    "begin": UNFILLABLE_BEGIN,
}
