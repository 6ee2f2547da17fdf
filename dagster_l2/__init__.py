"""From level-1 datasets to published level-2 inversions.

The folder tells the flow: ``store`` is scanned by ``sources`` and ``batch`` into ``lake``, the dbt project
decides, ``ledger`` remembers, ``inputs`` go out, ``products`` come back, ``publishing`` tells the store.
``assets``, ``sensors``, ``checks`` and ``cli`` are the thin rooms where Dagster and people come in.
"""
