"""The proofs: checks that a backend computed every timed step. A speed is reported only if all
proofs succeed. Each proof stores its measurements in the cell's record.

Two proofs run elsewhere: :func:`.values.check_values` before the timing, and
:func:`.times.check_hardware` after it, when the rates of the cell are computed.
"""

from harness.timing.proofs.times import (
    check_clock,
    check_handing_over,
    check_pace,
    check_unseen,
    check_waits,
)
from harness.timing.proofs.values import check_again, check_rounds, check_step, check_timed_way

# The order matters: once other batches are fed, the batches of the last round are lost.
PROOFS = (
    ("waits for work", check_waits),
    ("clock is correct", check_clock),
    ("unread steps take time", check_pace),
    ("no cache", check_unseen),
    ("handing over", check_handing_over),
    ("values agree", check_again),
    ("unread steps agree", check_timed_way),
    ("unread steps agree", check_rounds),
    ("oracle agrees", check_step),
)
