"""What stands in examples/ is run here."""
