"""What a person may order, in the words in which commands and service refuse it alike.

The orders themselves are the ledger's; here is what has to hold before one is given.
"""

from __future__ import annotations

import re
from pathlib import Path

from dagster_l2.base.errors import WrongUse
from dagster_l2.ledger import Ledger, Present, State
from dagster_l2.pipeline.holds import approve
from dagster_l2.settings import Settings

_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}\Z")


def check_writable(settings: Settings) -> None:
    """Raise `WrongUse` where the store can only be read."""
    if settings.store_kind == "public":
        raise WrongUse(
            "The public dataset search is read only: set L2_STORE_KIND=graphql to claim and to publish."
        )


def check_commit(commit: str, what: str) -> None:
    """Raise `WrongUse` unless it is the hash of a commit; ``what`` names it in the sentence."""
    if not _COMMIT.match(commit):
        raise WrongUse(f"{what} takes a hash of 7 to 64 hexadecimal digits, not {commit!r}.")


def read_checksums(file: Path) -> dict[str, str]:
    """SHA-256 by name of file, from what ``sha256sum *.fits`` printed; folders before a name are left out.

    Raises
    ------
    WrongUse
        When a line is none of its lines, or there is none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WrongUse(f"The checksums in {file} cannot be read ({error}).") from None
    found = [_SUM.fullmatch(line) for line in lines if line.strip()]
    sums = {Path(one[2]).name: one[1].lower() for one in found if one}
    if not found or None in found:
        raise WrongUse(f"{file} is not what `sha256sum *.fits` prints: a SHA-256 and a name on each line.")
    return sums


def place_of_products(settings: Settings, products: str) -> str:
    """Where products are, as any process finds them.

    Raises
    ------
    WrongUse
        For a folder that is not there now, or an address that must not be kept.
    """
    if "://" in products:
        from dagster_l2.products import check_address  # late: other orders need no products

        return check_address(products)
    if _is_folder(Path(products)):
        return str(Path(products).absolute())
    if settings.products_root is not None and _is_folder(settings.products_root.expanduser() / products):
        return products
    raise WrongUse(f"The folder {products} of the products is not there.")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def approve_publishing(ledger: Ledger, op_id: str, *, actor: str) -> Present:
    """Record an operator's word that an Inverted OP may be published; the next hand-over run does it.

    Raises
    ------
    WrongUse
        When the OP is in any other state.
    """
    present = ledger.present(op_id)
    if present.state is not State.INVERTED:
        shown = op_id if op_id.isprintable() else ascii(op_id)
        raise WrongUse(f"{shown} is {present.state}; only an Inverted OP can be published.")
    approve(ledger, present, actor=actor)
    return present
