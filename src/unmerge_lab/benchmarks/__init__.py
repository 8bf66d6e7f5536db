"""Programs that measure the library on targets whose ingredients are known, and keep the figures in ``runs/``; ``make help`` lists them."""
