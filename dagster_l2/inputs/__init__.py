"""What the scientist gets for an observing program: the input package.

Here: which datasets belong to it, grouped by arm and line, and how the package lies on disk. Not here:
whether the observing program may be inverted (dbt), its states (ledger), where the data folder is (settings).
"""

from __future__ import annotations

from dagster_l2.inputs.package import (
    PACKAGE_FILE,
    InputDataset,
    InputError,
    PackageRefused,
    PackageUnreadable,
    build_package,
    package_details,
    package_folder,
    read_package,
    write_package,
)

__all__ = [
    "PACKAGE_FILE",
    "InputDataset",
    "InputError",
    "PackageRefused",
    "PackageUnreadable",
    "build_package",
    "package_details",
    "package_folder",
    "read_package",
    "write_package",
]
