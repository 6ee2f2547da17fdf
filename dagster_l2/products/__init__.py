"""What science hands over: three FITS files per inversion, verified and taken home.

Here: their layout, how they come home, the checks, a picture, the level-2 files made of them, and
small synthetic ones to play the scientist's part. Not here: what becomes of an OP (ledger) and telling the
store (publishing).
"""

from __future__ import annotations

from dagster_l2.products.fetching import Fetched, Limits, fetch, forget
from dagster_l2.products.home import MANIFEST_FILE, at_home, seal
from dagster_l2.products.layout import (
    FITTED_FILE,
    MODEL_FILE,
    OBSERVED_FILE,
    PRODUCT_FILES,
    QUANTITIES,
    Declared,
    ProductError,
    ProductFile,
    ProductsRefused,
    ProductsUnreachable,
    Quantity,
    VerifiedProducts,
)
from dagster_l2.products.level2 import (
    LEVEL2_MANIFEST,
    LEVEL2_QUANTITIES,
    Level2Damaged,
    Level2Files,
    Level2Quantity,
    Level2Refused,
    Level2Request,
    check_level2,
    object_folder,
    read_level2,
    write_level2,
)
from dagster_l2.products.lines import KNOWN_LINES, Line, UnknownLine, line_named, lines_of
from dagster_l2.products.pictures import QUICKLOOK_FILE, quicklook
from dagster_l2.products.places import FolderPlace, HttpPlace, Place, check_address
from dagster_l2.products.synthetic import SyntheticShape, write_products
from dagster_l2.products.verify import verify

__all__ = [
    "FITTED_FILE",
    "KNOWN_LINES",
    "LEVEL2_MANIFEST",
    "LEVEL2_QUANTITIES",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "OBSERVED_FILE",
    "PRODUCT_FILES",
    "QUANTITIES",
    "QUICKLOOK_FILE",
    "Declared",
    "Fetched",
    "FolderPlace",
    "HttpPlace",
    "Level2Damaged",
    "Level2Files",
    "Level2Quantity",
    "Level2Refused",
    "Level2Request",
    "Limits",
    "Line",
    "Place",
    "ProductError",
    "ProductFile",
    "ProductsRefused",
    "ProductsUnreachable",
    "Quantity",
    "SyntheticShape",
    "UnknownLine",
    "VerifiedProducts",
    "at_home",
    "check_address",
    "check_level2",
    "fetch",
    "forget",
    "line_named",
    "lines_of",
    "object_folder",
    "quicklook",
    "read_level2",
    "seal",
    "verify",
    "write_level2",
    "write_products",
]
