"""Tell what is inside a fine-tuned or merged language model, and prove it."""
