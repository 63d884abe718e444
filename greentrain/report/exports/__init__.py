"""Exports: the report document in the forms that finance, auditors and model cards ask for."""

from greentrain.report.exports.model_card import card_text, write_card

__all__ = ["card_text", "write_card"]
