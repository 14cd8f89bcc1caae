"""What the steps of the hot path answer. Nothing on that path raises; the caller counts and goes on."""


cdef enum Decoded:
    DECODED_EVENT = 0       # `event` is filled
    DECODED_OTHER = 1       # well-formed, but no trade, aggTrade or bookTicker (an answer to SUBSCRIBE, ...)
    DECODED_UNUSUAL = 2     # may be valid, but only the slow path in Python can tell
    DECODED_MALFORMED = 3   # no event can be had from it
    DECODED_SHUTDOWN = 4    # serverShutdown: the exchange is about to close the connection; open the next one


cdef enum Applied:
    APPLIED_FRESH = 0       # the table changed, for trades: `records` holds what is to be journaled
    APPLIED_DUPLICATE = 1   # every id of it was covered before
    APPLIED_STALE = 2       # a quote older than the one in the table
    APPLIED_HELD = 3        # an aggTrade that waits for its single trades
    APPLIED_UNKNOWN = 4     # no slot carries this symbol
    APPLIED_REFUSED = 5     # values that cannot be: price or quantity not above zero, ids descending
