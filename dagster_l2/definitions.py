"""What Dagster loads. The assembly is in ``build``."""

import gc

# Nearly all that is loaded stays: looking through it for garbage, again and again, is a seventh of the time
# that each process of a run needs to begin.
gc.disable()
try:
    from dagster_l2.build import build_defs

    defs = build_defs()
finally:
    gc.enable()
    gc.freeze()
