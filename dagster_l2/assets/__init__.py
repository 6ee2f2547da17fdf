"""What Dagster materializes, in the order of the flow: bronze, models, ledger, published, gold.

Thin: an asset opens the doors, calls one function of a room and reports. A rule never lives here.
"""
