"""What must not leave in the clear: secrets' shapes."""
