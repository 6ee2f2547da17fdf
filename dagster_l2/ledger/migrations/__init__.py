"""The steps from one schema of the state database to the next, run by ``ledger.migrate``."""
