"""What a backend must prove before its speed is believed. Each leaves its numbers in the record.

Beside these :func:`.values_agree.check_values` is asked before anything is timed, and
:func:`.within_hardware.check_hardware` once the figures are made.
"""

from harness.timing.proofs.clock_is_true import check_clock
from harness.timing.proofs.handing_over import check_handing_over
from harness.timing.proofs.no_cache import check_unseen
from harness.timing.proofs.oracle_agrees import check_step
from harness.timing.proofs.unread_steps_agree import check_rounds, check_timed_way
from harness.timing.proofs.unread_steps_take_time import check_pace
from harness.timing.proofs.values_agree import check_again
from harness.timing.proofs.waits_for_work import check_waits

# In their order: the batches of the last round are there until others are fed.
PROOFS = (
    *(check_waits, check_clock, check_pace, check_unseen),
    *(check_handing_over, check_again, check_timed_way, check_rounds),
    check_step,
)
