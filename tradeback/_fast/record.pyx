"""LAYOUT: the structs of `record.pxd` for Python, told by the compiler, so that no number stands twice.

Owned by nobody: constants, made at import.
"""

LAYOUT = {
    "journal_record_bytes": sizeof(JournalRecord),
    "gap_record_bytes": sizeof(GapRecord),
    "wire_record_bytes": sizeof(WireRecord),
    "frame_header_bytes": FRAME_HEADER_BYTES,
    "records_per_frame": RECORDS_PER_FRAME,
}

# struct formats of the same structs, checked against the compiler's sizes in the tests.
JOURNAL_FORMAT = "<4dQqiIHBBI"
GAP_FORMAT = "<Q3dQqiIHBBI"
WIRE_FORMAT = "<Hdd"
