"""Tables, figures and pages of studies and experiments, made from records alone, beside published values."""
