"""Tables and figures, made from records alone."""

from unmerge.report.matrix import plot_matrix
from unmerge.report.table import show_adapters, show_decomposition, show_matrix, show_zoo

__all__ = ["plot_matrix", "show_adapters", "show_decomposition", "show_matrix", "show_zoo"]
