"""Programs that write the measured pages of the documentation from the figures in ``runs/``."""
