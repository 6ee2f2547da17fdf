"""The metadata store and the UDL on this machine: a real HTTP server over records and observations.

Its records come from JSON dumps or a seeded generator, and it can be told to misbehave. The client that
speaks to it is in ``store.client`` and knows nothing of it.
"""

from dagster_l2.store.server.app import store_app, udl_app
from dagster_l2.store.server.faults import Faults, Rule
from dagster_l2.store.server.frames import FramesNotMade, can_make_frames
from dagster_l2.store.server.generate import DEMO_NOW, generate
from dagster_l2.store.server.inversions import InversionsUnreadable
from dagster_l2.store.server.reach_generate import ReachFleet
from dagster_l2.store.server.records import RecordSet, RecordsUnreadable
from dagster_l2.store.server.running import LocalStoreServer, StoreServerFailed, serve

__all__ = [
    "DEMO_NOW",
    "Faults",
    "FramesNotMade",
    "InversionsUnreadable",
    "LocalStoreServer",
    "ReachFleet",
    "RecordSet",
    "RecordsUnreadable",
    "Rule",
    "StoreServerFailed",
    "can_make_frames",
    "generate",
    "serve",
    "store_app",
    "udl_app",
]
