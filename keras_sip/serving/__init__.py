"""What leaves the training: exported and shipped models, and their cards."""
