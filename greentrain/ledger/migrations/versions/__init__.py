"""The revisions of the ledger's tables, one file each."""

__all__: list[str] = []
