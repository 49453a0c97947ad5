"""One file per objective; `base` holds the contract."""
