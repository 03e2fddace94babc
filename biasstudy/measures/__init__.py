"""What is measured: of predictions, of batches, of shares; and what chance alone would give."""

LEVEL = 0.95  # of every interval and band of the study
