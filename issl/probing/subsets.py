"""Draws the labels that a probe is trained and selected on: stratified, as in the released code."""

import numpy as np

from issl.errors import UserError


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Row numbers of a stratified draw without replacement, with scikit-learn as in the released code.

    Raises UserError if the fraction leaves a class without images.
    """
    rows = np.arange(len(labels))
    if fraction == 1:
        return rows
    return _split(rows, labels, fraction, seed, f"probes: fraction {fraction}")[1]


def hold_out(labels: np.ndarray, subset: np.ndarray, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits a subset into rows to train on and a stratified part to select on. Raises UserError if impossible."""
    return _split(subset, labels[subset], part, seed, f"probes: holdout {part} of {len(subset)} labels")


def _split(rows: np.ndarray, labels: np.ndarray, part: float, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split  # slow to import, and a grid may need no draw

    try:
        rest, drawn = train_test_split(rows, test_size=part, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"{what}: cannot be drawn from {len(rows)} labels: {error}") from None
    return rest, drawn
