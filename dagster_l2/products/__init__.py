"""What science hands over: three FITS files per inversion, verified and taken home.

Here: their layout, the checks, the copy below the data folder, a picture, the level-2 files made of them, and
small synthetic ones to play the scientist's part. Not here: what becomes of an OP (ledger) and telling the
store (publishing).
"""

from __future__ import annotations

from dagster_l2.products.home import MANIFEST_FILE, take_home
from dagster_l2.products.layout import (
    FITTED_FILE,
    MODEL_FILE,
    OBSERVED_FILE,
    PRODUCT_FILES,
    QUANTITIES,
    Declared,
    ProductError,
    ProductFile,
    ProductsNotTaken,
    ProductsRefused,
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
from dagster_l2.products.pictures import quicklook
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
    "Declared",
    "Level2Damaged",
    "Level2Files",
    "Level2Quantity",
    "Level2Refused",
    "Level2Request",
    "Line",
    "ProductError",
    "ProductFile",
    "ProductsNotTaken",
    "ProductsRefused",
    "Quantity",
    "SyntheticShape",
    "UnknownLine",
    "VerifiedProducts",
    "check_level2",
    "line_named",
    "lines_of",
    "object_folder",
    "quicklook",
    "read_level2",
    "take_home",
    "verify",
    "write_level2",
    "write_products",
]
