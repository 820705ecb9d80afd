"""Sources of a simulation: generators by name, or a file.

Whatever a generator returns is made up or published, and follows from its seed alone.
This module deals nothing to sites and knows no contract.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_simulations import card_payments, pictures, sentences, triage

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ENDINGS: Mapping[str, tables.FileKind] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".npz": "npz",
}


def generate(source: str, seed: int) -> "pa.Table":
    """The rows of a simulation's source.

    Args:
        source: A name in `GENERATORS`, or the path of a CSV, Parquet or NPZ file.
        seed: Public; the same seed gives the same bytes. Published data and files
            ignore it.

    Raises:
        DataError: GLD-D007 neither a generator nor such a file; for a file also
            GLD-D001 and GLD-D002.
    """
    if source in GENERATORS:
        return GENERATORS[source](seed)
    for ending, kind in FILE_ENDINGS.items():
        if source.endswith(ending):
            return tables.read(kind, Path(source))
    raise DataError(
        "GLD-D007",
        f"source {source!r} is no generator and no file of a known ending",
        why=f"generators: {', '.join(GENERATORS)}; endings: {', '.join(FILE_ENDINGS)}",
        fix="correct [simulation] source",
    )


def breast_cancer(seed: int) -> "pa.Table":
    """569 biopsies: 30 measures of cell nuclei, and whether they were `malignant`.

    Args:
        seed: Ignored; these rows are published.

    Source: Wolberg, Street and Mangasarian 1993, Wisconsin diagnostic breast cancer,
        as it ships with scikit-learn.
    """
    import pyarrow as pa
    from sklearn.datasets import load_breast_cancer

    del seed
    published = load_breast_cancer()
    columns = {
        str(name).replace(" ", "_"): published.data[:, place]
        for place, name in enumerate(published.feature_names)
    }
    # There 0 is malignant; here the target is what is looked for.
    return pa.table(columns | {"malignant": (published.target == 0).astype("int8")})


GENERATORS: Mapping[str, Callable[[int], "pa.Table"]] = {
    "arrivals": triage.arrivals,
    "breast-cancer": breast_cancer,
    "card-payments": card_payments.generate,
    "customer-questions": sentences.questions,
    "lesions": pictures.lesions,
    "patient-scans": pictures.scans,
    "questions-by-customer": sentences.questions_by_customer,
    "transaction-images": pictures.transactions,
}
