"""What science hands over: three FITS files per inversion, verified and taken home.

Here: their layout, the checks, the copy below the data folder, a picture, and small synthetic ones to play
the scientist's part. Not here: what becomes of an OP (ledger) and telling the store (publishing).
"""

from __future__ import annotations

from dagster_l2.products.home import MANIFEST_FILE, take_home
from dagster_l2.products.layout import (
    FITTED_FILE,
    MODEL_FILE,
    OBSERVED_FILE,
    PRODUCT_FILES,
    QUANTITIES,
    ProductError,
    ProductFile,
    ProductsNotTaken,
    ProductsRefused,
    Quantity,
    VerifiedProducts,
)
from dagster_l2.products.pictures import quicklook
from dagster_l2.products.synthetic import SyntheticShape, write_products
from dagster_l2.products.verify import verify

__all__ = [
    "FITTED_FILE",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "OBSERVED_FILE",
    "PRODUCT_FILES",
    "QUANTITIES",
    "ProductError",
    "ProductFile",
    "ProductsNotTaken",
    "ProductsRefused",
    "Quantity",
    "SyntheticShape",
    "VerifiedProducts",
    "quicklook",
    "take_home",
    "verify",
    "write_products",
]
