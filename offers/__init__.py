"""Resource offers: decoding, the overlay, matching. Pure functions; no I/O, no clock."""
