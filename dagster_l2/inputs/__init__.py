"""What the scientist gets for an observing program: the input package, and its frames where they are staged.

Here: which datasets belong to it, how the package lies on disk, how frames come into it. Not here: whether
the observing program may be inverted (dbt), its states (ledger), where the data folder is (settings).
"""

from __future__ import annotations

from dagster_l2.inputs.frames import (
    Collection,
    Frame,
    FrameListUnusable,
    digest,
    read_frames,
    read_listing,
    write_http_list,
    write_listing,
    write_transfer_lists,
)
from dagster_l2.inputs.objects import FolderObjects, FrameNotFetched, HttpObjects, Objects
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
from dagster_l2.inputs.staging import (
    FramesNotStaged,
    FrameStaging,
    absent,
    bytes_of,
    evict,
    is_staged,
    mark_staged,
    staged_bytes,
)

__all__ = [
    "PACKAGE_FILE",
    "Collection",
    "FolderObjects",
    "Frame",
    "FrameListUnusable",
    "FrameNotFetched",
    "FrameStaging",
    "FramesNotStaged",
    "HttpObjects",
    "InputDataset",
    "InputError",
    "Objects",
    "PackageRefused",
    "PackageUnreadable",
    "absent",
    "build_package",
    "bytes_of",
    "digest",
    "evict",
    "is_staged",
    "mark_staged",
    "package_details",
    "package_folder",
    "read_frames",
    "read_listing",
    "read_package",
    "staged_bytes",
    "write_http_list",
    "write_listing",
    "write_package",
    "write_transfer_lists",
]
