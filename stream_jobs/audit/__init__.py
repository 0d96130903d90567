"""Proofs about what was published: that a report was counted, that outputs are one chain, that two contradict."""
