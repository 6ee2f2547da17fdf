"""What Dagster loads. The assembly is in ``build``."""

from dagster_l2.build import build_defs

defs = build_defs()
