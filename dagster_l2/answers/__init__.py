"""What people and machines are told: how an OP stands, why, what another rule would do, what may be ordered.

Gold, bronze and ledger read together. Nothing here moves an OP, and nothing here prints.
"""
