"""Stores for search by inner products that rank as the model does: FAISS and LanceDB."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypvl.embedding.search_index import ABOUT, SearchIndex, require_faiss, save_index
from hypvl.embedding.store_files import write_json
from hypvl.errors import UserError

#: The table of a LanceDB folder, with the columns ``id``, ``vector`` and, where texts are given, ``text``.
TABLE = "embeddings"


def write_faiss(index: SearchIndex, folder: Path) -> list[Path]:
    """``index.faiss`` (flat, inner product), its vectors as safetensors, and ``index.json`` with the ids."""
    return save_index(index, folder, faiss=True)


def write_lancedb(index: SearchIndex, folder: Path, *, texts: Sequence[str] | None = None) -> list[Path]:
    """A LanceDB database with the table :data:`TABLE`, and ``index.json``, which says what the vectors are.

    Search it with ``table.search(vector).distance_type("dot")``, ``vector`` being that of a query
    (:func:`~hypvl.embedding.search_index.search_vectors`, ``side="query"``).

    Args:
        index: Of keys.
        folder: Of the database.
        texts: A text for each row, to be shown with results; None = no such column.

    Raises:
        UserError: when lancedb is not installed.
    """
    require_lancedb()
    import lancedb
    import pyarrow as pa

    count, dim = index.vectors.shape
    flat = pa.array(index.vectors.contiguous().numpy().reshape(-1))
    # Names of files may not be Unicode.
    ids = [name.encode("utf-8", "backslashreplace").decode() for name in index.ids]
    columns: dict[str, Any] = {"id": pa.array(ids), "vector": pa.FixedSizeListArray.from_arrays(flat, dim)}
    if texts is not None:
        if len(texts) != count:
            raise ValueError(f"texts: got {len(texts)} for {count} rows; expected one each.")
        columns["text"] = pa.array(list(texts))
    lancedb.connect(str(folder)).create_table(TABLE, pa.table(columns))
    write_json(folder / ABOUT, {**index.about, "search": 'table.search(vector).distance_type("dot")'})
    return [folder / f"{TABLE}.lance", folder / ABOUT]


def require_store(name: str) -> None:
    """UserError, with the pip command, for a store (``"faiss"`` or ``"lancedb"``) whose package is not installed."""
    (require_faiss if name == "faiss" else require_lancedb)()


def require_lancedb() -> None:
    """Raises UserError, saying what to install, when LanceDB is absent."""
    try:
        import lancedb  # noqa: F401
    except ImportError as error:
        raise UserError(
            "a LanceDB table needs lancedb, which is not installed: pip install 'hypvl[lancedb]'."
        ) from error
