"""What the scientist gets for an observing program: the input package, and its frames where they are staged.

Here: which datasets belong to it, how the package lies on disk, how frames come into it. Not here: whether
the observing program may be inverted (dbt), its states (ledger), where the data folder is (settings).
"""

from __future__ import annotations

from dagster_l2.inputs.checks import Finding, FramesWrong, check_frames
from dagster_l2.inputs.cubes import CUBES_FILE, Cube, CubeRefused, cube_bytes, make_cubes, read_cubes
from dagster_l2.inputs.frames import (
    CUBES_FOLDER,
    Collection,
    Frame,
    FrameListUnusable,
    dataset_folders,
    digest,
    read_frames,
    read_listing,
    write_http_list,
    write_listing,
    write_transfer_lists,
)
from dagster_l2.inputs.globus import GlobusObjects, Item, TransferFailed, Transfers, read_note
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
from dagster_l2.inputs.pictures import PICTURE_FILE, quicklook, read_picture
from dagster_l2.inputs.s3 import S3Objects
from dagster_l2.inputs.staging import (
    MISSING_FILE,
    SOURCE,
    WRONG_FILE,
    FramesNotStaged,
    FrameStaging,
    absent,
    bytes_of,
    evict,
    is_staged,
    mark_staged,
    remove_frames,
    staged_bytes,
    staged_frames,
    standing,
)

__all__ = [
    "CUBES_FILE",
    "CUBES_FOLDER",
    "MISSING_FILE",
    "PACKAGE_FILE",
    "PICTURE_FILE",
    "SOURCE",
    "WRONG_FILE",
    "Collection",
    "Cube",
    "CubeRefused",
    "Finding",
    "FolderObjects",
    "Frame",
    "FrameListUnusable",
    "FrameNotFetched",
    "FrameStaging",
    "FramesNotStaged",
    "FramesWrong",
    "GlobusObjects",
    "HttpObjects",
    "InputDataset",
    "InputError",
    "Item",
    "Objects",
    "PackageRefused",
    "PackageUnreadable",
    "S3Objects",
    "TransferFailed",
    "Transfers",
    "absent",
    "build_package",
    "bytes_of",
    "check_frames",
    "cube_bytes",
    "dataset_folders",
    "digest",
    "evict",
    "is_staged",
    "make_cubes",
    "mark_staged",
    "package_details",
    "package_folder",
    "quicklook",
    "read_cubes",
    "read_frames",
    "read_listing",
    "read_note",
    "read_package",
    "read_picture",
    "remove_frames",
    "staged_bytes",
    "staged_frames",
    "standing",
    "write_http_list",
    "write_listing",
    "write_package",
    "write_transfer_lists",
]
